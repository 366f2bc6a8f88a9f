# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Router loss: least where the weights of every query equal the sensors' health at its place."""

import numpy as np
import pytest
import torch
from helpers import short_grid
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from aqr_perception.data.batch import Batch, collate
from aqr_perception.data.health import HEALTH_GRID, FrameWithHealth, SensorHealth
from aqr_perception.frame import Frame, GroundTruth, LabelledFrame
from aqr_perception.models.aqr.gate import Gate
from aqr_perception.models.aqr.projection import QueryCells, project
from aqr_perception.models.model_io import Queries, QueryWeights
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.training.losses.detection_loss import _query_cells
from aqr_perception.training.losses.router_loss import BROKEN_COUNTS, gate_loss, router_loss

LAYOUT = TokenLayout(bev=(16, 16), views=3, image=(8, 14))
BEV_RANGE = (-51.2, -51.2, 51.2, 51.2)
SAMPLES, QUERIES = 2, 30


def batch_of(lidar: Tensor, cameras: Tensor, points: tuple[int, ...] | None = (5, 5)) -> Batch:
    clouds = None if points is None else [torch.zeros(count, 5) for count in points]
    return Batch(None, None, clouds, [], [], [], [], lidar, cameras)


def cells_of(seed: int) -> QueryCells:
    random = torch.Generator().manual_seed(seed)

    def cells(grid: tuple[int, int], *shape: int) -> Tensor:
        return torch.stack([torch.randint(size, shape, generator=random) for size in grid], dim=-1)

    return QueryCells(
        cells(LAYOUT.bev, SAMPLES, QUERIES),
        torch.rand(SAMPLES, QUERIES, generator=random) < 0.8,
        cells(LAYOUT.image, SAMPLES, QUERIES, 3),
        torch.rand(SAMPLES, QUERIES, 3, generator=random) < 0.5,
    )


def weights_of(modality: Tensor, cameras: Tensor) -> QueryWeights:
    samples, views = len(modality), cameras.shape[-1]
    return QueryWeights(
        modality, cameras, torch.zeros(samples, *LAYOUT.bev), torch.zeros(samples, views, *LAYOUT.image)
    )


def even_health(lidar: float, cameras: list[float]) -> tuple[Tensor, Tensor]:
    by_camera = torch.tensor(cameras)[None, :, None, None].expand(SAMPLES, -1, *HEALTH_GRID)
    return torch.full((SAMPLES, 64, 64), lidar), by_camera


def targets(cells: QueryCells, lidar: float, cameras: list[float]) -> tuple[Tensor, Tensor]:
    """Return (B, Q, 2) and (B, Q, V) weights equal to the health of sensors that is the same everywhere."""
    own = torch.tensor(cameras).expand(SAMPLES, QUERIES, -1)
    best = own.masked_fill(~cells.image_visible, 0).amax(-1)
    return torch.stack((torch.full_like(best, lidar), best), -1), own


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), lidar=st.floats(0, 1), cameras=st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_weights_equal_to_health_have_the_least_loss(seed: int, lidar: float, cameras: list[float]) -> None:
    cells, batch = cells_of(seed), batch_of(*even_health(lidar, cameras))
    modality, own = targets(cells, lidar, cameras)
    least = router_loss(weights_of(modality, own), cells, batch, LAYOUT)
    random = torch.Generator().manual_seed(seed)
    for _ in range(3):
        other = weights_of(
            (modality + 0.2 * torch.randn(modality.shape, generator=random)).clamp(0, 1),
            (own + 0.2 * torch.randn(own.shape, generator=random)).clamp(0, 1),
        )
        assert router_loss(other, cells, batch, LAYOUT) >= least - 1e-5


