# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Router weights of broken sensors: which weights and queries are compared."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from aqr_perception.detector import Detector
from aqr_perception.evaluation import broken_weights as broken_weights_module
from aqr_perception.evaluation.broken_weights import (
    BLACK,
    WeightChange,
    broken_weights,
    has_signed_weights,
    mean_change,
    mean_changes,
)
from aqr_perception.frame import LabelledFrame
from aqr_perception.models.model_io import Features, ModelOutput, Queries


@pytest.fixture
def only_black(monkeypatch: pytest.MonkeyPatch) -> None:
    """Break cameras by blackening them alone."""
    kinds = {BLACK: broken_weights_module.BROKEN_SENSORS[BLACK]}
    monkeypatch.setattr(broken_weights_module, "BROKEN_SENSORS", kinds)


def rows(detector: Detector, labelled: LabelledFrame, index: int = 0) -> NDArray[np.float64]:
    found = broken_weights(detector, labelled, detector.extract(labelled.frame), index, 0)
    return found.get(BLACK, np.zeros((0, 4)))


def weights(detector: Detector, *frames: LabelledFrame) -> WeightChange:
    measured = mean_change([rows(detector, labelled, index) for index, labelled in enumerate(frames)])
    assert measured is not None
    return measured


@pytest.mark.slow
def test_only_the_black_cameras_weight_is_compared(
    tiny: Detector, small: LabelledFrame, only_black: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    untrained = weights(tiny, small)
    assert untrained.queries > 10
    assert untrained.intact > 0.85 and untrained.ratio == pytest.approx(1, abs=0.05)
    decode, seen = tiny.model.decode, []

    def distrustful(features: Features, *args: Any, **options: Any) -> ModelOutput:
        """Divide a camera's weight by 4 where its image differs from the one in the intact frame, which comes first."""
        assert features.image is not None
        seen.append(features.image)
        intact = seen[(len(seen) - 1) // 2 * 2]
        differs = (features.image != intact).flatten(2).any(-1)
        output = decode(features, *args, **options)
        assert output.router is not None
        cameras = output.router.cameras * torch.where(differs, 0.25, 1.0)[:, None]
        return output._replace(router=output.router._replace(cameras=cameras))

    monkeypatch.setattr(tiny.model, "decode", distrustful)
    measured = weights(tiny, small, small)
    assert measured.queries > untrained.queries
    assert measured.ratio == pytest.approx(0.25, rel=0.05) and measured.modality_ratio == pytest.approx(1, abs=0.05)


def test_signed_weights_of_all_queries_in_view_are_compared_by_their_difference(
    tiny: Detector, small: LabelledFrame, only_black: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = weights(tiny, small)
    decode, calls = tiny.model.decode, itertools.count()

    def signed(*args: Any, **options: Any) -> ModelOutput:
        """Map the weights w of the intact frame to 1 - 2 w, and those of the black one to 0.5 - w, where seen."""
        factor = 1.0 if next(calls) % 2 == 0 else 0.5
        output = decode(*args, **options)
        assert output.router is not None
        cameras, modality = output.router.cameras, output.router.modality
        cameras = torch.where(cameras > 0, factor * (1 - 2 * cameras), 0.0)
        modality = torch.where(modality > 0, factor * (1 - 2 * modality), 0.0)
        return output._replace(router=output.router._replace(cameras=cameras, modality=modality))

    monkeypatch.setattr(tiny.model, "decode", signed)
    monkeypatch.setattr(tiny.model, "signed_weights", lambda aqr: True)
    assert has_signed_weights(tiny)
    measured = mean_change([rows(tiny, small)], has_signed_weights(tiny))
    assert measured is not None and measured.signed
    assert measured.queries == plain.queries, "queries with negative weights are in the camera's view, too"
    assert measured.intact == pytest.approx(1 - 2 * plain.intact, abs=1e-3) and measured.intact < 0
    assert measured.broken == pytest.approx(0.5 * (1 - 2 * plain.broken), abs=1e-3)
    assert measured.difference == pytest.approx(measured.broken - measured.intact) and measured.difference > 0
    assert measured.ratio is None and measured.modality_ratio is None
    assert {"difference", "modality_difference", "signed"} <= set(measured.as_dict())
    assert "ratio" not in measured.as_dict()


def test_weights_of_zero_have_no_ratio() -> None:
    unsigned = WeightChange(10, 0.0, 0.0, 0.0, 0.2)
    assert unsigned.ratio is None and unsigned.modality_ratio is None
    assert unsigned.as_dict()["ratio"] is None
    assert not WeightChange(10, 0.5, 0.2, 0.5, 0.2).signed


@pytest.mark.slow
def test_image_proposals_are_left_out(
    tiny: Detector, small: LabelledFrame, only_black: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = tiny.model.decode

    def proposing(moved: int) -> WeightChange | None:
        frames = itertools.count()

        def moving(*args: Any, **options: Any) -> ModelOutput:
            """Let the first queries of the second frame, whose camera is black, be elsewhere."""
            output = decode(*args, **options)
            assert output.queries is not None
            places = output.queries.reference_points.clone()
            if next(frames) == 1:
                places[:, :moved] += 0.1
            return output._replace(queries=Queries(places, 0, None))

        monkeypatch.setattr(tiny.model, "decode", moving)
        return mean_change([rows(tiny, small)])

    everywhere, some = proposing(0), proposing(tiny.model.preset.decoder.queries // 2)
    assert everywhere is not None and some is not None and 0 < some.queries < everywhere.queries
    assert proposing(tiny.model.preset.decoder.queries) is None


def test_without_cameras_or_a_router_there_are_no_weights(
    tiny: Detector, small: LabelledFrame, only_black: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_cameras = dataclasses.replace(small, frame=dataclasses.replace(small.frame, cameras=()))
    assert mean_change([rows(tiny, without_cameras)]) is None
    assert not has_signed_weights(tiny)
    monkeypatch.setattr(tiny.model, "router_trained", False)
    monkeypatch.setattr(tiny.model, "signed_weights", lambda aqr: True)
    assert not has_signed_weights(tiny), "the attention mass is never negative"
    assert mean_change([rows(tiny, small)]) is None


@pytest.mark.slow
def test_every_kind_of_broken_sensor_is_measured_at_its_broken_places(
    opinionated: Detector, small: LabelledFrame
) -> None:
    found = broken_weights(opinionated, small, opinionated.extract(small.frame), 1, 0)
    assert set(found) == {"black camera", "frozen camera", "dirty camera", "misaligned camera", "shifted LiDAR"}
    changes = mean_changes([found, found])
    assert all(changes[kind].queries == 2 * len(rows) for kind, rows in found.items())
    assert 0 < len(found["dirty camera"]) < len(found["black camera"]), "only queries in dirty places count"
    assert len(found["shifted LiDAR"]) > len(found["black camera"])
    lidar = changes["shifted LiDAR"]
    assert (lidar.intact, lidar.broken) == (lidar.modality_intact, lidar.modality_broken)


def test_a_broken_sensor_passes_with_half_of_its_weight() -> None:
    assert WeightChange(1, 0.8, 0.4, 0.8, 0.4).passed is True and WeightChange(1, 0.8, 0.41, 0.8, 0.4).passed is False
    assert WeightChange(1, 0.8, 0.1, 0.8, 0.1, signed=True).passed is None
    assert WeightChange(1, 0.0, 0.1, 0.8, 0.1).passed is None
