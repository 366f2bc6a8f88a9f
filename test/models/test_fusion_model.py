"""What models that fuse cameras and LiDAR share: a batch's samples keep their places whatever sensors they have."""

import pytest
import torch
from torch import Tensor

from aqr_perception.models.detection_model import Features
from aqr_perception.models.fusion_model import by_lidar
from aqr_perception.models.head_output import HeadOutput, Predictions


def number_of_each_sample(samples: list[int], bev: Tensor | None) -> HeadOutput:
    """Stand for a head: says of each sample its number, and a tenth more where it is given LiDAR features."""
    numbers = torch.tensor(samples, dtype=torch.float32) + (0.0 if bev is None else 0.1)
    return HeadOutput(Predictions(numbers[None, :, None, None], numbers[None, :, None, None]), None, None)


@pytest.mark.parametrize("has_points", [(True, False, True), (False, True, False), (True,) * 3, (False,) * 3])
@pytest.mark.parametrize("sees_points", [True, False])
def test_samples_with_and_without_points_stay_in_their_places(has_points: tuple[bool, ...], sees_points: bool) -> None:
    bev = torch.zeros(3, 1, 2, 2) if sees_points and any(has_points) else None
    output = by_lidar(Features(bev, None, has_points, (0, 0)), number_of_each_sample)
    expected = [sample + 0.1 * (sees_points and points) for sample, points in enumerate(has_points)]
    assert output.predictions.boxes.flatten().tolist() == pytest.approx(expected)
