"""A model is exchanged while the old one goes on; a broken one changes nothing."""

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")

from aqr_perception.models.weights.shipped import choose_weights
from aqr_perception.nodes.diagnostics import Diagnostics
from aqr_perception.nodes.input.frame_request import AssemblerSettings, CameraSettings
from aqr_perception.nodes.parameters import ModelSettings
from aqr_perception.nodes.running_model import RunningModel


class Log:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str) -> None:
        self.lines.append(text)

    error = info


class Garage:
    """Makes stand-ins for detectors: at once, or `slow` ones once they may."""

    def __init__(self) -> None:
        self.diagnostics, self.log = Diagnostics(), Log()
        self.go_on = threading.Event()
        self.restored: list[ModelSettings] = []

    def make(self, preset: str, checkpoint: str | None, device: str, precision: str) -> SimpleNamespace:
        if "slow" in preset:
            assert self.go_on.wait(5)
        if "broken" in preset:
            raise ValueError("torn file")
        sees = {"uses_lidar": "camera" not in preset, "uses_cameras": "lidar" not in preset}
        weights = choose_weights(preset, checkpoint)
        return SimpleNamespace(
            preset=preset, weights=weights, device=device, dtype="fp32", has_router=False, sweeps=2, **sees
        )

    def running(self, preset: str) -> RunningModel:
        return RunningModel(settings(preset), self.make, self.diagnostics, self.log, self.restored.append)


def settings(preset: str, checkpoint: str = "") -> ModelSettings:
    return ModelSettings(preset, checkpoint, "cpu", "fp32")


def settle(model: RunningModel) -> bool:
    """Whether the model changed, once loading has ended."""
    waited = threading.Event()
    for _ in range(500):
        changed = model.settle()
        if changed or not model.is_loading:
            return changed
        waited.wait(0.01)
    raise AssertionError("loading never ended")


def test_the_running_model_goes_on_until_the_new_one_is_loaded() -> None:
    garage = Garage()
    model = garage.running("first")
    model.replace(settings("slow_second"))
    assert not model.settle() and model.is_loading
    assert (model.detector.preset, model.running.preset, model.wanted.preset) == ("first", "first", "slow_second")
    garage.go_on.set()
    assert settle(model)
    assert (model.detector.preset, model.running.preset, model.is_loading) == ("slow_second", "slow_second", False)
    assert garage.diagnostics.model.startswith("slow_second on cpu") and not garage.restored
    model.close()


def test_the_log_and_the_diagnostics_tell_which_weights_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aqr_perception.models.weights.shipped.weights_directory", lambda: tmp_path)
    shipped = tmp_path / "first.safetensors"
    shipped.touch()
    garage = Garage()
    model = garage.running("first")
    told = ("the weights shipped for it", "random weights: detections mean nothing", "mine.pth", "random weights")
    wanted = (settings("first"), settings("first", "random"), settings("first", "mine.pth"), settings("second"))
    for chosen, expected in zip(wanted, told, strict=True):
        model.replace(chosen)
        assert settle(model)
        assert expected in garage.log.lines[-1] and expected in garage.diagnostics.model
    assert sum(str(shipped) in line for line in garage.log.lines) == 2
    model.close()


def test_a_model_that_cannot_be_loaded_changes_nothing_and_is_told_of_until_one_can() -> None:
    garage = Garage()
    model = garage.running("first")
    model.replace(settings("broken"))
    assert not settle(model)
    assert (model.detector.preset, model.wanted) == ("first", settings("first"))
    assert garage.restored == [settings("first")]
    assert garage.diagnostics.model_error == "model.preset broken could not be loaded: torn file"
    assert garage.diagnostics.model.startswith("first") and garage.log.lines[-1].endswith("first goes on")
    model.replace(settings("second"))
    assert settle(model) and garage.diagnostics.model_error == ""
    model.close()


def test_a_first_model_that_cannot_be_loaded_is_the_callers_affair() -> None:
    with pytest.raises(ValueError, match="torn file"):
        Garage().running("broken")


@pytest.mark.parametrize(
    ("preset", "unseen"), [("fusion", set()), ("lidar_only", {"front", "back"}), ("camera_only", {"lidar"})]
)
def test_a_model_tells_which_sensors_it_cannot_see(preset: str, unseen: set[str]) -> None:
    cameras = tuple(CameraSettings(name, name, name) for name in ("front", "back"))
    model = Garage().running(preset)
    assert model.look_at(AssemblerSettings(cameras, "/points")).unseen == unseen
    assert model.look_at(AssemblerSettings(cameras)).unseen == unseen - {"lidar"}
    assert not model.look_at(AssemblerSettings(cameras, "/points")).is_blind
    model.close()


def test_a_model_that_sees_no_sensor_that_takes_part_is_blind() -> None:
    cameras = (CameraSettings("front", "a", "b"),)
    model = Garage().running("lidar_only")
    assert model.look_at(AssemblerSettings(cameras, "/points", enabled=frozenset({"front"}))).is_blind
    model.close()


def test_a_model_is_given_no_more_sweeps_than_it_was_trained_with() -> None:
    model = Garage().running("first")
    for wanted, given in ((10, 2), (1, 1)):
        assert model.look_at(AssemblerSettings(lidar_topic="/points", max_sweeps=wanted)).max_sweeps == given
    model.close()
