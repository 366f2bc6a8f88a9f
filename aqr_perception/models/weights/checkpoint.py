"""Reads and writes model weights: our files and the CMT authors'.

Strict: every parameter and buffer of the model must be in the file with its shape, and nothing else. The one exception
is the query router, which the authors' models do not have: a file may lack all of `ROUTER_PREFIX`, though not a part.
"""

import os
import pickle
import tempfile
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

ROUTER_PREFIX = "aqr."

_WRAPPERS = ("state_dict", "model")
_PARALLEL_PREFIX = "module."


class CheckpointError(ValueError):
    """Weights cannot be read, or do not fit the model; the message names the file, every key at fault and the remedy.

    Attributes:
        missing: keys the model needs and the file lacks.
        surplus: keys of the file that the model does not have.
        misfits: one line for each key whose shape or kind of number is wrong.
    """

    def __init__(
        self,
        message: str,
        missing: tuple[str, ...] = (),
        surplus: tuple[str, ...] = (),
        misfits: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.missing, self.surplus, self.misfits = missing, surplus, misfits


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint held.

    Attributes:
        source: the file, or ``state dict``.
        tensors: how many were loaded.
        has_router: whether the query router's parameters were among them (true for a model without a router).
        converted_kernels: how many sparse kernels were stored in spconv 1's layout.
        cast: how many were stored in another precision than the model's.
    """

    source: str
    tensors: int
    has_router: bool
    converted_kernels: int
    cast: int


def load_checkpoint(model: nn.Module, source: str | Path | Mapping[str, Tensor]) -> LoadReport:
    """Load weights into a model; on an error the model is left as it was.

    Args:
        model: gets the weights, cast to its own precision and device.
        source: a file of torch.save or safetensors, or a state dict. Either may be nested under ``state_dict`` or
            ``model`` (what lies beside it, such as an optimiser's state, is not looked at), and its keys may have the
            prefix ``module.``. Sparse kernels may be (out, kD, kH, kW, in), as the model's, or (kD, kH, kW, in, out).

    Raises:
        CheckpointError: the file cannot be read, or keys are missing, surplus or misshapen; all are listed.
    """
    name, found = read_weights(source)
    needed = model.state_dict()

    router = {key for key in needed if key.startswith(ROUTER_PREFIX)}
    has_router = not router or any(key in found for key in router)
    expected = needed.keys() if has_router else needed.keys() - router
    converted, turned = with_own_kernels(found, needed)
    require_fit(name, converted, {key: needed[key] for key in needed if key in expected}, router)

    model.load_state_dict(converted, strict=has_router)
    cast = sum(tensor.dtype != needed[key].dtype for key, tensor in converted.items())
    return LoadReport(name, len(converted), has_router, turned, cast)


def read_weights(source: str | Path | Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """Return a name for messages, and the tensors by key, of what `load_checkpoint` takes.

    Raises:
        CheckpointError: the file cannot be read, or holds no state dict.
    """
    if isinstance(source, Mapping):
        return "state dict", _state_dict("state dict", source)
    return str(source), _state_dict(str(source), _read(Path(source)))


def save_checkpoint(model: nn.Module, path: str | Path, half: bool = False) -> None:
    """Write a model's weights as safetensors; a reader sees the old file or the whole new one, never a part.

    Args:
        model: whose weights are written.
        path: of the file.
        half: write matrices and kernels in fp16, which halves the file. Vectors, batch norm statistics among them, are
            small, and some exceed fp16's range.

    Raises:
        CheckpointError: the file cannot be written.
    """
    path = Path(path)
    # Cloned, because safetensors refuses tensors that share memory.
    state = {
        key: _stored(tensor, half).cpu().clone(memory_format=torch.contiguous_format)
        for key, tensor in model.state_dict().items()
    }
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            partial = Path(file.name)
        try:
            safetensors.torch.save_file(state, partial, metadata={"format": "pt"})
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            # The temporary file is private to its owner; a checkpoint is as readable as any file the user makes.
            partial.chmod(0o666 & ~_umask())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: cannot be written ({error}); choose an existing, writable directory with enough free space"
        ) from error


def _stored(tensor: Tensor, half: bool) -> Tensor:
    return tensor.detach().half() if half and tensor.is_floating_point() and tensor.dim() > 1 else tensor.detach()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _read(path: Path) -> object:
    try:
        with path.open("rb") as file:
            start = file.read(9)
        # A safetensors file is the length of its header in 8 bytes, then that header, a JSON object.
        if path.suffix == ".safetensors" or start[8:] == b"{":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: is no PyTorch checkpoint of tensors and plain values alone, and other objects are not loaded "
            "because they could run code; if you trust it, load it where it was made and save its state_dict again"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: is truncated or corrupt ({error}); download or export it again (safetensors or torch.save)"
        ) from error


def _state_dict(name: str, content: object) -> dict[str, Tensor]:
    """Return the tensors by key, without wrappers and without the prefix of (Distributed)DataParallel."""
    wrapped = True
    while wrapped:
        wrapped = False
        for wrapper in _WRAPPERS:
            if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
                content, wrapped = content[wrapper], True
                break
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{name}: holds a {type(content).__name__}, needed a state dict (key -> tensor), alone or under "
            f"{' or '.join(map(repr, _WRAPPERS))}"
        )
    others = [
        f"{key!r} ({type(value).__name__})"
        for key, value in content.items()
        if not (isinstance(key, str) and isinstance(value, Tensor))
    ]
    if others:
        raise CheckpointError(
            f"{name}: holds entries that are no named tensors: {', '.join(others)}; save the model's state_dict, "
            f"alone or under {' or '.join(map(repr, _WRAPPERS))}"
        )
    parallel = bool(content) and all(key.startswith(_PARALLEL_PREFIX) for key in content)
    return {key.removeprefix(_PARALLEL_PREFIX) if parallel else key: tensor for key, tensor in content.items()}


def with_own_kernels(found: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Return weights with sparse kernels in the layout of a model's tensors `needed`, and how many had another."""
    kernels = _spconv1_kernels(found, needed)
    turned = {key: tensor.permute(4, 0, 1, 2, 3) if key in kernels else tensor for key, tensor in found.items()}
    return turned, len(kernels)


def _spconv1_kernels(found: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> set[str]:
    """Return the keys of sparse kernels stored as (kD, kH, kW, in, out), spconv 1's layout, told by their shapes."""
    only_as_spconv1: set[str] = set()
    either: set[str] = set()
    for key in found.keys() & needed.keys():
        stored, shape = tuple(found[key].shape), tuple(needed[key].shape)
        if len(shape) == 5 and stored == (*shape[1:], shape[0]):
            (either if stored == shape else only_as_spconv1).add(key)
    # A kernel whose five sizes are all equal cannot tell; a file is written in one layout throughout.
    return only_as_spconv1 | either if only_as_spconv1 else set()


def require_fit(
    name: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], router: Set[str] = frozenset()
) -> None:
    """Check that weights have the expected keys, shapes and kinds of numbers, and nothing else.

    Args:
        name: of their source, for the message.
        found: the weights.
        expected: tensors of the model.
        router: those of the expected keys that a file holds all or none of.

    Raises:
        CheckpointError: they do not; all keys at fault are listed.
    """
    missing = tuple(key for key in expected if key not in found)
    surplus = tuple(key for key in found if key not in expected)
    misfits = tuple(
        misfit for key in expected if key in found and (misfit := misfit_of(key, found[key], expected[key])) is not None
    )
    if not (missing or surplus or misfits):
        return
    lines = [f"{name}: does not fit the model ({len(expected)} keys needed, {len(found)} found)"]
    lines += [f"  missing: {key}" for key in missing]
    lines += [f"  surplus: {key}" for key in surplus]
    lines += [f"  misfit: {misfit}" for misfit in misfits]
    if router & set(missing):
        lines.append(f"A file holds all of the query router's keys ({ROUTER_PREFIX}*) or none: export it again.")
    lines.append("Choose the model preset that these weights were trained with, or the weights of this preset.")
    raise CheckpointError("\n".join(lines), missing, surplus, misfits)


def misfit_of(key: str, found: Tensor, needed: Tensor) -> str | None:
    """Return why a tensor cannot be loaded in place of another, or None."""
    if found.shape != needed.shape:
        either = ""
        if needed.dim() == 5:
            either = f" (or {list((*needed.shape[1:], needed.shape[0]))} in spconv 1's layout)"
        return f"{key} has shape {list(found.shape)}, needed {list(needed.shape)}{either}"
    if found.is_floating_point() != needed.is_floating_point() or found.is_complex():
        return f"{key} has {found.dtype}, which cannot be cast to {needed.dtype} without loss"
    return None
