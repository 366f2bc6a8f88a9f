# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Agreement of the sensors' proposals: correlations with their peak at the displacement of a sensor."""

import math

import pytest
import torch
from torch import Tensor

from aqr_perception.models.aqr.agreement import CORRELATION, GROUND_OFFSETS, PICTURE_OFFSETS, SensorAgreement
from aqr_perception.models.model_io import Features, ProposalMaps
from aqr_perception.models.proposals.correlation import sensor_agreement
from aqr_perception.models.proposals.proposal_head import BOX_CHANNELS, CLASS_BIAS

CLASSES, VIEWS, EDGE = 3, 4, 40.0
ROWS, COLUMNS = 32, 88
SIZE = (128, 352)
RANGE = (-EDGE, -EDGE, EDGE, EDGE)


def projections() -> Tensor:
    """Return (1, 4, 4, 4) of cameras that look along x, y, -x and -y, with a focal length of 200 pixels."""
    intrinsics = torch.tensor([[200.0, 0, SIZE[1] / 2], [0, 200, SIZE[0] / 2], [0, 0, 1]])
    matrices = torch.zeros(1, VIEWS, 4, 4)
    matrices[..., 3, 3] = 1
    for view in range(VIEWS):
        cos, sin = math.cos(view * math.pi / 2), math.sin(view * math.pi / 2)
        matrices[0, view, :3, :3] = intrinsics @ torch.tensor([[sin, -cos, 0], [0, 0, -1], [cos, sin, 0]])
    return matrices


def objects(count: int = 40) -> tuple[Tensor, Tensor]:
    """Return points (1, N, 3) around the sensors at 8 to 25 m, and labels (1, N)."""
    random = torch.Generator().manual_seed(2)
    angle = 2 * math.pi * torch.rand(count, generator=random)
    distance = 8 + 17 * torch.rand(count, generator=random)
    points = torch.stack((distance * angle.cos(), distance * angle.sin(), torch.zeros(count)), dim=-1)
    return points[None], torch.randint(CLASSES, (1, count), generator=random)


def compared(
    lidar: Tensor, seen: Tensor, labels: Tensor, *, columns: int = 0, has_points: bool = True
) -> SensorAgreement:
    """Return the agreement where the LiDAR finds objects at `lidar`, and cameras see them at `seen`.

    Args:
        columns: shift of all pictures in cells.
    """
    heat = torch.full((1, VIEWS, CLASSES + BOX_CHANNELS, ROWS, COLUMNS), CLASS_BIAS)
    bev = torch.full((1, CLASSES + BOX_CHANNELS, 80, 80), CLASS_BIAS)
    for point, label in zip(seen[0], labels[0], strict=True):
        for view in range(VIEWS):
            x, y, depth, _ = projections()[0, view] @ torch.cat((point, torch.ones(1)))
            u, v = x / depth * COLUMNS / SIZE[1] + columns, y / depth * ROWS / SIZE[0]
            if depth > 0 and 1 < u < COLUMNS - 1 and 1 < v < ROWS - 1:
                heat[0, view, label, int(v), int(u) - 1 : int(u) + 2] = 2.0
    for point, label in zip(lidar[0], labels[0], strict=True):
        column, row = ((point[:2] + EDGE) / (2 * EDGE) * 80).long().tolist()
        bev[0, label, row, column] = 3.0
    logits = torch.full((1, lidar.shape[1], CLASSES), -4.0).scatter(2, labels[..., None], 1.0)
    features = Features(torch.zeros(1, VIEWS, 1, 1, 1), torch.ones(1, 1, 1, 1), projections(), SIZE, (has_points,))
    agreement = sensor_agreement(ProposalMaps(bev, heat), lidar, logits, slice(0, lidar.shape[1]), features, RANGE)
    assert agreement is not None
    return agreement


