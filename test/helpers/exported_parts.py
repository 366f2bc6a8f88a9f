# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A detector whose exported parts run in another runtime, and whose other parts stay in PyTorch."""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from aqr_perception.detector import Detector
from aqr_perception.export.example_inputs import inverted
from aqr_perception.export.exporter import MANIFEST
from aqr_perception.export.formats import Runner, load
from aqr_perception.models.cmt.model import CMT
from aqr_perception.models.model_io import (
    DecodeOptions,
    Features,
    History,
    ModelOutput,
    Predictions,
    Queries,
    QueryWeights,
)
from aqr_perception.models.points.pillars import PillarEncoder
from aqr_perception.models.proposals.queries import compare_sensors, place_proposals


class _Exported(nn.Module):
    """An exported part as a module of one input and one output."""

    def __init__(self, run: Runner, name: str) -> None:
        super().__init__()
        self._run, self._name = run, name

    def forward(self, features: Tensor) -> Tensor:
        return torch.from_numpy(self._run({self._name: features.contiguous().numpy()})[0])


def use_exported_parts(detector: Detector, folder: Path) -> None:
    """Replace the parts of a CMT detector with proposals by the exported ones of a folder."""
    manifest = json.loads((folder / MANIFEST).read_text())
    parts = {part["name"]: part for part in manifest["parts"]}
    runners = {name: load(manifest["format"], folder / part["file"]) for name, part in parts.items()}
    model = cast(Any, detector.model)
    if isinstance(model.pts_middle_encoder, PillarEncoder):
        model.pts_middle_encoder.stages = nn.ModuleList()
    model.pts_backbone, model.pts_neck = nn.Identity(), _Exported(runners["bev"], "encoded")
    model.image_features = lambda images: _Exported(runners["image"], "images")(images[0])
    names = [entry["name"] for entry in parts["decoder"]["inputs"]]

    def decode(
        features: Features, options: DecodeOptions, queries: Queries | None = None, history: History | None = None
    ) -> ModelOutput:
        cmt = cast(CMT, model)
        proposals = cmt.propose(features)
        placed = place_proposals(cmt.pts_bbox_head.learned_queries(1), cmt.proposals, proposals, features)
        given = {
            "image_features": features.image,
            "bev_features": features.bev,
            "lidar_to_image": features.lidar_to_image,
            "image_to_lidar": inverted(features.lidar_to_image),
            "query_points": placed.reference_points,
            "query_content": placed.content,
            "query_class_logits": placed.class_logits,
            "query_codes": placed.codes,
        }
        if cmt.proposals is not None and proposals is not None:
            placed = compare_sensors(placed, cmt.proposals, proposals, features)
            placed = cmt.other_sensor(placed, cmt.proposals, proposals, features)
            assert placed.agreement is not None and placed.other is not None
            given |= {f"agreement_{name}": value for name, value in placed.agreement._asdict().items()}
            given |= {f"other_{name}": value for name, value in placed.other._asdict().items()}
        arrays = {name: np.ascontiguousarray(cast(Tensor, given[name]).detach().numpy()) for name in names}
        logits, boxes, *weights = (torch.from_numpy(array) for array in runners["decoder"](arrays))
        predictions = Predictions(logits[None], boxes[None])
        return ModelOutput(predictions, QueryWeights(*weights), None, placed, proposals)

    model.decode = decode
