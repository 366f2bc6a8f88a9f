# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The running model, and its replacement by a model that loads in the background."""

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from aqr_perception.nodes.diagnostics import Diagnostics
from aqr_perception.nodes.input.frame_request import AssemblerSettings
from aqr_perception.nodes.parameters.node_settings import ModelSettings

if TYPE_CHECKING:
    from aqr_perception.detector import Detector
    from aqr_perception.frame_features import ImageBackend

DetectorFactory = Callable[[str, str | None, str, str, "ImageBackend"], "Detector"]
_STOP_POLL = 0.05


def load_detector(
    preset: str, checkpoint: str | None, device: str, precision: str, image_backend: "ImageBackend"
) -> "Detector":
    """Return a detector. PyTorch is imported here, because this takes seconds in which the node already reports."""
    from aqr_perception.detector import Detector

    return Detector(preset, checkpoint, device, precision, image_backend=image_backend)


def check_model(preset: str, checkpoint: str, device: str, precision: str) -> None:
    """Check the choice of a model as `detector.check_model` does; imports PyTorch."""
    from aqr_perception import detector

    detector.check_model(preset, checkpoint, device, precision)


class LoadingStoppedError(RuntimeError):
    """The process is to stop while its first model is being loaded."""


def supported_settings(settings: AssemblerSettings, detector: "Detector") -> AssemblerSettings:
    """Return the settings limited to what a model uses.

    Sensors that the model does not use are marked as such, `max_sweeps` is at most the number of sweeps that the model
    was trained with, and `sweep_interval` is the model's.
    """
    cameras = {camera.name for camera in settings.cameras if not detector.uses_cameras}
    lidars = {lidar.name for lidar in settings.lidars if not detector.uses_lidar}
    sweeps = min(settings.max_sweeps, detector.sweeps)
    return dataclasses.replace(
        settings,
        unsupported=frozenset(cameras | lidars),
        max_sweeps=sweeps,
        sweep_interval=detector.sweep_interval,
    )


class RunningModel:
    """Owner of the detector. Models load in a background thread; all else runs in the caller's thread.

    Args:
        settings: the first model.
        factory: returns a detector for a preset, checkpoint, device, precision and image backend.
        logger: the node's logger.
        restore: called with the running model's settings after another model failed to load.
        stop: once set, nobody waits for a model that is being loaded.

    Attributes:
        detector: the running model.
        running: settings of the running model.
        requested: settings of the model being loaded, or of the running one.

    Raises:
        PresetError, CheckpointError, DeviceError: the first model cannot be loaded.
        ModelOutputError: the first model's output is not finite.
        LoadingStoppedError: `stop` was set before the first model was loaded.
    """

    def __init__(
        self,
        settings: ModelSettings,
        factory: DetectorFactory,
        diagnostics: Diagnostics,
        logger: Any,
        restore: Callable[[ModelSettings], object],
        stop: threading.Event | None = None,
    ) -> None:
        self._factory, self._diagnostics, self._logger, self._restore = factory, diagnostics, logger, restore
        self._stop = threading.Event() if stop is None else stop
        self._loader = ThreadPoolExecutor(1, "aqr_perception loader")
        self._loading: Future[Detector] | None = None
        self.requested = settings
        logger.info(f"loading {settings.preset}")
        self._run(self._first_model())

    @property
    def is_loading(self) -> bool:
        return self._loading is not None

    def start_loading(self, requested: ModelSettings) -> None:
        """Start loading another model; the current one runs until `swap_if_loaded` replaces it."""
        self.requested = requested
        self._loading = self._loader.submit(self._load, requested)

    def swap_if_loaded(self) -> bool:
        """Replace the running model if loading has finished; return whether the running model changed.

        If the new model failed to load, the error is logged and the current model keeps running.
        """
        if self._loading is None or not self._loading.done():
            return False
        loading, self._loading = self._loading, None
        error = loading.exception()  # any exception, because a bad checkpoint must not stop the running model
        if error is None:
            self._run(loading.result())
        else:
            self._keep_running(error)
        return error is None

    def close(self) -> None:
        """Wait until loading has finished, unless the process is to stop, and discard the loaded model."""
        self._loader.shutdown(wait=not self._stop.is_set(), cancel_futures=True)
        self._loading = None

    def supported_settings(self, settings: AssemblerSettings) -> AssemblerSettings:
        """Return the settings limited to what the running model uses; see the function of this name."""
        return supported_settings(settings, self.detector)

    def _first_model(self) -> "Detector":
        loading = self._loader.submit(self._load, self.requested)
        while not wait([loading], _STOP_POLL).done:
            if self._stop.is_set():
                self.close()
                raise LoadingStoppedError("the process was asked to stop while the model was being loaded")
        return loading.result()

    def _load(self, model: ModelSettings) -> "Detector":
        detector = self._factory(
            model.preset, model.checkpoint or None, model.device, model.precision, model.image_backend
        )
        detector.try_out()
        return detector

    def _run(self, detector: "Detector") -> None:
        self.detector, self.running = detector, self.requested
        source = "weights from its router" if detector.has_router else "weights from attention mass"
        self._diagnostics.model = (
            f"{self.running.preset} on {detector.device}, {detector.formats}, {source}, {detector.weights}"
        )
        self._diagnostics.device = str(detector.device)
        self._diagnostics.model_error = ""
        self._logger.info(f"running {self._diagnostics.model}")

    def _keep_running(self, error: BaseException) -> None:
        problem = f"model.preset {self.requested.preset} could not be loaded: {error}"
        self._diagnostics.model_error = problem
        self._logger.error(f"{problem}; {self.running.preset} keeps running")
        self.requested = self.running
        self._restore(self.running)
