# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Cache of tensors that are computed from a module's weights."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import RLock
from weakref import WeakKeyDictionary

from torch import Tensor, nn


@dataclass(frozen=True)
class _Entry:
    """Derived tensors and their sources.

    An address identifies a source, so the entry keeps the sources alive; their memory is not reused.
    """

    key: Hashable
    sources: tuple[Tensor, ...]
    versions: tuple[int, ...]
    derived: tuple[Tensor, ...]

    def matches(self, key: Hashable, sources: tuple[Tensor, ...]) -> bool:
        return (
            self.key == key
            and len(self.sources) == len(sources)
            and all(map(_same_memory, self.sources, sources))
            and self.versions == tuple(map(_version, sources))
        )


class DerivedTensors:
    """Tensors computed from parameters and buffers, one entry per module, recomputed when a source changes.

    Detected changes are in-place writes (optimiser steps, `load_state_dict`) and a new address, dtype or device (`to`).
    Three writes do not raise a tensor's version and stay undetected: writes through ``.data``, fused optimisers, and
    batch norms that update their running statistics. A module that trains must therefore call `drop`.

    Modules are referenced weakly: a model that is replaced at run time frees its derived tensors.
    """

    def __init__(self) -> None:
        self._entries: WeakKeyDictionary[nn.Module, _Entry] = WeakKeyDictionary()
        self._computing = RLock()  # pictures side by side need the same tensors at once

    def get(
        self,
        module: nn.Module,
        sources: tuple[Tensor | None, ...],
        compute: Callable[[], tuple[Tensor, ...]],
        key: Hashable = None,
    ) -> tuple[Tensor, ...]:
        """Return the detached result of ``compute()``, from the cache if the sources and the key are unchanged.

        Args:
            module: owner of the entry.
            sources: the tensors that the result depends on; None for absent ones.
            compute: computes the derived tensors.
            key: all other values that the result depends on.
        """
        present = tuple(source for source in sources if source is not None)
        entry = self._entries.get(module)
        if entry is not None and entry.matches(key, present):
            return entry.derived
        with self._computing:
            entry = self._entries.get(module)
            if entry is None or not entry.matches(key, present):
                versions = tuple(map(_version, present))
                derived = tuple(tensor.detach() for tensor in compute())
                entry = _Entry(key, tuple(source.detach() for source in present), versions, derived)
                self._entries[module] = entry
        return entry.derived

    def drop(self, module: nn.Module) -> None:
        """Remove a module's entry."""
        self._entries.pop(module, None)


def _version(tensor: Tensor) -> int:
    # Tensors created in inference mode have no version; they cannot be written to outside inference mode.
    return -1 if tensor.is_inference() else tensor._version


def _same_memory(left: Tensor, right: Tensor) -> bool:
    return left.data_ptr() == right.data_ptr() and left.dtype == right.dtype and left.device == right.device
