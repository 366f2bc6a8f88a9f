# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""What a gate leaves of proposals: their scores times the weight of their sensor, and what the other sensor adds."""

import math

import pytest
import torch
from torch import Tensor

from aqr_perception.models.aqr.gate import Gate
from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.aqr.router import RouterWeights, gated_weights
from aqr_perception.models.model_io import OtherEvidence, ProposalRanges, Queries
from aqr_perception.models.proposals.gated_proposals import (
    with_gated_scores,
    with_other_evidence,
    with_scores_beside_lidar,
)

BATCH, QUERIES, VIEWS = 2, 20, 3


@torch.inference_mode()
def test_a_proposals_score_is_multiplied_by_its_sensors_relative_trust_and_its_own_relative_weight() -> None:
    random = torch.Generator().manual_seed(3)
    cells = QueryCells(
        torch.zeros(BATCH, QUERIES, 2).long(),
        torch.rand(BATCH, QUERIES, generator=random) < 0.8,
        torch.zeros(BATCH, QUERIES, VIEWS, 2).long(),
        torch.rand(BATCH, QUERIES, VIEWS, generator=random) < 0.5,
    )
    shapes = (BATCH, QUERIES), (BATCH, QUERIES, VIEWS), (BATCH, 1 + VIEWS)
    gate = Gate(*(torch.randn(shape, generator=random) for shape in shapes))
    weights, logits = gated_weights(gate, cells), torch.full((BATCH, QUERIES, 2), -8.0)
    places = ProposalRanges.after(2, lidar=7, cameras=6)
    queries = Queries(torch.rand(BATCH, QUERIES, 3), 2, None, class_logits=logits, at_proposals=places)

    def scores(weights: RouterWeights, scales: Tensor) -> Tensor:
        gated = with_gated_scores(queries, cells, weights, scales).class_logits
        assert gated is not None
        return gated

    found = scores(weights, torch.ones(2, 2)).sigmoid() / logits.sigmoid()
    unseen = ~cells.image_visible.any(-1)
    expected = torch.ones(BATCH, QUERIES)
    of_lidar, of_cameras = places
    own, by_camera, trust = (logs.exp() for logs in weights.log_weights or ())
    for sample in range(BATCH):
        for modality in (of_lidar, of_cameras):
            for query in range(modality.start, modality.stop):
                seen = cells.seen[sample, query]
                sensors = [0] if modality is of_lidar else list(range(1, 1 + VIEWS))
                every = torch.cat((own[sample, :, None], by_camera[sample]), dim=1)
                found_by = [sensor for sensor in sensors if seen[sensor]]
                products = [
                    trust[sample, sensor]
                    / trust[sample, seen].max()
                    * every[query, sensor]
                    / every[modality, sensor][cells.seen[sample, modality, sensor]].max()
                    for sensor in found_by
                ]
                expected[sample, query] = max(products, default=1.0)
    assert (expected < 0.9).any() and (expected[:, of_cameras][unseen[:, of_cameras]] == 1).all()
    torch.testing.assert_close(found, expected[..., None].expand_as(found), atol=1e-3, rtol=1e-3)
    assert torch.equal(scores(weights, torch.zeros(2, 2)), logits)
    # Own weights and trusts have scales of their own.
    own_alone, trust_alone = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]])
    both = scores(weights, own_alone) + scores(weights, trust_alone) - logits
    torch.testing.assert_close(both[:, of_lidar], scores(weights, torch.ones(2, 2))[:, of_lidar])
    assert torch.equal(both[:, of_cameras], logits[:, of_cameras])
    removed = gate._replace(sensors=torch.full_like(gate.sensors, -math.inf))
    gone = scores(gated_weights(removed, cells), torch.ones(2, 2))[:, of_lidar]
    assert not gone.sigmoid()[cells.bev_inside[:, of_lidar]].any() and gone.isfinite().all()


def test_a_gate_scales_the_evidence_of_each_sensor() -> None:
    first, channels = 1, 4
    random = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(shape, generator=random)

    other = OtherEvidence(drawn(1, 2, channels), drawn(1, 3, 2, channels))
    places = ProposalRanges.after(first, lidar=3, cameras=2)
    queries = Queries(drawn(1, 8, 3), first, None, drawn(1, 8, channels), other=other, at_proposals=places)
    visible = torch.tensor([[[True, True], [True, False], [False, False]]])
    visible = torch.cat((visible[:, :1], visible, visible[:, :1].expand(-1, 4, -1)), dim=1)
    cells = QueryCells(torch.zeros(1, 8, 2).long(), torch.ones(1, 8).bool(), torch.zeros(1, 8, 2, 2).long(), visible)
    weights = RouterWeights(drawn(1, 8, 2), drawn(1, 8, 2))
    content, plain = queries.content, with_other_evidence(queries, cells, None, 1.0).content
    assert content is not None and plain is not None
    torch.testing.assert_close(plain[0, 1] - content[0, 1], other.cameras[0, 0].mean(0))
    torch.testing.assert_close(plain[0, 2] - content[0, 2], other.cameras[0, 1, 0])
    assert torch.equal(plain[0, 3], content[0, 3])
    torch.testing.assert_close(plain[0, 4:6] - content[0, 4:6], other.lidar[0])
    assert torch.equal(plain[0, 0], content[0, 0]) and torch.equal(plain[0, 6:], content[0, 6:])
    gated = with_other_evidence(queries, cells, weights, 2.0).content
    assert gated is not None
    expected = (other.cameras[0, 0] * weights.cameras[0, 1, :, None] ** 2).mean(0)
    torch.testing.assert_close(gated[0, 1] - content[0, 1], expected)
    expected = other.lidar[0] * weights.modality[0, 4:6, :1] ** 2
    torch.testing.assert_close(gated[0, 4:6] - content[0, 4:6], expected)


@torch.inference_mode()
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_the_lidars_word_counts_against_other_queries_as_far_as_it_is_trusted_there(strength: float) -> None:
    random = torch.Generator().manual_seed(5)
    inside = torch.rand(BATCH, QUERIES, generator=random) < 0.7
    seen = torch.ones(BATCH, QUERIES, VIEWS, dtype=torch.bool)
    cells = QueryCells(
        torch.zeros(BATCH, QUERIES, 2).long(), inside, torch.zeros(BATCH, QUERIES, VIEWS, 2).long(), seen
    )
    shapes = (BATCH, QUERIES), (BATCH, QUERIES, VIEWS), (BATCH, 1 + VIEWS)
    weights = gated_weights(Gate(*(torch.randn(shape, generator=random) for shape in shapes)), cells)
    places = ProposalRanges.after(2, lidar=7, cameras=6)
    logits = torch.randn(BATCH, QUERIES, 3, generator=random)
    queries = Queries(torch.rand(BATCH, QUERIES, 3), 2, None, class_logits=logits, at_proposals=places)
    for trusted, given in ((torch.ones(BATCH, QUERIES), None), (weights.modality[..., 0] ** strength, weights)):
        found = with_scores_beside_lidar(queries, inside, given, strength, torch.tensor([-1.5])).class_logits
        assert found is not None
        assert torch.equal(found[:, : places.lidar.stop], logits[:, : places.lidar.stop])
        expected = (-1.5 * trusted * inside)[:, places.lidar.stop :, None].expand(-1, -1, 3)
        torch.testing.assert_close(found[:, places.lidar.stop :] - logits[:, places.lidar.stop :], expected)
