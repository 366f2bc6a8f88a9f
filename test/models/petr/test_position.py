# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Where PETR's image cells lie: depths, rays, places in the ring, and their embeddings."""

import pytest
import torch
from helpers import camera_ring
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from aqr_perception.models.petr.position import (
    FeatureGuide,
    FrustumEncoder,
    QueryEncoder,
    RingEncoder,
    increasing_depths,
    lift,
    ring_places,
    sine_features,
)

AZIMUTHS = torch.tensor(camera_ring.AZIMUTHS).deg2rad()


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1), st.sampled_from([2, 8, 64]))
def test_sines_and_cosines_alternate_or_sines_come_first(share: float, features: int) -> None:
    position = torch.tensor([[share, 0.25]])
    in_turns = sine_features(position, features).unflatten(-1, (2, -1, 2))
    in_blocks = sine_features(position, features, interleaved=False).unflatten(-1, (2, 2, -1))
    assert torch.equal(in_turns, in_blocks.transpose(-1, -2))
    sine, cosine = in_turns[0, 1, 0]  # the longest angle: a quarter turn
    torch.testing.assert_close(torch.stack((sine, cosine)), torch.tensor([1.0, 0.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(in_turns.square().sum(-1), torch.ones(1, 2, features // 2))


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 100), st.floats(10, 100))
def test_depths_start_at_one_metre_and_their_spacing_grows_linearly(count: int, furthest: float) -> None:
    depths = increasing_depths(count, furthest).double()
    assert depths[0] == 1 and depths[-1] < furthest
    last = 2 * (furthest - 1) / (count + 1)  # the step after the last depth would end at the furthest
    torch.testing.assert_close(depths[-1] + last, torch.tensor(furthest).double(), atol=1e-3, rtol=0)
    steps = depths.diff()
    torch.testing.assert_close(steps.diff(), (2 * steps[0] / 2).expand(count - 2), atol=1e-4, rtol=1e-2)


def test_a_lifted_cell_projects_back_to_its_first_pixel_at_its_depth() -> None:
    depths, projections = increasing_depths(5, 60.0), camera_ring.projections()
    points = lift(projections, 4, 11, camera_ring.SIZE, depths)
    assert points.shape == (1, 6, 4 * 11, 5, 3)
    homogeneous = nn.functional.pad(points, (0, 1), value=1.0)
    projected = torch.einsum("bvij,bvndj->bvndi", projections, homogeneous)[..., :3]
    torch.testing.assert_close(projected[..., 2], depths.expand(1, 6, 44, 5), atol=1e-4, rtol=0)
    pixels = projected[..., :2] / projected[..., 2:]
    cell = 3 * 11 + 7  # row 3, column 7, 16 pixels each
    torch.testing.assert_close(pixels[0, :, cell], torch.tensor([112.0, 48.0]).expand(6, 5, 2), atol=1e-2, rtol=0)


def test_cells_are_embedded_by_the_logits_of_their_points_depth_by_depth() -> None:
    encoder = FrustumEncoder(8, 4, (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0))
    projections = camera_ring.projections()
    with torch.no_grad():
        points = lift(projections, 4, 6, camera_ring.SIZE, increasing_depths(4, 61.2)).double()
        share = ((points / torch.tensor([61.2, 61.2, 10.0]) + 1) / 2).clamp(1e-5, 1 - 1e-5)
        channels = share.logit().float().flatten(-2).unflatten(2, (4, 6)).permute(0, 1, 4, 2, 3)[0]
        expected = encoder(channels).flatten(2).transpose(1, 2)[None]
        found = encoder.image_grid(projections, 4, 6, camera_ring.SIZE)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_the_rings_embedding_is_its_layers_applied_to_the_sine_features_of_camera_row_and_column() -> None:
    encoder = RingEncoder(8, 6)
    shares = [torch.arange(1, count + 1)[:, None] / count for count in (6, 3, 5)]
    camera, row, column = (sine_features(share, 4, interleaved=False) for share in shares)
    features = torch.cat(
        (
            camera[:, None, None].expand(6, 3, 5, 4),
            row[None, :, None].expand(6, 3, 5, 4),
            column[None, None].expand(6, 3, 5, 4),
        ),
        dim=-1,
    )
    places = torch.tensor([[4, 0], [5, 1]])
    with torch.no_grad():
        expected = encoder(features.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)[places]
        torch.testing.assert_close(encoder.image_grid(places, 3, 5), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoder.image_grid(places, 3, 5).detach(), expected, atol=1e-5, rtol=1e-5)


def test_a_cached_ring_embedding_is_recomputed_after_a_change_of_a_weight_or_the_grid() -> None:
    encoder, places = RingEncoder(8, 6), torch.arange(6)[None]
    with torch.inference_mode():
        first = encoder.image_grid(places, 3, 5).clone()
        assert torch.equal(encoder.image_grid(places, 3, 5), first)
        assert encoder.image_grid(places, 5, 3).shape == (1, 6, 15, 8)
    with torch.no_grad():
        encoder[2].bias.add_(1.0)
        torch.testing.assert_close(encoder.image_grid(places, 3, 5), first + 1)


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(6)), st.integers(1, 6), st.floats(-0.4, 0.4))
def test_a_cameras_position_does_not_depend_on_the_other_cameras_or_their_order(
    order: list[int], count: int, turn: float
) -> None:
    chosen = torch.tensor(order[:count])
    turned = camera_ring.projections().double() @ camera_ring.pose(0.0, 0.0, turn)
    places = ring_places(turned[:, chosen].float(), camera_ring.SIZE, AZIMUTHS)
    assert torch.equal(places[0], chosen)


def test_the_published_rings_order_is_that_of_nuscenes(shared_reference) -> None:
    import numpy as np

    from aqr_perception.models.petr.petr_options import PetrOptions

    golden = np.load(shared_reference / "golden" / "petr_vov_800x320.npz")
    projections = torch.from_numpy(golden["input/lidar2img"])[None]
    azimuths = torch.tensor(PetrOptions().camera_azimuths).deg2rad()
    assert ring_places(projections, (320, 800), azimuths).tolist() == [[0, 1, 2, 3, 4, 5]]


def test_anchors_are_embedded_in_the_order_y_x_z() -> None:
    encoder = QueryEncoder(8)
    anchor = torch.tensor([[0.1, 0.4, 0.8]])
    y_x_z = torch.cat([sine_features(anchor[:, axis : axis + 1], 4) for axis in (1, 0, 2)], dim=-1)
    with torch.no_grad():
        assert torch.equal(encoder.embed(anchor), encoder(y_x_z))


@pytest.mark.parametrize(("bias", "share"), [(-50.0, 0.0), (0.0, 0.5), (50.0, 1.0)])
def test_features_gate_the_position_embedding(bias: float, share: float) -> None:
    guide = FeatureGuide(4)
    nn.init.zeros_(guide.conv_expand.weight)
    nn.init.constant_(guide.conv_expand.bias, bias)
    position = torch.randn(1, 2, 3, 4)
    torch.testing.assert_close(guide(position, torch.randn(1, 2, 3, 4)).detach(), share * position)
