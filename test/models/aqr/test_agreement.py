# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Logits from the agreement of the sensors."""

import math

import pytest
import torch
from torch import Tensor

from aqr_perception.models.aqr.agreement import (
    CORRELATION,
    GROUND_OFFSETS,
    IN_PICTURE,
    ON_GROUND,
    PICTURE_OFFSETS,
    SURROUNDINGS,
    AgreementGate,
    SensorAgreement,
)

BATCH, QUERIES, VIEWS, CLASSES, CHANNELS = 2, 7, 4, 3, 5


def random_agreement() -> tuple[SensorAgreement, Tensor]:
    """Return an agreement, and which cameras see which queries."""
    random = torch.Generator().manual_seed(3)
    correlations = (ON_GROUND,), (VIEWS, ON_GROUND), (VIEWS, IN_PICTURE)
    at_queries = (QUERIES, CLASSES), (QUERIES, VIEWS, CLASSES), (QUERIES, SURROUNDINGS * CHANNELS)
    shapes = (*correlations, *at_queries)
    parts = (torch.randn(BATCH, *shape, generator=random) for shape in shapes)
    agreement = SensorAgreement(*parts, at_lidar=torch.arange(QUERIES).expand(BATCH, -1) < 4)
    return agreement, torch.rand(BATCH, QUERIES, VIEWS, generator=random) < 0.5


def trained_gate() -> AgreementGate:
    torch.manual_seed(4)
    gate = AgreementGate(CLASSES, CHANNELS)
    for parameter in gate.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return gate


def test_an_untrained_gate_adds_nothing() -> None:
    for logits in AgreementGate(CLASSES, CHANNELS)(*random_agreement()):
        assert not logits.any()


def test_the_cameras_order_does_not_matter() -> None:
    gate, (agreement, visible), order = trained_gate(), random_agreement(), torch.tensor([2, 0, 3, 1])
    moved = SensorAgreement(
        agreement.lidar,
        agreement.lidar_by_camera[:, order],
        agreement.cameras[:, order],
        agreement.lidar_scores,
        agreement.camera_scores[:, :, order],
        agreement.lidar_features,
        agreement.at_lidar,
    )
    expected, found = gate(agreement, visible), gate(moved, visible[..., order])
    torch.testing.assert_close(found.lidar, expected.lidar)
    torch.testing.assert_close(found.cameras, expected.cameras[..., order])
    torch.testing.assert_close(found.sensors[:, 0], expected.sensors[:, 0])
    torch.testing.assert_close(found.sensors[:, 1:], expected.sensors[:, 1:][:, order])


@pytest.mark.parametrize(("query", "moved"), [(3, list(range(QUERIES))), (5, [5])])
def test_features_around_a_lidars_proposal_change_all_weights_and_those_around_another_query_its_own(
    query: int, moved: list[int]
) -> None:
    gate, (agreement, visible) = trained_gate(), random_agreement()
    changed = agreement.lidar_features.clone()
    changed[0, query] += 1.0
    expected, found = gate(agreement, visible), gate(agreement._replace(lidar_features=changed), visible)
    assert (found.lidar != expected.lidar).nonzero().tolist() == [[0, index] for index in moved]
    assert torch.equal(found.cameras, expected.cameras) and torch.equal(found.sensors, expected.sensors)


def test_without_cameras_the_lidar_is_judged_alone_and_nothing_is_compared() -> None:
    gate, (agreement, visible) = trained_gate(), random_agreement()
    alone = agreement._replace(
        lidar_by_camera=agreement.lidar_by_camera[:, :0],
        cameras=agreement.cameras[:, :0],
        camera_scores=agreement.camera_scores[:, :, :0],
    )
    found, unseen = gate(alone, visible[..., :0]), gate(agreement, torch.zeros_like(visible))
    torch.testing.assert_close(found.lidar, unseen.lidar)
    assert found.cameras.shape == (BATCH, QUERIES, 0) and found.sensors.tolist() == BATCH * [[0.0]]


