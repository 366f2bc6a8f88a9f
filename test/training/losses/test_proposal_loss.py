# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Losses of the proposals' heat maps, and the queries that perfect maps propose."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from helpers import short_grid
from helpers.pinhole_camera import SIZE, looking_along
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from aqr_perception.data.batch import Batch
from aqr_perception.data.health import HEALTH_GRID
from aqr_perception.frame import CLASSES
from aqr_perception.models import build_model
from aqr_perception.models.boxes.coder import SHAPE_CODES, encode
from aqr_perception.models.config.presets import ProposalOptions
from aqr_perception.models.model_io import ProposalMaps
from aqr_perception.models.proposals.proposal_head import BOX_CHANNELS, UPSAMPLING, ProposalHead
from aqr_perception.models.proposals.queries import proposal_head
from aqr_perception.training.losses.detection_loss import DetectionLoss
from aqr_perception.training.losses.proposal_loss import Centres, _bev_centres, _image_centres, proposal_losses

RANGE = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
BEV_RANGE = (-51.2, -51.2, 51.2, 51.2)
BEV, IMAGE = (32, 32), (16, 44)


def batch_of(boxes: Tensor, labels: Tensor, lidar_points: Tensor, visibility: Tensor, health: float = 1.0) -> Batch:
    """Return one sample with a front and a rear camera."""
    projections = torch.stack((looking_along(0.0), looking_along(math.pi)))[None]
    return Batch(
        torch.zeros(1, 2, 3, *SIZE),
        projections,
        [torch.zeros(5, 5)],
        [boxes],
        [labels],
        [lidar_points],
        [visibility],
        torch.ones(1, 8, 8),
        torch.full((1, 2, *HEALTH_GRID), health),
    )


def perfect_maps(batch: Batch) -> ProposalMaps:
    """Return maps whose loss is least."""
    maps = []
    for shape, centres in (
        ((1, *BEV), _bev_centres(batch, (True,), torch.Size(BEV), RANGE, BEV_RANGE)),
        ((2, *IMAGE), _image_centres(batch, torch.Size(IMAGE))),
    ):
        targets = torch.full((shape[0], len(CLASSES) + BOX_CHANNELS, *shape[1:]), -20.0)
        column, row = centres.cell.floor().long().unbind(-1)
        targets[centres.map, centres.label, row, column] = 20.0
        box = torch.cat(
            (centres.cell - centres.cell.floor() - 0.5, centres.height_or_depth[:, None], centres.shape), dim=1
        )
        targets[centres.map, -BOX_CHANNELS:, row, column] = box
        maps.append(targets)
    return ProposalMaps(maps[0], maps[1][None])


def occupied_cells(centres: Centres) -> int:
    """Return the number of cells that hold a centre."""
    return len(torch.unique(torch.cat((centres.map[:, None].float(), centres.cell.floor()), dim=1), dim=0))


