# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Weights and inputs by formula: each value is a function of its name and index, the same on every machine.

Values come from an integer hash, not from a random generator, whose stream may change between library versions.
"""

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def uniform(name: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """Return values in [-1, 1) by hashing the name and each index (the finaliser of MurmurHash3)."""
    hashes = np.arange(math.prod(shape), dtype=np.uint32)
    hashes *= np.uint32(0x9E3779B1)
    hashes ^= np.uint32(zlib.crc32(name.encode()))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        hashes ^= hashes >> np.uint32(shift)
        hashes *= np.uint32(factor)
    hashes ^= hashes >> np.uint32(16)
    # 24 bits fit into a float32 exactly.
    return ((hashes >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)).reshape(shape)


def formula_tensor(key: str, shape: Sequence[int]) -> Tensor:
    """Return the weight of one checkpoint key, scaled so that signals keep their size through the network."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    values = uniform(key, shape)
    if key.endswith("reference_points.weight") and shape[-1] == 3:
        values = 0.5 + 0.48 * values
    elif key.endswith("running_var"):
        values = 1.0 + 0.2 * values
    elif len(shape) == 1 and key.endswith("weight"):  # scale of a norm
        # Without residuals, smaller scales would lose the signal: VoVNet's norms have a slash in their keys.
        without_residuals = "/norm" in key or key.startswith(("pts_backbone.", "pts_neck."))
        values = (1.1 if without_residuals else 0.6) + 0.15 * values
    elif len(shape) == 1:  # biases and running means
        values = 0.1 * values
    else:
        values = values * math.sqrt(3 * 1.6 / math.prod(shape[1:]))
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def formula_state(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Return the weights of a whole model from the shapes of its checkpoint keys."""
    return {key: formula_tensor(key, tuple(shape)) for key, shape in shapes.items()}