@pytest.mark.slow
def test_minimising_the_loss_teaches_the_health_of_every_place() -> None:
    random = torch.Generator().manual_seed(0)
    cells = cells_of(1)
    # Halves of the BEV and of images fail, different ones in each sample.
    lidar, cameras = torch.ones(SAMPLES, 64, 64), torch.ones(SAMPLES, 3, *HEALTH_GRID)
    lidar[0, :32] = 0.0
    lidar[1, :, 32:] = 0.25
    cameras[0, 1, :, :14] = 0.0
    cameras[1, 2] = 0.0
    batch = batch_of(lidar, cameras)
    logits = [torch.randn(SAMPLES, QUERIES, size, generator=random).requires_grad_() for size in (2, 3)]
    optimizer = torch.optim.Adam(logits, lr=0.5)
    for _ in range(70):
        optimizer.zero_grad()
        router_loss(weights_of(*(logit.sigmoid() for logit in logits)), cells, batch, LAYOUT).backward()
        optimizer.step()
    modality, own = (logit.sigmoid().detach() for logit in logits)

    inside, row, column = cells.bev_inside, cells.bev[..., 0], cells.bev[..., 1]
    assert modality[0, :, 0][inside[0] & (row[0] < 7)].max() < 0.1
    assert modality[0, :, 0][inside[0] & (row[0] > 8)].min() > 0.9
    assert (modality[1, :, 0][inside[1] & (column[1] > 8)] - 0.25).abs().max() < 0.1
    assert modality[1, :, 0][inside[1] & (column[1] < 7)].min() > 0.9
    seen = cells.image_visible
    left = cells.image[0, :, 1, 1] < 6
    assert own[0, :, 1][seen[0, :, 1] & left].max() < 0.1
    assert own[0, :, 1][seen[0, :, 1] & (cells.image[0, :, 1, 1] > 7)].min() > 0.9
    assert own[1, :, 2][seen[1, :, 2]].max() < 0.1
    # The weight of the camera modality is that of the best camera that sees the query.
    only_dead = seen[1, :, 2] & ~seen[1, :, :2].any(-1)
    assert modality[1, :, 1][only_dead].max() < 0.1
    assert modality[1, :, 1][seen[1, :, :2].any(-1)].min() > 0.9


def test_only_sensors_that_see_a_query_have_a_gradient_for_its_weights() -> None:
    cells, batch = cells_of(2), batch_of(*even_health(0.3, [0.2, 0.9, 0.5]))
    modality = torch.rand(SAMPLES, QUERIES, 2).requires_grad_()
    cameras = torch.rand(SAMPLES, QUERIES, 3).requires_grad_()
    router_loss(weights_of(modality, cameras), cells, batch, LAYOUT).backward()
    assert modality.grad is not None
    assert cameras.grad is not None
    assert torch.equal(modality.grad[..., 0] != 0, cells.bev_inside)
    assert torch.equal(modality.grad[..., 1] != 0, cells.image_visible.any(-1))
    assert torch.equal(cameras.grad != 0, cells.image_visible)


@pytest.mark.parametrize("points", [(5, 0), None])
def test_samples_without_lidar_tokens_have_no_lidar_term(points: tuple[int, ...] | None) -> None:
    cells, batch = cells_of(3), batch_of(*even_health(0.0, [1.0, 1.0, 1.0]), points=points)
    modality = torch.full((SAMPLES, QUERIES, 2), 0.5, requires_grad=True)
    router_loss(weights_of(modality, torch.full((SAMPLES, QUERIES, 3), 0.5)), cells, batch, LAYOUT).backward()
    assert modality.grad is not None
    lidar = modality.grad[..., 0]
    assert not lidar[1].any()
    assert lidar[0].any() == (points is not None)


def test_batches_without_cameras_or_without_visible_queries_have_finite_losses() -> None:
    cells = cells_of(4)
    blind = QueryCells(
        cells.bev, torch.zeros_like(cells.bev_inside), cells.image, torch.zeros_like(cells.image_visible)
    )
    weights = weights_of(torch.rand(SAMPLES, QUERIES, 2), torch.rand(SAMPLES, QUERIES, 3))
    assert router_loss(weights, blind, batch_of(*even_health(1.0, [1.0] * 3)), LAYOUT) == 0

    layout = TokenLayout(bev=LAYOUT.bev)
    points = torch.rand(SAMPLES, QUERIES, 3) * 100 - 50
    bev_cells = project(points, BEV_RANGE, torch.zeros(SAMPLES, 0, 4, 4), (0, 0), layout)
    lidar_only = QueryWeights(
        torch.full((SAMPLES, QUERIES, 2), 0.5),
        torch.zeros(SAMPLES, QUERIES, 0),
        torch.zeros(SAMPLES, *LAYOUT.bev),
        torch.zeros(SAMPLES, 0, 0, 0),
    )
    batch = batch_of(torch.ones(SAMPLES, 64, 64), torch.zeros(SAMPLES, 0, *HEALTH_GRID))
    assert router_loss(lidar_only, bev_cells, batch, layout).item() == pytest.approx(
        torch.log(torch.tensor(2.0)).item()
    )


