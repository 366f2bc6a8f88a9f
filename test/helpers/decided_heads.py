# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Prediction heads that change the proposals, as trained ones do; untrained ones hardly do."""

from itertools import chain

from torch import nn

from aqr_perception.models.detection_model import DetectionModel


def decide(model: DetectionModel) -> None:
    """Give the last layers of the prediction heads of a PETR, PETRv2 or BEVFormer weights of usual size."""
    head = model.get_submodule("pts_bbox_head")
    branches = chain(head.get_submodule("cls_branches").modules(), head.get_submodule("reg_branches").modules())
    for branch in branches:
        if isinstance(branch, nn.Sequential) and isinstance(branch[-1], nn.Linear):
            nn.init.xavier_uniform_(branch[-1].weight)