def features() -> tuple[Tensor, Tensor]:
    """Return BEV and image features at half the resolution of the maps."""
    return torch.randn(1, 8, *(size // 2 for size in BEV)), torch.randn(1, 2, 8, *(size // 2 for size in IMAGE))


def head(bev: int = 20, image: int = 20) -> ProposalHead:
    return ProposalHead(8, 8, 16, len(CLASSES), RANGE, BEV_RANGE, bev, image)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Return boxes in different cells, and labels."""
    rng = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    count = draw(st.integers(1, 6))
    x = (torch.randperm(16, generator=rng)[:count] - 8) * 6.0 + torch.rand(count, generator=rng) * 2 + 1
    y = (torch.rand(count, generator=rng) - 0.5) * 0.8 * x
    z = torch.rand(count, generator=rng) * 1.5 - 1.5
    size = torch.rand(count, 3, generator=rng) * 3 + 0.5
    motion = (torch.rand(count, 3, generator=rng) - 0.5) * torch.tensor([6.0, 20.0, 20.0])
    boxes = torch.cat((torch.stack((x, y, z), dim=1), size, motion), dim=1)
    return boxes, torch.randint(0, len(CLASSES), (count,), generator=rng)


@settings(max_examples=40, deadline=None)
@given(scene=scenes())
def test_perfect_maps_propose_the_centres_of_the_objects_each_sensor_shows(scene: tuple[Tensor, Tensor]) -> None:
    boxes, labels = scene
    batch = batch_of(boxes, labels, torch.ones(len(boxes), dtype=torch.long), torch.ones(len(boxes), 2))
    points, content, class_logits, codes = head().queries(
        perfect_maps(batch), features(), torch.full((1, 50, 3), 0.5), torch.tensor([True]), batch.lidar_to_image, SIZE
    )
    lower, upper = torch.tensor(RANGE[:3]), torch.tensor(RANGE[3:])
    proposed = points[0] * (upper - lower) + lower
    from_lidar = torch.cdist(boxes[:, :3], proposed[:20]).amin(1)
    torch.testing.assert_close(from_lidar, torch.zeros_like(from_lidar), atol=0.02, rtol=0)
    shapes = encode(boxes)[:, SHAPE_CODES]
    torch.testing.assert_close(codes[0, torch.cdist(boxes[:, :3], proposed[:20]).argmin(1)][:, SHAPE_CODES], shapes)
    image_centres = _image_centres(batch, torch.Size(IMAGE))
    by_camera = torch.cdist(boxes[:, :3], proposed[20:40]).amin(1)
    shown = by_camera < 0.05
    nearest = 20 + torch.cdist(boxes[:, :3], proposed[20:40]).argmin(1)[shown]
    torch.testing.assert_close(codes[0, nearest][:, SHAPE_CODES], shapes[shown], atol=1e-3, rtol=1e-3)
    assert shown.sum() >= occupied_cells(image_centres), "one object of each cell is proposed"
    assert (points[0, 40:] == 0.5).all(), "queries after the proposals keep their learned reference points"
    assert (content[0, 40:] == 0).all()
    assert (class_logits[0, 40:] == 0).all()
    assert (class_logits[0, :20].amax(-1) > 0).sum() == len(boxes), "each object is proposed once"


@settings(max_examples=20, deadline=None)
@given(scene=scenes())
def test_perfect_maps_have_almost_no_loss_and_others_more(scene: tuple[Tensor, Tensor]) -> None:
    boxes, labels = scene
    batch = batch_of(boxes, labels, torch.ones(len(boxes), dtype=torch.long), torch.ones(len(boxes), 2))
    image_centres = _image_centres(batch, torch.Size(IMAGE))
    assume(occupied_cells(image_centres) == len(image_centres.map))
    maps = perfect_maps(batch)
    assert sum(proposal_losses(maps, batch, (True,), RANGE, BEV_RANGE).values()) < 1e-3
    empty = ProposalMaps(torch.full_like(maps.bev, -4.0), torch.full_like(maps.image, -4.0))
    losses = proposal_losses(empty, batch, (True,), RANGE, BEV_RANGE)
    assert losses["proposal_class"] > 1.0
    assert losses["proposal_box"] > 1.0


def one_car(**changes: object) -> Batch:
    box = torch.tensor([[10.0, 0.0, -1.0, 4.0, 2.0, 1.5, 0.0, 0.0, 0.0]])
    known = {"lidar_points": torch.tensor([7]), "visibility": torch.ones(1, 2)}
    return batch_of(box, torch.tensor([0]), **{**known, **changes})


def test_objects_without_points_are_no_targets_of_the_lidar() -> None:
    assert len(_bev_centres(one_car(), (True,), torch.Size(BEV), RANGE, BEV_RANGE).map) == 1
    assert (
        len(_bev_centres(one_car(lidar_points=torch.tensor([0])), (True,), torch.Size(BEV), RANGE, BEV_RANGE).map) == 0
    )
    assert len(_bev_centres(one_car(), (False,), torch.Size(BEV), RANGE, BEV_RANGE).map) == 0


@pytest.mark.parametrize("visible", [0.0, 1.0])
def test_all_objects_are_targets_of_bev_features_from_cameras(visible: float) -> None:
    batch = one_car(lidar_points=torch.tensor([0]), visibility=torch.full((1, 2), visible))
    assert len(_bev_centres(batch, None, torch.Size(BEV), RANGE, BEV_RANGE).map) == 1
    maps = torch.full((1, len(CLASSES) + BOX_CHANNELS, *BEV), -4.0)
    assert proposal_losses(ProposalMaps(maps, None), batch, None, RANGE, BEV_RANGE)["proposal_class"] > 1.0


def test_only_objects_in_a_healthy_part_of_its_image_are_targets_of_a_camera() -> None:
    assert _image_centres(one_car(), torch.Size(IMAGE)).map.tolist() == [0], "the car is in front"
    assert len(_image_centres(one_car(visibility=torch.zeros(1, 2)), torch.Size(IMAGE)).map) == 0
    assert len(_image_centres(one_car(health=0.1), torch.Size(IMAGE)).map) == 0


def test_maps_of_an_empty_point_cloud_have_no_loss() -> None:
    batch = one_car(visibility=torch.zeros(1, 2))
    bev = torch.randn(1, len(CLASSES) + BOX_CHANNELS, *BEV, requires_grad=True)
    image = torch.full((1, 2, len(CLASSES) + BOX_CHANNELS, *IMAGE), -20.0)
    losses = proposal_losses(ProposalMaps(bev, image), batch, (False,), RANGE, BEV_RANGE)
    assert float(sum(losses.values())) == pytest.approx(0.0, abs=1e-6)


def test_a_batch_without_sensors_has_no_loss() -> None:
    losses = proposal_losses(ProposalMaps(None, None), one_car(), (False,), RANGE, BEV_RANGE)
    assert {name: float(value) for name, value in losses.items()} == {"proposal_class": 0.0, "proposal_box": 0.0}


def test_queries_of_a_missing_sensor_keep_their_learned_reference_points() -> None:
    batch = one_car()
    maps = perfect_maps(batch)
    learned = torch.rand(1, 50, 3)
    points, content, _, _ = head().queries(maps, features(), learned, torch.tensor([False]), batch.lidar_to_image, SIZE)
    torch.testing.assert_close(points[:, :20], learned[:, :20])
    assert (content[:, :20] == 0).all()
    assert not torch.equal(points[:, 20:40], learned[:, 20:40])
    points, *_ = head().queries(ProposalMaps(maps.bev, None), features(), learned, torch.tensor([True]), None, SIZE)
    torch.testing.assert_close(points[:, 20:], learned[:, 20:])


def map_of(row: int, column: int) -> ProposalMaps:
    """Return BEV maps of the short grid with one peak: a car in the middle of a heat-map cell."""
    maps = torch.full((1, len(CLASSES) + BOX_CHANNELS, *(UPSAMPLING * cells for cells in short_grid.GRID)), -20.0)
    maps[0, -BOX_CHANNELS:] = 0.0
    maps[0, 0, row, column] = 20.0
    return ProposalMaps(maps, None)


def square(row: int, column: int) -> tuple[float, float, float, float]:
    """Return x_min, y_min, x_max, y_max of a heat-map cell of the short grid in metres."""
    edge = short_grid.CELL / UPSAMPLING
    x, y = short_grid.BEV_RANGE[0] + column * edge, short_grid.BEV_RANGE[1] + row * edge
    return x, y, x + edge, y + edge


@settings(max_examples=40, deadline=None)
@given(row=st.integers(0, 47), column=st.integers(0, 63))
def test_a_peak_proposes_a_point_in_its_cell_where_the_grid_ends_before_the_range(row: int, column: int) -> None:
    proposing = ProposalHead(8, 8, 16, len(CLASSES), short_grid.POINT_RANGE, short_grid.BEV_RANGE, 1, 0)
    features = torch.randn(1, 8, *short_grid.GRID), None
    placed = proposing.queries(map_of(row, column), features, torch.rand(1, 5, 3), torch.tensor([True]), None, SIZE)
    lower, upper = torch.tensor(short_grid.POINT_RANGE[:3]), torch.tensor(short_grid.POINT_RANGE[3:])
    x, y, z = (placed.points[0, 0] * (upper - lower) + lower).tolist()
    x_min, y_min, x_max, y_max = square(row, column)
    assert (x, y, z) == pytest.approx(((x_min + x_max) / 2, (y_min + y_max) / 2, -1.0), abs=0.02)


@settings(max_examples=60, deadline=None)
@given(x=st.floats(-53.9, 53.9), y=st.floats(-39.9, 39.9))
@example(x=45.0, y=33.0)
@example(x=50.0, y=0.0)
@example(x=0.0, y=38.0)
def test_the_target_of_an_object_is_in_the_cell_around_it_and_outside_the_grid_there_is_none(
    x: float, y: float
) -> None:
    box = torch.tensor([[x, y, -1.0, 4.0, 2.0, 1.5, 0.0, 0.0, 0.0]])
    batch = batch_of(box, torch.tensor([0]), torch.tensor([7]), torch.ones(1, 2))
    x, y = box[0, :2].tolist()
    size = torch.Size(UPSAMPLING * cells for cells in short_grid.GRID)
    centres = _bev_centres(batch, (True,), size, short_grid.POINT_RANGE, short_grid.BEV_RANGE)
    inside = x <= short_grid.BEV_RANGE[2] and y <= short_grid.BEV_RANGE[3]
    assert len(centres.map) == int(inside)
    if inside:
        column, row = centres.cell[0].floor().long().tolist()
        x_min, y_min, x_max, y_max = square(row, column)
        assert x_min - 1e-3 <= x <= x_max + 1e-3
        assert y_min - 1e-3 <= y <= y_max + 1e-3
        assert centres.height_or_depth.item() == pytest.approx(0.0)
        marked = proposal_losses(map_of(row, column), batch, (True,), short_grid.POINT_RANGE, short_grid.BEV_RANGE)
        assert marked["proposal_class"] < 1e-3, "a peak in the cell is right"


def test_the_loss_of_a_model_has_its_targets_on_its_feature_grid(tmp_path: Path) -> None:
    model = build_model(short_grid.write_short_grid(tmp_path))
    box = torch.tensor([[45.0, 33.0, -1.0, 4.0, 2.0, 1.5, 0.0, 0.0, 0.0]])
    batch = batch_of(box, torch.tensor([0]), torch.tensor([7]), torch.ones(1, 2))
    row, column = int((33.0 + 40) / 1.6), int((45.0 + 54) / 1.6)
    losses = DetectionLoss()._proposal_losses(model, map_of(row, column), batch, (True,))
    assert losses["proposal_class"] < 1e-3


def test_the_proposals_of_a_model_lie_on_its_feature_grid(tmp_path: Path) -> None:
    preset = short_grid.short_grid(tmp_path)
    decoder = dataclasses.replace(preset.decoder, proposals=ProposalOptions(bev=20))
    proposing = proposal_head(dataclasses.replace(preset, decoder=decoder))
    assert proposing is not None
    features = torch.randn(1, 16, *short_grid.GRID), None
    placed = proposing.queries(map_of(47, 63), features, torch.rand(1, 60, 3), torch.tensor([True]), None, SIZE)
    lower, upper = torch.tensor(short_grid.POINT_RANGE[:3]), torch.tensor(short_grid.POINT_RANGE[3:])
    best = placed.points[0, placed.class_logits[0].amax(-1).argmax()] * (upper - lower) + lower
    assert best[:2].tolist() == pytest.approx([48.4 - 0.8, 36.8 - 0.8], abs=0.02)