def test_weights_of_0_and_1_in_half_precision_have_finite_gradients() -> None:
    cells, batch = cells_of(5), batch_of(*even_health(0.0, [1.0, 0.0, 0.5]))
    logits = torch.tensor([-120.0, 120.0]).repeat(SAMPLES, QUERIES, 1).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        modality = logits.sigmoid()
        loss = router_loss(
            weights_of(modality.bfloat16(), modality[..., 1:].expand(-1, -1, 3).bfloat16()), cells, batch, LAYOUT
        )
    assert loss.dtype == torch.float32
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@settings(max_examples=40, deadline=None)
@given(x=st.floats(-53.0, 53.0), y=st.floats(-39.0, 39.0))
@example(x=45.0, y=33.0)
@example(x=50.0, y=0.0)
@example(x=0.0, y=38.0)
def test_the_lidar_weight_learns_the_health_at_the_querys_position(
    tmp_path_factory: pytest.TempPathFactory, x: float, y: float
) -> None:
    preset = short_grid.short_grid(tmp_path_factory.getbasetemp())
    nothing, none = np.zeros((0, 9), np.float32), np.zeros(0, np.int64)
    truth = GroundTruth(nothing, none, none, none, np.zeros((0, 0), np.float32))
    labelled = LabelledFrame(Frame(0, np.zeros((1, 5), np.float32), ()), truth)
    # The LiDAR fails within 4 m of the position: more than a cell of the router and of the health map.
    steps = np.arange(240) * 0.5 + 0.25 - 60.0
    near = (np.abs(steps[:, None] - y) < 4.0) & (np.abs(steps[None] - x) < 4.0)
    health = SensorHealth(np.where(near, 0.0, 1.0).astype(np.float32), 60.0)
    batch = collate([FrameWithHealth(labelled, health)], preset)
    lower, upper = torch.tensor(preset.point_range[:3]), torch.tensor(preset.point_range[3:])
    queries = Queries(((torch.tensor([[[x, y, -1.0]]]) - lower) / (upper - lower)), 0, None)
    modality = torch.full((1, 1, 2), 0.5, requires_grad=True)
    weights = QueryWeights(modality, torch.zeros(1, 1, 0), torch.zeros(1, *short_grid.GRID), torch.zeros(1, 0, 0, 0))
    layout = TokenLayout((batch.lidar_health.shape[1], batch.lidar_health.shape[2]))
    cells = _query_cells(queries, layout, None, preset, (0, 0))
    router_loss(weights, cells, batch, layout).backward()
    assert modality.grad is not None
    inside = x < short_grid.BEV_RANGE[2] - 1e-3 and y < short_grid.BEV_RANGE[3] - 1e-3
    assume(inside or x > short_grid.BEV_RANGE[2] + 1e-3 or y > short_grid.BEV_RANGE[3] + 1e-3)
    # The slope of the cross entropy at a weight of 0.5 is 2 for a health of 0, and there is none outside the grid.
    assert modality.grad[0, 0, 0].item() == pytest.approx(2.0 if inside else 0.0, abs=0.05)


def gate_of(lidar: float, cameras: list[float], whole: list[float]) -> Gate:
    """Return a gate with these probabilities of each query's own weights, and of the trust in the sensors."""
    own = torch.tensor([lidar, *cameras]).logit().expand(SAMPLES, QUERIES, -1)
    return Gate(own[..., 0], own[..., 1:], torch.tensor(whole).logit().expand(SAMPLES, -1))


def test_a_gate_has_the_least_loss_where_products_equal_the_health_and_trusts_the_best_health() -> None:
    cells = cells_of(0)
    health, by_camera = even_health(0.6, [0.9, 0.2, 0.5])
    batch = batch_of(health, by_camera)

    def loss(lidar: float, cameras: list[float], whole: list[float]) -> float:
        return float(gate_loss(gate_of(lidar, cameras, whole), cells, batch, LAYOUT))

    almost = 1 - 1e-6
    best = loss(almost, [almost] * 3, [0.6, 0.9, 0.2, 0.5])
    assert best < loss(0.9, [almost] * 3, [0.6, 0.9, 0.2, 0.5])
    assert best < loss(almost, [almost, 0.9, almost], [0.6, 0.9, 0.2, 0.5])
    assert best < loss(almost, [almost] * 3, [0.7, 0.9, 0.2, 0.5])
    # The queries' own weights alone give the same products, but the trust is wrong.
    assert best < loss(0.6, [0.9, 0.2, 0.5], [almost] * 4)


