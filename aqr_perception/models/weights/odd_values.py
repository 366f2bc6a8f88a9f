# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Values of weights that a trained model does not have, or has rarely."""

from collections.abc import Mapping

import torch
from torch import Tensor

from aqr_perception.models.weights.stored_weights import values_of

_CONSTANT_BUFFERS = (".gaussian_weights", ".gaussian_kernel")
"""Ends of the keys of buffers whose constant values are not learned."""


def odd_values(weights: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Return the keys of tensors with odd values by kind; kinds without tensors are left out.

    NaN and infinite values stop a model from detecting. Zeros and constants are usual where a layer was initialised
    but not trained, and in a fresh batch norm. A variance of 0 or less makes a batch norm's output huge or NaN.
    """
    odd: dict[str, list[str]] = {}
    for key, tensor in weights.items():
        for kind in _kinds(key, tensor):
            odd.setdefault(kind, []).append(key)
    return odd


def _kinds(key: str, tensor: Tensor) -> list[str]:
    if not tensor.numel():
        return ["empty"]
    values = values_of(tensor.detach())
    if key.endswith("num_batches_tracked"):
        return ["num_batches_tracked 0"] if not bool(values.any()) else []
    if not (values.is_floating_point() or values.is_complex()):
        return []
    values = torch.view_as_real(values) if values.is_complex() else values
    kinds = [kind for kind, has in (("NaN", values.isnan()), ("infinite", values.isinf())) if bool(has.any())]
    if kinds:
        return kinds
    lowest, highest = (float(value) for value in values.aminmax())
    if key.endswith("running_var") and lowest <= 0:
        return ["running_var 0 or less"]
    if lowest == highest == 0:
        return ["all zero"]
    constant = lowest == highest and tensor.numel() > 1 and not key.endswith(_CONSTANT_BUFFERS)
    return ["constant"] if constant else []
