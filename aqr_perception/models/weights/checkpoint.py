# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Loading and saving of model weights: files of this project and published files.

Loading is strict: a file must hold every parameter and buffer of the model in its shape, and nothing else. The query
router is the only exception, because published models have none: a file may lack all of its keys, but not some of them.
A router of another kind than the model's is left out, with a warning.

Files of this project also hold the class names, in the metadata of safetensors. Published files do not.
"""

import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from aqr_perception.models.weights.checkpoint_error import CheckpointError
from aqr_perception.models.weights.fitting import (
    CHOOSE_PRESET,
    ClassModel,
    VariantModel,
    box_problem,
    class_problem,
    describe_misfit,
    differences,
    misfit_message,
    plain_names,
    prepare,
    require_fit,
    to_model_layout,
)
from aqr_perception.models.weights.identification import choose_preset, fitting_presets, these_weights_fit
from aqr_perception.models.weights.router_kinds import ROUTER_PREFIX
from aqr_perception.models.weights.stored_weights import StoredWeights, read_weights
from aqr_perception.models.weights.weight_files import CLASSES_ENTRY

__all__ = [
    "CLASSES_ENTRY",
    "ROUTER_PREFIX",
    "CheckpointError",
    "ClassModel",
    "StoredWeights",
    "VariantModel",
    "describe_misfit",
    "load_checkpoint",
    "read_weights",
    "require_fit",
    "save_checkpoint",
    "to_model_layout",
]

_log = logging.getLogger(__name__)


def load_checkpoint(model: nn.Module, source: str | Path | Mapping[str, Tensor], entry: str = "") -> bool:
    """Load weights into a model; on an error the model stays unchanged.

    Args:
        model: model that receives the weights, cast to its precision and device.
        source: a file of torch.save or safetensors, or a state dict. The state dict may be nested under an entry of
            `stored_weights.WRAPPERS`; other entries on that level, such as an optimiser's state, are ignored. Keys may
            all have a prefix such as ``module.``. Sparse kernels may be (out, kD, kH, kW, in), as in the model, or
            (kD, kH, kW, in, out).
        entry: name of the entry that holds the weights; see `stored_weights.read_weights`.

    Returns:
        Whether the weights include the query router's parameters; true for a model without a router.

    Raises:
        CheckpointError: the file cannot be read, has other classes than the model, has values that are not finite, or
            keys are missing, surplus or misshapen. The message names a shipped preset that the weights fit.
    """
    stored = read_weights(source, entry)
    problem = (class_problem(stored, model) if isinstance(model, ClassModel) else None) or box_problem(stored, model)
    if problem is not None:
        raise CheckpointError(f"{stored.name}: {problem}{_other_preset(stored)}")
    if isinstance(model, ClassModel) and _names_differ(stored.described_classes, model.classes):
        _log.warning(
            "%s: its training describes the classes %s, the model's preset has %s; if they differ, detections get "
            "wrong names: choose a preset whose entry 'classes' lists those of these weights in their order",
            *(stored.name, ", ".join(stored.described_classes or ()), ", ".join(model.classes)),
        )
    try:
        prepared = prepare(stored, model)
    except CheckpointError as error:
        raise CheckpointError(f"{error}{_other_preset(stored)}") from error
    different = differences(prepared.weights, prepared.expected)
    if different.count:
        # Only detection models have presets.
        remedy = choose_preset(stored) if isinstance(model, ClassModel) else CHOOSE_PRESET
        raise CheckpointError(misfit_message(stored.name, prepared, different, remedy))
    model.load_state_dict(prepared.weights, strict=prepared.has_router)
    if isinstance(model, VariantModel):
        model.adopt_variant(stored.name, stored.tensors)
    if prepared.left_out:
        _log.warning("%s: %s", stored.name, prepared.left_out)
    if not prepared.has_router and prepared.router_prefixes != (ROUTER_PREFIX,):
        _log.warning("%s: has nothing of this preset's query router%s", stored.name, _other_preset(stored))
    return prepared.has_router


def _names_differ(described: tuple[str, ...] | None, needed: tuple[str, ...]) -> bool:
    """Return whether described classes differ from a model's in more than their spelling."""
    return described is not None and plain_names(described) != plain_names(needed)


def _other_preset(stored: StoredWeights) -> str:
    """Return a sentence on the shipped presets that weights fit; empty without one."""
    presets = fitting_presets(stored)
    return f". {these_weights_fit(presets)}" if presets else ""


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
