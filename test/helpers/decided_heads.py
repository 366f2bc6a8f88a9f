# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Prediction heads that change the proposals, as trained ones do; untrained ones hardly do."""

from torch import nn

from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.proposals.queries import _last_layers


def decide(model: DetectionModel) -> None:
    """Give the last layers of the prediction heads of a PETR, PETRv2 or BEVFormer weights of usual size."""
    head = model.get_submodule("pts_bbox_head")
    for last in _last_layers(head.get_submodule(name) for name in ("cls_branches", "reg_branches")):
        nn.init.xavier_uniform_(last.weight)