def test_own_weights_learn_the_health_relative_to_the_sensors_best() -> None:
    """A LiDAR of health 0.6 with a ghost at the queries' place: the trust is 0.6, and the own weight there 0."""
    health, by_camera = even_health(0.0, [0.0] * 3)
    health = health.clone()
    batch = batch_of(health.index_fill(1, torch.tensor([0]), 0.6), by_camera)
    cells = cells_of(0)._replace(bev=torch.full_like(cells_of(0).bev, 100))

    def loss(lidar: float, camera: float, lidar_trust: float) -> float:
        gate = gate_of(lidar, [camera] * 3, [lidar_trust, *[1e-6] * 3])
        return float(gate_loss(gate, cells, batch, LAYOUT))

    almost = 1 - 1e-6
    best = loss(1e-6, almost, 0.6)
    assert best < min(loss(0.5, almost, 0.6), loss(1e-6, almost, 0.3), loss(1e-6, almost, 0.9))
    assert best < loss(1e-6, 0.5, 0.6)  # what is broken everywhere, the trust says


@pytest.mark.parametrize("broken", [1, 2])
def test_the_trust_in_sensors_that_look_alike_is_their_health_with_broken_ones_counting_more(broken: int) -> None:
    cells = cells_of(0)._replace(image_visible=torch.zeros(SAMPLES, QUERIES, 3, dtype=torch.bool))
    cameras = [0.0] * broken + [1.0] * (3 - broken)
    batch = batch_of(*even_health(1.0, cameras), points=None)

    def loss(trust: float) -> float:
        return float(gate_loss(gate_of(0.5, [0.5] * 3, [trust] * 4), cells, batch, LAYOUT))

    expected = (3 - broken) / (3 - broken + BROKEN_COUNTS * broken)
    assert loss(expected) < min(loss(expected - 0.05), loss(expected + 0.05))


def test_a_partly_broken_sensor_keeps_the_trust_as_a_whole() -> None:
    health, by_camera = even_health(1.0, [1.0, 1.0, 1.0])
    by_camera = by_camera.clone()
    by_camera[:, 0, : HEALTH_GRID[0] // 2] = 0.0
    gate = gate_of(0.5, [0.5] * 3, [0.5] * 4)
    gate = gate._replace(sensors=gate.sensors.clone().requires_grad_())
    cells = cells_of(0)._replace(image_visible=torch.zeros(SAMPLES, QUERIES, 3, dtype=torch.bool))
    gate_loss(gate, cells, batch_of(health, by_camera), LAYOUT).backward()
    assert gate.sensors.grad is not None and (gate.sensors.grad < 0).all()


@pytest.mark.parametrize("logit", [-90.0, 5.0, 90.0])
def test_a_saturated_gate_has_a_finite_loss_and_gradient(logit: float) -> None:
    sizes = ((SAMPLES, QUERIES), (SAMPLES, QUERIES, 3), (SAMPLES, 4))
    leaves = [torch.full(size, logit, requires_grad=True) for size in sizes]
    for value in (0.0, 1.0):
        batch = batch_of(*even_health(value, [value] * 3))
        loss = gate_loss(Gate(*leaves), cells_of(0), batch, LAYOUT)
        gradients = torch.autograd.grad(loss, leaves)
        assert loss.isfinite() and all(gradient.isfinite().all() for gradient in gradients)


def test_without_lidar_its_trust_has_no_target() -> None:
    gate = gate_of(0.5, [0.5] * 3, [0.5] * 4)
    gate = gate._replace(sensors=gate.sensors.clone().requires_grad_())
    gate_loss(gate, cells_of(0), batch_of(*even_health(0.0, [1.0] * 3), points=None), LAYOUT).backward()
    assert gate.sensors.grad is not None and not gate.sensors.grad[:, 0].any() and gate.sensors.grad[:, 1:].any()
