# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Learning-rate factors of the parts of a model: the preset's, and those that a training replaces."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from aqr_perception.options import OptionError


@dataclass(frozen=True)
class PartFactors:
    """Learning rates relative to the schedule, by part of a model; 0 freezes a part.

    A part is one or several successive components of a parameter's name: ``transformer`` and
    ``pts_bbox_head.transformer`` are parts of ``pts_bbox_head.transformer.decoder.norm.weight``. Of several parts of a
    name, the one that reaches furthest into the name counts; of those that end at the same place, the longest.

    Attributes:
        by_part: part -> factor; parameters without a part have 1.
    """

    by_part: Mapping[str, float]

    def of(self, name: str) -> float:
        """Return the factor of a parameter or module by its full name."""
        reaches = {part: _reach(name, part) for part in self.by_part}
        matching = [part for part, reach in reaches.items() if reach >= 0]
        if not matching:
            return 1.0
        return self.by_part[max(matching, key=lambda part: (reaches[part], len(part)))]

    def freezes(self, name: str, module: nn.Module) -> bool:
        """Return whether a module is frozen: none of its parameters, or its own name if it has none, has a rate."""
        parameters = [f"{name}.{inner}" if name else inner for inner, _ in module.named_parameters()]
        return all(self.of(parameter) == 0 for parameter in parameters or [name])


def part_factors(model: nn.Module, replaced: Mapping[str, float] | None = None) -> PartFactors:
    """Return the factors of the model's preset, with those of a training in place of the same parts'.

    Raises:
        OptionError: a part has no parameter of the model.
    """
    preset, replaced = getattr(model, "preset", None), replaced or {}
    by_part: dict[str, float] = {**getattr(preset, "learning_rate_factors", {}), **replaced}
    names = [name for name, _ in model.named_parameters()]
    for part in by_part:
        if all(_reach(name, part) < 0 for name in names):
            source = "train" if part in replaced else f"preset {getattr(preset, 'name', None)}"
            raise OptionError(
                f"{source}: learning_rate_factors has the part {part!r}, but no parameter of the model belongs to it: "
                f"{_alternatives(part, names)}"
            )
    return PartFactors(by_part)


def _reach(name: str, part: str) -> int:
    """Return where a part ends in a name, -1 if the name does not hold it; only whole components match."""
    start = f".{name}.".rfind(f".{part}.")
    return -1 if start < 0 else start + len(part)


def _alternatives(part: str, names: Iterable[str]) -> str:
    components = {component: None for name in names for component in name.split(".")}
    similar = difflib.get_close_matches(part.rpartition(".")[2], components)
    if similar:
        return f"did you mean {' or '.join(map(repr, similar))}?"
    first = dict.fromkeys(name.partition(".")[0] for name in names)
    return f"correct it or remove it; the model's names begin with {', '.join(first)}"