def peak(correlation: Tensor, offsets: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    return offsets[int(correlation[CORRELATION:].argmax())]


def test_intact_sensors_have_their_peaks_at_no_offset() -> None:
    points, labels = objects()
    agreement = compared(points, points, labels)
    assert peak(agreement.lidar[0], GROUND_OFFSETS) == (0, 0)
    assert {peak(camera, PICTURE_OFFSETS) for camera in agreement.cameras[0]} == {(0, 0)}
    assert agreement.lidar.shape == (1, CORRELATION + len(GROUND_OFFSETS))
    assert agreement.lidar_by_camera.shape == (1, VIEWS, CORRELATION + len(GROUND_OFFSETS))
    assert agreement.cameras.shape == (1, VIEWS, CORRELATION + len(PICTURE_OFFSETS))


@pytest.mark.parametrize("shift", [(2, 0), (0, -3), (-1, 2)])
def test_the_peak_of_a_displaced_lidar_leads_back_to_where_the_cameras_see_its_objects(shift: tuple[int, int]) -> None:
    points, labels = objects()
    agreement = compared(points + torch.tensor([*shift, 0.0]), points, labels)
    assert peak(agreement.lidar[0], GROUND_OFFSETS) == (-shift[0], -shift[1])


def test_each_camera_tells_the_part_of_a_lidars_displacement_that_moves_across_its_picture() -> None:
    """A camera that looks along x sees a displacement along y, one that looks along y sees one along x."""
    points, labels = objects()
    agreement = compared(points + torch.tensor([2.0, -3.0, 0.0]), points, labels)
    for view, axis in enumerate((1, 0, 1, 0)):
        found = agreement.lidar_by_camera[0, view, CORRELATION:].view(9, 9).amax(1 - axis)
        assert int(found.argmax()) - 4 == (-2, 3)[axis]


@pytest.mark.parametrize("columns", [-12, 4, 10])
def test_the_peak_of_a_turned_camera_is_its_displacement_in_the_picture(columns: int) -> None:
    points, labels = objects()
    agreement = compared(points, points, labels, columns=columns)
    assert {peak(camera, PICTURE_OFFSETS) for camera in agreement.cameras[0]} == {(columns, 0)}


def test_each_query_gets_what_each_sensor_says_at_its_place() -> None:
    points, labels = objects()
    ghost = points[:, :1] * 0.6
    lidar = torch.cat((points, ghost), dim=1)
    agreement = compared(lidar, torch.cat((points, 0 * ghost + 1e3), dim=1), torch.cat((labels, labels[:, :1]), dim=1))
    own = agreement.lidar_scores.gather(2, torch.cat((labels, labels[:, :1]), dim=1)[..., None])[0, :, 0]
    assert (own > 0.5).all()
    best = agreement.camera_scores.amax((2, 3))[0]
    assert (best[:-1] > 0.5).float().mean() > 0.8 and best[-1] < 0.1


def test_an_empty_cloud_says_nothing_and_a_missing_sensor_leaves_nothing_to_compare() -> None:
    points, labels = objects()
    agreement = compared(points, points, labels, has_points=False)
    assert not agreement.lidar_scores.any() and not agreement.lidar_features.any()
    assert not agreement.lidar[..., CORRELATION:].any() and not agreement.cameras[..., CORRELATION:].any()
    assert all(part.isfinite().all() for part in agreement)
    alone = ProposalMaps(torch.zeros(1, CLASSES + BOX_CHANNELS, 80, 80), None)
    features = Features(None, torch.ones(1, 4, 8, 8), projections()[:, :0], (0, 0), (True,))
    lone = sensor_agreement(alone, points, torch.zeros(1, 40, CLASSES), slice(0, 30), features, RANGE)
    assert lone is not None and lone.lidar_features.any() and lone.camera_scores.shape == (1, 40, 0, CLASSES)
    assert lone.at_lidar[0].tolist() == 30 * [True] + 10 * [False]
    maps = ProposalMaps(None, torch.zeros(1, VIEWS, CLASSES + BOX_CHANNELS, ROWS, COLUMNS))
    features = Features(torch.zeros(1, VIEWS, 1, 1, 1), None, projections(), SIZE, (False,))
    assert sensor_agreement(maps, points, torch.zeros(1, 40, CLASSES), slice(0, 40), features, RANGE) is None


def test_samples_and_cameras_are_compared_independently() -> None:
    points, labels = objects()
    one, other = compared(points, points, labels, columns=4), compared(points + 1.0, points, labels)
    assert not torch.allclose(one.cameras, other.cameras)
    heat = torch.randn(2, VIEWS, CLASSES + BOX_CHANNELS, ROWS, COLUMNS)
    bev = torch.randn(2, CLASSES + BOX_CHANNELS, 80, 80)
    both, logits = points.expand(2, -1, -1), torch.randn(2, 40, CLASSES)
    order = torch.tensor([2, 0, 3, 1])

    def at(samples: slice, views: Tensor) -> SensorAgreement:
        features = Features(
            torch.zeros(2, VIEWS, 1, 1, 1)[samples],
            torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(6))[samples],
            projections()[:, views].expand(2, -1, -1, -1)[samples],
            SIZE,
            (True, True)[samples],
        )
        maps = ProposalMaps(bev[samples], heat[samples][:, views])
        found = sensor_agreement(maps, both[samples], logits[samples], slice(0, 40), features, RANGE)
        assert found is not None
        return found

    every, turned, second = at(slice(0, 2), torch.arange(4)), at(slice(0, 2), order), at(slice(1, 2), torch.arange(4))
    torch.testing.assert_close(turned.lidar, every.lidar)
    torch.testing.assert_close(turned.lidar_by_camera, every.lidar_by_camera[:, order])
    torch.testing.assert_close(turned.cameras, every.cameras[:, order])
    torch.testing.assert_close(turned.camera_scores, every.camera_scores[:, :, order])
    for whole, part in zip(every, second, strict=True):
        torch.testing.assert_close(whole[1:], part)
