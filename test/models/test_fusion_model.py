# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Batches of the fusion models in which some samples lack LiDAR."""

from pathlib import Path

import pytest
import torch
from helpers.small_fusion import SMALL, write_preset

from aqr_perception.models import build_model
from aqr_perception.models.config.presets import load_preset
from aqr_perception.models.fusion_model import FusionModel, lidar_groups, merge_groups
from aqr_perception.models.model_io import Features, ModelOutput, Predictions


@pytest.mark.parametrize("has_points", [(True, False, True), (False, True, False), (True,) * 3, (False,) * 3])
def test_samples_with_and_without_points_keep_their_places(has_points: tuple[bool, ...]) -> None:
    numbers = torch.arange(3.0)
    bev = numbers.view(3, 1, 1, 1).expand(3, 1, 2, 2) if any(has_points) else None
    features = Features(numbers.view(3, 1, 1, 1, 1), bev, torch.zeros(3, 1, 4, 4), (8, 8), has_points)
    groups = lidar_groups(features)
    outputs = []
    for samples in groups:
        group = features.select(samples)
        assert group.image is not None and len(set(group.has_points)) == 1
        assert (group.bev is not None) == group.has_points[0]
        values = group.image.view(1, -1, 1, 1)
        if group.bev is not None:
            values = values + 10.0 * (1 + group.bev[:, 0, 0, 0].view(1, -1, 1, 1))
        outputs.append(ModelOutput(Predictions(values, values), None, None))
    expected = [sample + 10.0 * (1 + sample) * points for sample, points in enumerate(has_points)]
    assert merge_groups(outputs, groups).predictions.boxes.flatten().tolist() == pytest.approx(expected)


def test_a_model_with_pillars_has_features_where_points_are(tmp_path: Path) -> None:
    points = {
        "voxel_size": [0.8, 0.8, 8.0],
        "grid": [128, 128, 1],
        "encoder": "pillars",
        "pillars": {"channels": [8, 8, 16], "blocks": 0},
        "backbone_channels": [16, 16],
        "backbone_layers": [1, 1],
        "neck_channels": 16,
    }
    path = write_preset(tmp_path, {**SMALL, "points": points})
    branch = load_preset(path).points
    assert branch is not None and branch.bev_cells == (32, 32)
    model = build_model(path).eval()
    assert isinstance(model, FusionModel)
    cloud = torch.tensor([[20.1, -30.1, 0.0, 50.0, 0.0]])  # in cell 22 of 32 along x, 6 along y
    with torch.no_grad():
        bev, empty = (model.bev_features([one]) for one in (cloud, cloud + 1000))
    assert bev is not None and empty is not None and bev.shape == (1, 32, 32, 32)
    rows, columns = (bev - empty).abs().sum(dim=(0, 1)).nonzero(as_tuple=True)
    assert abs(rows.float().mean() - 6) < 2 and abs(columns.float().mean() - 22) < 2
    predictions = model(None, None, [cloud.repeat(50, 1)])
    assert predictions.boxes.isfinite().all()


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0"])
@pytest.mark.parametrize("stride", [8, 16])
def test_the_stride_of_the_image_branch_is_the_size_of_its_cells(tmp_path: Path, backbone: str, stride: int) -> None:
    image = {"size": [96, 64], "backbone": backbone, "width": 8, "stride": stride}
    model = build_model(write_preset(tmp_path, {**SMALL, "image": image})).eval()
    assert isinstance(model, FusionModel)
    with torch.no_grad():
        features = model.image_features(torch.randn(1, 2, 3, 64, 96))
    assert features is not None and features.shape[-2:] == (64 // stride, 96 // stride)
