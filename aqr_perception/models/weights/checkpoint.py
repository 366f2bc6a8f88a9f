"""Reading and writing of model weights: files of this project and published files.

Loading is strict: a file must hold every parameter and buffer of the model in its shape, and nothing else. The query
router is the only exception, because published models have none: a file may lack all keys with `ROUTER_PREFIX`, but
not some of them.

Files of this project also hold the class names, in the metadata of safetensors. Published files do not.
"""

import json
import os
import pickle
import tempfile
from collections.abc import Mapping, Set
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

ROUTER_PREFIX = "aqr."

CLASSES_ENTRY = "aqr_perception.classes"
"""Entry with the class names: a JSON list in the metadata of safetensors, a list next to the weights of a training."""

_WRAPPERS = ("state_dict", "model")
_PARALLEL_PREFIX = "module."


class CheckpointError(ValueError):
    """Weights cannot be read or do not fit the model. The message names the file, every wrong key and the remedy."""


@runtime_checkable
class ClassModel(Protocol):
    """A model with class outputs; see `DetectionModel`."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    def class_count(self, weights: Mapping[str, Tensor]) -> int | None: ...


@runtime_checkable
class VariantModel(Protocol):
    """A model that accepts variants of its weights; see `DetectionModel`."""

    def convert_weights(self, name: str, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]: ...

    def adopt_variant(self, name: str, weights: Mapping[str, Tensor]) -> None: ...


class StoredWeights(NamedTuple):
    """Content of a checkpoint.

    Attributes:
        name: of the source, for messages.
        tensors: by key.
        classes: names of the classes in the order of the class outputs; None if unknown.
    """

    name: str
    tensors: dict[str, Tensor]
    classes: tuple[str, ...] | None = None


def load_checkpoint(model: nn.Module, source: str | Path | Mapping[str, Tensor]) -> bool:
    """Load weights into a model; on an error the model stays unchanged.

    Args:
        model: model that receives the weights, cast to its precision and device.
        source: a file of torch.save or safetensors, or a state dict. The state dict may be nested under ``state_dict``
            or ``model``; other entries on that level, such as an optimiser's state, are ignored. Keys may have the
            prefix ``module.``. Sparse kernels may be (out, kD, kH, kW, in), as in the model, or (kD, kH, kW, in, out).

    Returns:
        Whether the weights include the query router's parameters; true for a model without a router.

    Raises:
        CheckpointError: the file cannot be read, has other classes than the model, or keys are missing, surplus or
            misshapen; all are listed.
    """
    stored = read_weights(source)
    name, found = stored.name, stored.tensors
    if isinstance(model, ClassModel):
        require_classes(stored, model)
    needed = model.state_dict()

    router = {key for key in needed if key.startswith(getattr(model, "optional_router", (ROUTER_PREFIX,)))}
    has_router = not router or any(key in found for key in router)
    expected = needed.keys() if has_router else needed.keys() - router
    converted = model.convert_weights(name, found) if isinstance(model, VariantModel) else found
    weights = to_model_layout(converted, needed)
    require_fit(name, weights, {key: needed[key] for key in needed if key in expected}, router)

    model.load_state_dict(weights, strict=has_router)
    if isinstance(model, VariantModel):
        model.adopt_variant(name, found)
    return has_router


def require_classes(stored: StoredWeights, model: ClassModel) -> None:
    """Check that weights have the classes of a model, as far as is known.

    Raises:
        CheckpointError: the number of classes, their names or their order differ.
    """
    needed, names = model.classes, stored.classes
    count = model.class_count(stored.tensors)
    if count is not None and count != len(needed):
        raise CheckpointError(
            f"{stored.name}: has {count} classes{_listed(names)}, but the model's preset has {len(needed)}"
            f"{_listed(needed)}; choose a preset whose entry 'classes' lists the {count} of these weights, or other "
            "weights"
        )
    if names is not None and names != needed:
        raise CheckpointError(
            f"{stored.name}: was trained with the classes {', '.join(names)}, but the model's preset has "
            f"{', '.join(needed)}; choose a preset whose entry 'classes' lists those of these weights in their order, "
            "or other weights"
        )


def _listed(names: tuple[str, ...] | None) -> str:
    return "" if names is None else f" ({', '.join(names)})"


def read_weights(source: str | Path | Mapping[str, Tensor]) -> StoredWeights:
    """Return the weights of a source as in `load_checkpoint`.

    Raises:
        CheckpointError: the file cannot be read or holds no state dict.
    """
    name = "state dict" if isinstance(source, Mapping) else str(source)
    content, classes = (source, None) if isinstance(source, Mapping) else _read(Path(source))
    return StoredWeights(name, _state_dict(name, content), classes)


def save_checkpoint(model: nn.Module, path: str | Path, half: bool = False) -> None:
    """Write a model's weights and class names as safetensors.

    The file is replaced atomically: a reader gets the old file or the complete new one.

    Args:
        model: model whose weights are written.
        path: path of the file.
        half: write matrices and kernels in fp16, which halves the size. Vectors keep their precision: they are small,
            and some batch norm statistics exceed fp16's range.

    Raises:
        CheckpointError: the file cannot be written.
    """
    path = Path(path)
    classes = {CLASSES_ENTRY: json.dumps(model.classes)} if isinstance(model, ClassModel) else {}
    # Cloned, because safetensors rejects tensors that share memory.
    state = {
        key: _stored(tensor, half).cpu().clone(memory_format=torch.contiguous_format)
        for key, tensor in model.state_dict().items()
    }
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            partial = Path(file.name)
        try:
            safetensors.torch.save_file(state, partial, metadata={"format": "pt", **classes})
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            # The temporary file is private to its owner; a checkpoint gets the permissions of an ordinary new file.
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


def _read(path: Path) -> tuple[object, tuple[str, ...] | None]:
    """Return a file's content, and the class names if it has any."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
        # A safetensors file starts with the length of its header in 8 bytes, then the header, a JSON object.
        if path.suffix == ".safetensors" or start[8:] == b"{":
            with safe_open(path, framework="pt") as file:
                names = (file.metadata() or {}).get(CLASSES_ENTRY)
            return safetensors.torch.load_file(path), None if names is None else tuple(json.loads(names))
        content: object = torch.load(path, map_location="cpu", weights_only=True)
        names = content.get(CLASSES_ENTRY) if isinstance(content, Mapping) else None
        return content, None if names is None else tuple(names)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds objects other than tensors and plain values, which are not loaded because they could run "
            "code; if you trust the file, load it where it was made and save its state_dict again"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: is truncated or corrupt ({error}); download or export it again (safetensors or torch.save)"
        ) from error