def test_ghosts_are_told_better_where_there_are_many() -> None:
    """After a short training on features that say little about a single place."""
    torch.manual_seed(6)

    def drawn(count: int) -> tuple[SensorAgreement, Tensor]:
        haunted = (torch.rand(count, 1) < 0.5) & (torch.rand(count, QUERIES) < 0.6)
        features = torch.randn(count, QUERIES, SURROUNDINGS * CHANNELS)
        features[..., 0] += torch.where(haunted, -0.7, 0.7)
        nothing = [torch.zeros(count, *shape) for shape in ((ON_GROUND,), (0, ON_GROUND), (0, IN_PICTURE))]
        scores = torch.zeros(count, QUERIES, CLASSES), torch.zeros(count, QUERIES, 0, CLASSES)
        return SensorAgreement(*nothing, *scores, features, torch.ones(count, QUERIES).bool()), ~haunted

    gate = AgreementGate(CLASSES, CHANNELS)
    optimiser = torch.optim.Adam(gate.parameters(), lr=3e-3)
    for _ in range(400):
        agreement, right = drawn(128)
        logits = gate(agreement, torch.zeros(128, QUERIES, 0).bool()).lidar
        torch.nn.functional.binary_cross_entropy_with_logits(logits, right.float()).backward()
        optimiser.step()
        optimiser.zero_grad()
    with torch.no_grad():
        agreement, right = drawn(2000)
        found = ((gate(agreement, torch.zeros(2000, QUERIES, 0).bool()).lidar > 0) == right).float().mean()
    # The best threshold for single places: a likelihood ratio e^(1.4 x) against odds of 0.7 to 0.3.
    threshold = -math.log(0.7 / 0.3) / 1.4
    cdf = torch.distributions.Normal(0, 1).cdf(torch.tensor([0.7 - threshold, 0.7 + threshold]))
    assert found > 0.7 * cdf[0] + 0.3 * cdf[1] + 0.02


def test_one_camera_that_disagrees_and_a_lidar_that_disagrees_with_all_can_be_told_apart() -> None:
    """After a short training on made-up correlations: a peak at 0 where a pair agrees, elsewhere where it does not."""
    torch.manual_seed(5)

    def drawn(count: int) -> tuple[SensorAgreement, Tensor, Tensor]:
        broken = torch.randint(-1, VIEWS + 1, (count,))  # -1: none, VIEWS: the LiDAR
        apart = (broken[:, None] == torch.arange(VIEWS)) | (broken[:, None] == VIEWS)
        shift = torch.randint(1, len(PICTURE_OFFSETS) // 2, (count, 1)).expand(-1, VIEWS)
        ground, picture = (
            torch.nn.functional.one_hot(entries // 2 + torch.where(apart, shift, 0), entries).float()
            for entries in (len(GROUND_OFFSETS), len(PICTURE_OFFSETS))
        )
        ground, picture = (torch.nn.functional.pad(part, (CORRELATION, 0)) for part in (ground, picture))
        scores = torch.zeros(count, QUERIES, CLASSES), torch.zeros(count, QUERIES, VIEWS, CLASSES)
        features = torch.zeros(count, QUERIES, SURROUNDINGS * CHANNELS)
        agreement = SensorAgreement(
            ground.mean(1), ground, picture, *scores, features, torch.ones(count, QUERIES).bool()
        )
        return agreement, torch.ones(count, QUERIES, VIEWS, dtype=torch.bool), broken

    gate = AgreementGate(CLASSES, CHANNELS)
    optimiser = torch.optim.Adam(gate.parameters(), lr=3e-3)

    def logits_and_truth(count: int) -> tuple[Tensor, Tensor]:
        agreement, visible, broken = drawn(count)
        healthy = torch.cat((broken[:, None] != VIEWS, broken[:, None] != torch.arange(VIEWS)), dim=1)
        return gate(agreement, visible).sensors + 2.0, healthy

    for _ in range(300):
        logits, healthy = logits_and_truth(128)
        torch.nn.functional.binary_cross_entropy_with_logits(logits, healthy.float()).backward()
        optimiser.step()
        optimiser.zero_grad()
    with torch.no_grad():
        logits, healthy = logits_and_truth(2000)
    assert ((logits > 0) == healthy).float().mean() > 0.97
