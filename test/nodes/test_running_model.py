# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A model is replaced without interrupting the running one; a broken model changes nothing."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")

from aqr_perception.detector import ModelOutputError
from aqr_perception.models.weights.shipped import choose_weights
from aqr_perception.nodes.diagnostics import Diagnostics
from aqr_perception.nodes.input.frame_request import AssemblerSettings, CameraSettings
from aqr_perception.nodes.parameters.node_settings import ModelSettings
from aqr_perception.nodes.running_model import LoadingStoppedError, RunningModel


class Log:
    """Logger that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str) -> None:
        self.lines.append(text)

    error = info


class StandInFactory:
    """Makes stand-ins for detectors; those named `slow` wait until `may_finish` is set."""

    def __init__(self) -> None:
        self.diagnostics, self.log = Diagnostics(), Log()
        self.may_finish = threading.Event()
        self.restored: list[ModelSettings] = []
        self.finite = True

    def make(
        self, preset: str, checkpoint: str | None, device: str, precision: str, image_backend: str
    ) -> SimpleNamespace:
        if "slow" in preset:
            assert self.may_finish.wait(5)
        if "broken" in preset:
            raise ValueError("torn file")
        sensors = {"uses_lidar": "camera" not in preset, "uses_cameras": "lidar" not in preset}
        weights = choose_weights(preset, checkpoint)
        return SimpleNamespace(
            preset=preset,
            weights=weights,
            device=device,
            formats="fp32",
            has_router=False,
            sweeps=2,
            sweep_interval=0.4,
            try_out=self.try_out,
            **sensors,
        )

    def try_out(self) -> None:
        if not self.finite:
            raise ModelOutputError("second: found 7 of 10 output numbers that are not finite")

    def running(self, preset: str, stop: threading.Event | None = None) -> RunningModel:
        return RunningModel(settings(preset), self.make, self.diagnostics, self.log, self.restored.append, stop)


def settings(preset: str, checkpoint: str = "") -> ModelSettings:
    return ModelSettings(preset, checkpoint, "cpu", "fp32")


def finish_loading(model: RunningModel) -> bool:
    """Wait until loading has finished; return whether the model changed."""
    waited = threading.Event()
    for _ in range(500):
        changed = model.swap_if_loaded()
        if changed or not model.is_loading:
            return changed
        waited.wait(0.01)
    raise AssertionError("loading did not finish")


def test_the_running_model_is_kept_until_the_new_one_is_loaded() -> None:
    factory = StandInFactory()
    model = factory.running("first")
    model.start_loading(settings("slow_second"))
    assert not model.swap_if_loaded() and model.is_loading
    assert (model.detector.preset, model.running.preset, model.requested.preset) == ("first", "first", "slow_second")
    factory.may_finish.set()
    assert finish_loading(model)
    assert (model.detector.preset, model.running.preset, model.is_loading) == ("slow_second", "slow_second", False)
    assert factory.diagnostics.model.startswith("slow_second on cpu") and not factory.restored
    model.close()


def test_log_and_diagnostics_name_the_weights_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aqr_perception.models.weights.shipped.weights_directory", lambda: tmp_path)
    shipped = tmp_path / "first.safetensors"
    shipped.touch()
    factory = StandInFactory()
    model = factory.running("first")
    descriptions = {
        settings("first"): "the weights shipped for it",
        settings("first", "random"): "random weights: detections mean nothing",
        settings("first", "mine.pth"): "mine.pth",
        settings("second"): "random weights",
    }
    for requested, description in descriptions.items():
        model.start_loading(requested)
        assert finish_loading(model)
        assert description in factory.log.lines[-1] and description in factory.diagnostics.model
    assert sum(str(shipped) in line for line in factory.log.lines) == 2
    model.close()


def test_a_model_that_cannot_be_loaded_changes_nothing_and_is_reported_until_one_loads() -> None:
    factory = StandInFactory()
    model = factory.running("first")
    model.start_loading(settings("broken"))
    assert not finish_loading(model)
    assert (model.detector.preset, model.requested) == ("first", settings("first"))
    assert factory.restored == [settings("first")]
    assert factory.diagnostics.model_error == "model.preset broken could not be loaded: torn file"
    assert factory.diagnostics.model.startswith("first") and factory.log.lines[-1].endswith("first keeps running")
    model.start_loading(settings("second"))
    assert finish_loading(model) and factory.diagnostics.model_error == ""
    model.close()


def test_a_first_model_that_cannot_be_loaded_raises() -> None:
    with pytest.raises(ValueError, match="torn file"):
        StandInFactory().running("broken")


@pytest.mark.parametrize(
    ("preset", "unsupported"), [("fusion", set()), ("lidar_only", {"front", "back"}), ("camera_only", {"lidar"})]
)
def test_settings_mark_the_sensors_the_model_does_not_use(preset: str, unsupported: set[str]) -> None:
    cameras = tuple(CameraSettings(name, name, name) for name in ("front", "back"))
    model = StandInFactory().running(preset)
    assert model.supported_settings(AssemblerSettings(cameras, "/points")).unsupported == unsupported
    assert model.supported_settings(AssemblerSettings(cameras)).unsupported == unsupported - {"lidar"}
    assert not model.supported_settings(AssemblerSettings(cameras, "/points")).has_no_sensors
    model.close()


def test_settings_without_a_sensor_the_model_uses_are_blind() -> None:
    cameras = (CameraSettings("front", "a", "b"),)
    model = StandInFactory().running("lidar_only")
    assert model.supported_settings(AssemblerSettings(cameras, "/points", enabled=frozenset({"front"}))).has_no_sensors
    model.close()


def test_settings_have_the_sweeps_that_the_model_was_trained_with_and_no_more() -> None:
    model = StandInFactory().running("first")
    for wanted, given in ((10, 2), (1, 1)):
        supported = model.supported_settings(AssemblerSettings(lidar_topic="/points", max_sweeps=wanted))
        assert (supported.max_sweeps, supported.sweep_interval) == (given, 0.4)
    model.close()


def test_a_request_to_stop_ends_the_wait_for_the_first_model_at_once() -> None:
    factory, stop = StandInFactory(), threading.Event()
    threading.Timer(0.2, stop.set).start()
    start = time.monotonic()
    with pytest.raises(LoadingStoppedError, match="asked to stop"):
        factory.running("slow_first", stop)
    assert time.monotonic() - start < 2.0
    factory.may_finish.set()


def test_a_request_to_stop_ends_the_wait_for_another_model_at_the_end() -> None:
    factory, stop = StandInFactory(), threading.Event()
    model = factory.running("first", stop)
    model.start_loading(settings("slow_second"))
    stop.set()
    start = time.monotonic()
    model.close()
    assert time.monotonic() - start < 1.0 and not model.is_loading
    factory.may_finish.set()


def test_a_model_whose_output_is_not_finite_does_not_replace_the_running_one() -> None:
    factory = StandInFactory()
    model = factory.running("first")
    factory.finite = False
    model.start_loading(settings("second"))
    assert not finish_loading(model)
    assert (model.detector.preset, model.running.preset) == ("first", "first")
    assert "7 of 10 output numbers that are not finite" in factory.diagnostics.model_error
    assert factory.restored == [settings("first")]
    model.close()
