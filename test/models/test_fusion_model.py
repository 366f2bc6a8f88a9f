"""Batches of the fusion models in which some samples lack LiDAR."""

import pytest
import torch

from aqr_perception.models.fusion_model import lidar_groups, merge_groups
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