def _state_dict(name: str, content: object) -> dict[str, Tensor]:
    """Return the tensors by key, without wrappers and without the key prefix of (Distributed)DataParallel."""
    wrapped = True
    while wrapped:
        wrapped = False
        for wrapper in _WRAPPERS:
            if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
                content, wrapped = content[wrapper], True
                break
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{name}: holds a {type(content).__name__}, needed a state dict (key -> tensor), at the top level or under "
            f"{' or '.join(map(repr, _WRAPPERS))}"
        )
    others = [
        f"{key!r} ({type(value).__name__})"
        for key, value in content.items()
        if not (isinstance(key, str) and isinstance(value, Tensor))
    ]
    if others:
        raise CheckpointError(
            f"{name}: holds entries that are not named tensors: {', '.join(others)}; save the model's state_dict, "
            f"at the top level or under {' or '.join(map(repr, _WRAPPERS))}"
        )
    parallel = bool(content) and all(key.startswith(_PARALLEL_PREFIX) for key in content)
    return {key.removeprefix(_PARALLEL_PREFIX) if parallel else key: tensor for key, tensor in content.items()}


def to_model_layout(found: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with their sparse kernels in the layout of a model's tensors.

    Args:
        found: weights by key.
        needed: the model's tensors by key.
    """
    kernels = _spconv1_kernels(found, needed)
    return {key: tensor.permute(4, 0, 1, 2, 3) if key in kernels else tensor for key, tensor in found.items()}


def _spconv1_kernels(found: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> set[str]:
    """Return the keys of sparse kernels whose shapes are in spconv 1's layout, (kD, kH, kW, in, out)."""
    certain: set[str] = set()
    ambiguous: set[str] = set()
    for key in found.keys() & needed.keys():
        stored, shape = tuple(found[key].shape), tuple(needed[key].shape)
        if len(shape) == 5 and stored == (*shape[1:], shape[0]):
            (ambiguous if stored == shape else certain).add(key)
    # A kernel with five equal sizes fits both layouts. The other kernels decide, because a file uses one layout.
    return certain | ambiguous if certain else set()


def require_fit(
    name: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], router: Set[str] = frozenset()
) -> None:
    """Check that weights have the expected keys, shapes and kinds of numbers, and nothing else.

    Args:
        name: name of their source, for the message.
        found: weights by key.
        expected: the model's tensors by key.
        router: the query router's keys, of which a file holds all or none.

    Raises:
        CheckpointError: keys are missing, surplus or misshapen; all are listed.
    """
    missing = [key for key in expected if key not in found]
    surplus = [key for key in found if key not in expected]
    misfits = [
        misfit
        for key in expected
        if key in found and (misfit := describe_misfit(key, found[key], expected[key])) is not None
    ]
    if not (missing or surplus or misfits):
        return
    lines = [f"{name}: does not fit the model ({len(expected)} keys needed, {len(found)} found)"]
    lines += [f"  missing: {key}" for key in missing]
    lines += [f"  surplus: {key}" for key in surplus]
    lines += [f"  misfit: {misfit}" for misfit in misfits]
    if router & set(missing):
        lines.append("A file must hold all of the query router's keys or none: export it again.")
    lines.append("Choose the model preset that these weights were trained with, or the weights of this preset.")
    raise CheckpointError("\n".join(lines))


def describe_misfit(key: str, found: Tensor, needed: Tensor) -> str | None:
    """Return why a tensor cannot replace another one, or None if it can."""
    if found.shape != needed.shape:
        alternative = ""
        if needed.dim() == 5:
            alternative = f" (or {list((*needed.shape[1:], needed.shape[0]))} in spconv 1's layout)"
        return f"{key} has shape {list(found.shape)}, needed {list(needed.shape)}{alternative}"
    if found.is_floating_point() != needed.is_floating_point() or found.is_complex():
        return f"{key} has {found.dtype}, which cannot be cast to {needed.dtype} without loss"
    return None
