"""The model that runs, and its exchange for another one that is loaded beside it."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from aqr_perception.detector import Detector
from aqr_perception.nodes.diagnostics import Diagnostics
from aqr_perception.nodes.input.frame_request import LIDAR, AssemblerSettings
from aqr_perception.nodes.parameters import ModelSettings

DetectorFactory = Callable[[str, str | None, str, str], Detector]


class RunningModel:
    """Owns the detector. Loading goes on in a thread of its own, everything else in the caller's.

    Args:
        settings: of the model to begin with.
        factory: makes a detector from preset, checkpoint, device and precision.
        logger: the node's.
        restore: called with the running model's settings after another one could not be loaded.

    Attributes:
        detector: the running one.
        running: its settings.
        wanted: the settings of the model being loaded, or of the running one.

    Raises:
        PresetError, CheckpointError, DeviceError: the model to begin with cannot be loaded.
    """

    def __init__(
        self,
        settings: ModelSettings,
        factory: DetectorFactory,
        diagnostics: Diagnostics,
        logger: Any,
        restore: Callable[[ModelSettings], object],
    ) -> None:
        self._factory, self._diagnostics, self._logger, self._restore = factory, diagnostics, logger, restore
        self._loader = ThreadPoolExecutor(1, "aqr_perception loader")
        self._loading: Future[Detector] | None = None
        self.wanted = settings
        self._run(self._load(settings))

    @property
    def is_loading(self) -> bool:
        return self._loading is not None

    def replace(self, wanted: ModelSettings) -> None:
        """Begin to load another model; the running one goes on until `settle` has found it loaded."""
        self.wanted = wanted
        self._loading = self._loader.submit(self._load, wanted)

    def settle(self) -> bool:
        """Put a model that is loaded by now in the running one's place, or tell that it could not be.

        Returns:
            whether the running model is another one now.
        """
        if self._loading is None or not self._loading.done():
            return False
        loading, self._loading = self._loading, None
        error = loading.exception()  # whatever a checkpoint may hold, the running model goes on
        if error is None:
            self._run(loading.result())
            return True
        self._diagnostics.model_error = f"model.preset {self.wanted.preset} could not be loaded: {error}"
        self._logger.error(f"{self._diagnostics.model_error}; {self.running.preset} goes on")
        self.wanted = self.running
        self._restore(self.running)
        return False

    def close(self) -> None:
        """Wait for what is being loaded, and forget it."""
        self._loader.shutdown()
        self._loading = None

    def look_at(self, settings: AssemblerSettings) -> AssemblerSettings:
        """Return the settings as they suit the running model.

        The sensors that it cannot look at are in `unseen`, and there are no more sweeps than it was trained with.
        """
        cameras = {camera.name for camera in settings.cameras if not self.detector.uses_cameras}
        lidar = set() if self.detector.uses_lidar or not settings.lidar_topic else {LIDAR}
        sweeps = min(settings.max_sweeps, self.detector.sweeps)
        return replace(settings, unseen=frozenset(cameras | lidar), max_sweeps=sweeps)

    def _load(self, model: ModelSettings) -> Detector:
        return self._factory(model.preset, model.checkpoint or None, model.device, model.precision)

    def _run(self, detector: Detector) -> None:
        self.detector, self.running = detector, self.wanted
        source = "weights from its router" if detector.has_router else "weights from attention mass"
        self._diagnostics.model = (
            f"{self.running.preset} on {detector.device}, {detector.dtype}, {source}, {detector.weights}"
        )
        self._diagnostics.model_error = ""
        self._logger.info(f"running {self._diagnostics.model}")
