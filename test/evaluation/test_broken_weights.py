"""Router weights of a black camera: which weights and queries are compared."""

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from aqr_perception.evaluation.blackout import (
    BlackoutWeights,
    has_signed_weights,
    mean_weights,
    query_weights,
)

from aqr_perception.detector import Detector
from aqr_perception.frame import LabelledFrame
from aqr_perception.models.model_io import Features, ModelOutput, Queries


def weights(detector: Detector, *frames: LabelledFrame) -> BlackoutWeights:
    measured = mean_weights(
        [query_weights(detector, detector.extract(labelled.frame), index) for index, labelled in enumerate(frames)]
    )
    assert measured is not None
    return measured


def test_only_the_black_cameras_weight_is_compared(
    tiny: Detector, small: LabelledFrame, monkeypatch: pytest.MonkeyPatch
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
    tiny: Detector, small: LabelledFrame, monkeypatch: pytest.MonkeyPatch
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
    rows = query_weights(tiny, tiny.extract(small.frame), 0)
    measured = mean_weights([rows], has_signed_weights(tiny))
    assert measured is not None and measured.signed
    assert measured.queries == plain.queries, "queries with negative weights are in the camera's view, too"
    assert measured.intact == pytest.approx(1 - 2 * plain.intact, abs=1e-3) and measured.intact < 0
    assert measured.black == pytest.approx(0.5 * (1 - 2 * plain.black), abs=1e-3)
    assert measured.difference == pytest.approx(measured.black - measured.intact) and measured.difference > 0
    assert measured.ratio is None and measured.modality_ratio is None
    assert {"difference", "modality_difference", "signed"} <= set(measured.as_dict())
    assert "ratio" not in measured.as_dict()


def test_weights_of_zero_have_no_ratio() -> None:
    unsigned = BlackoutWeights(10, 0.0, 0.0, 0.0, 0.2)
    assert unsigned.ratio is None and unsigned.modality_ratio is None
    assert unsigned.as_dict()["ratio"] is None
    assert not BlackoutWeights(10, 0.5, 0.2, 0.5, 0.2).signed


def test_image_proposals_are_left_out(tiny: Detector, small: LabelledFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = tiny.model.decode

    def proposing(moved: int) -> BlackoutWeights | None:
        frames = itertools.count()

        def moving(*args: Any, **options: Any) -> ModelOutput:
            """Let the first queries of the second frame, whose camera is black, be elsewhere."""
            output = decode(*args, **options)
            places = torch.full((1, tiny.model.preset.decoder.queries, 3), 0.5)
            if next(frames) == 1:
                places[:, :moved] += 0.1
            return output._replace(queries=Queries(places, 0, None))

        monkeypatch.setattr(tiny.model, "decode", moving)
        return mean_weights([query_weights(tiny, tiny.extract(small.frame), 0)])

    everywhere, some = proposing(0), proposing(tiny.model.preset.decoder.queries // 2)
    assert everywhere is not None and some is not None and 0 < some.queries < everywhere.queries
    assert proposing(tiny.model.preset.decoder.queries) is None


def test_without_cameras_or_a_router_there_are_no_weights(
    tiny: Detector, small: LabelledFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_cameras = dataclasses.replace(small, frame=dataclasses.replace(small.frame, cameras=()))
    assert mean_weights([query_weights(tiny, tiny.extract(without_cameras.frame), 0)]) is None
    assert not has_signed_weights(tiny)
    monkeypatch.setattr(tiny.model, "router_trained", False)
    monkeypatch.setattr(tiny.model, "signed_weights", lambda aqr: True)
    assert not has_signed_weights(tiny), "the attention mass is never negative"
    assert mean_weights([query_weights(tiny, tiny.extract(small.frame), 0)]) is None
