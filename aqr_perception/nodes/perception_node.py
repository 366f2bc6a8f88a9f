"""The perception node: sensor messages in; detections, markers and weight maps out. Wiring only."""

import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from tf2_ros.buffer import Buffer
from tf2_ros.transform_listener import TransformListener

from aqr_perception.detector import Detector, check_model
from aqr_perception.msg import FrameTiming
from aqr_perception.nodes import parameters
from aqr_perception.nodes.assembler import AssembledFrame, Assembler, FrameRequest
from aqr_perception.nodes.diagnostics import Diagnostics
from aqr_perception.nodes.frame_request import LIDAR
from aqr_perception.nodes.message_error import MessageError
from aqr_perception.nodes.parameters import ModelSettings, Settings
from aqr_perception.nodes.publishers import Publishers
from aqr_perception.nodes.stamps import ns_to_stamp
from aqr_perception.nodes.transforms import FrameTransforms
from aqr_perception.nodes.worker import Worker
from aqr_perception.options import OptionError

_POLL_PERIOD = 0.01
_SAME_WARNING_PERIOD = 5.0
_LONGEST_TF_MEMORY = 10.0

DetectorFactory = Callable[[str, str | None, str, str], Detector]


class PerceptionNode(LifecycleNode):
    """The lifecycle node `aqr_perception`; see the README for its topics and parameters.

    Args:
        detector_factory: makes the detector from preset, checkpoint, device and precision.
    """

    def __init__(self, detector_factory: DetectorFactory = Detector, **node_arguments: Any) -> None:
        super().__init__("aqr_perception", **node_arguments)
        self._detector_factory = detector_factory
        self._values = parameters.declare(self)
        self._settings: Settings | None = None
        self._detector: Detector | None = None
        self._loading: threading.Thread | None = None
        self._restoring = False
        self._active = False
        self._warned: dict[str, float] = {}
        self._resources: list[Callable[[], object]] = []
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)

    # --- Lifecycle -------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self._settings = parameters.read(self._values)
            self._diagnostics = Diagnostics(self._settings.assembler.sensors)
            self._detector = self._load(self._settings.model)
            self._connect(self._settings)
        except Exception as error:  # rclpy would swallow it
            self.get_logger().error(f"cannot configure: {error}")
            self._release()
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._worker = Worker(self._process, self._report_failure)
        self._active = True
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop_working()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Finish the frame under way and let go of everything."""
        self._stop_working()
        self._release()

    def _stop_working(self) -> None:
        if self._active:
            self._active = False
            self._worker.stop()

    def _release(self) -> None:
        if self._loading is not None:
            self._loading.join()
        while self._resources:
            self._resources.pop()()
        self._detector = None

    def _connect(self, settings: Settings) -> None:
        """Make everything that speaks to the outside."""
        self._outputs = Publishers(self, [camera.name for camera in settings.assembler.cameras])
        self._resources.append(self._outputs.destroy)
        self._assembler = Assembler(settings.assembler)
        self._buffer = Buffer(node=self)
        self._listener = TransformListener(self._buffer, self)
        self._resources.append(self._listener.unregister)
        self._subscribe(settings)
        health = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._resources.append(lambda: self.destroy_publisher(health))
        for period, callback in ((_POLL_PERIOD, self._poll), (1.0, lambda: health.publish(self._health()))):
            timer = self.create_timer(period, callback)
            self._resources.append(lambda timer=timer: self.destroy_timer(timer))

    # --- Sensors ---------------------------------------------------------------------------------------------------

    def _subscribe(self, settings: Settings) -> None:
        reliability = ReliabilityPolicy.RELIABLE if settings.reliable else ReliabilityPolicy.BEST_EFFORT
        qos = QoSProfile(depth=5, reliability=reliability)

        def subscribe(kind: type, topic: str, callback: Callable[[Any], None]) -> None:
            subscription = self.create_subscription(kind, topic, callback, qos)
            self._resources.append(lambda: self.destroy_subscription(subscription))

        for camera in settings.assembler.cameras:
            image = CompressedImage if camera.compressed else Image
            subscribe(image, camera.image_topic, lambda message, name=camera.name: self._on_image(name, message))
            subscribe(
                CameraInfo, camera.info_topic, lambda message, name=camera.name: self._assembler.on_info(name, message)
            )
        if settings.assembler.lidar_topic:
            subscribe(PointCloud2, settings.assembler.lidar_topic, self._on_cloud)

    def _on_image(self, name: str, message: Image | CompressedImage) -> None:
        now = time.monotonic()
        self._diagnostics.add_message(name, now)
        self._after_jump(self._assembler.on_image(name, message, now))
        self._poll()

    def _on_cloud(self, message: PointCloud2) -> None:
        now = time.monotonic()
        self._diagnostics.add_message(LIDAR, now)
        self._after_jump(self._assembler.on_cloud(message, now))
        self._poll()

    def _after_jump(self, seconds: float) -> None:
        if seconds > _LONGEST_TF_MEMORY:
            self.get_logger().info(f"time jumped back by {seconds:.1f} s: transforms are forgotten")
            self._buffer.clear()

    def _poll(self) -> None:
        if self._active and (request := self._assembler.poll(time.monotonic())) is not None:
            self._worker.submit(request)

    # --- Frames, in the worker's thread ----------------------------------------------------------------------------

    def _process(self, request: FrameRequest) -> None:
        detector, settings = self._detector, self._settings
        if detector is None or settings is None:
            return
        start = time.perf_counter()
        assembled = self._assembler.build(request, self._buffer, detector.image_size[0])
        for warning in assembled.warnings:
            self._warn(warning)
        self._diagnostics.add_frame(assembled.sensors, time.monotonic())
        if assembled.frame is None:
            return
        built = time.perf_counter()
        result = detector.detect(assembled.frame, settings.detection)
        detected = time.perf_counter()
        to_output, output_frame = self._to_output(request, assembled)
        self._outputs.publish(assembled.frame, result, assembled.sensors, to_output, output_frame)
        end = time.perf_counter()
        seconds = {"assemble": built - start, **result.seconds, "publish": end - detected}
        self._publish_timing(assembled.frame.stamp_ns, output_frame, seconds, end - start)
        self._diagnostics.frame_error = ""

    def _to_output(self, request: FrameRequest, assembled: AssembledFrame) -> tuple[NDArray[np.float64], str]:
        """Return (4, 4) model frame -> output frame and the latter's name; the model frame itself where TF fails."""
        assert assembled.frame is not None
        settings, model_frame = request.settings, assembled.frame.frame_id
        target = settings.output_frame or model_frame
        transforms = FrameTransforms(self._buffer, settings.fixed_frame, settings.transform_wait)
        stamp_ns = assembled.frame.stamp_ns
        if target != model_frame:
            try:
                return transforms.lookup(target, stamp_ns, model_frame, stamp_ns), target
            except MessageError as error:
                self._warn(f"detections are published in {model_frame}, not in output_frame {target}: {error}")
        return np.eye(4), model_frame

    def _publish_timing(self, stamp_ns: int, frame_id: str, seconds: dict[str, float], total: float) -> None:
        timing = FrameTiming(header=Header(stamp=ns_to_stamp(stamp_ns), frame_id=frame_id))
        timing.stages = list(seconds)
        timing.milliseconds = [1e3 * spent for spent in seconds.values()]
        timing.total_milliseconds = 1e3 * total
        timing.frames_processed, timing.frames_dropped = self._worker.processed + 1, self._worker.dropped
        self._outputs.publish_timing(timing)
        stages = ", ".join(f"{stage} {1e3 * spent:.1f}" for stage, spent in seconds.items())
        self.get_logger().debug(f"frame {stamp_ns / 1e9:.3f}: {1e3 * total:.1f} ms ({stages})")

    def _report_failure(self, error: Exception) -> None:
        self._diagnostics.frame_error = f"{type(error).__name__}: {error}"
        self._warn(f"a frame failed and is left out: {self._diagnostics.frame_error}")

    def _warn(self, text: str) -> None:
        """Log a warning, but the same one (numbers aside) only every few seconds."""
        kind, now = re.sub(r"\d+", "#", text), time.monotonic()
        if now - self._warned.get(kind, -_SAME_WARNING_PERIOD) >= _SAME_WARNING_PERIOD:
            self._warned[kind] = now
            self.get_logger().warning(text)

    def _health(self) -> DiagnosticArray:
        processed, dropped = (self._worker.processed, self._worker.dropped) if self._active else (0, 0)
        stamp, now = self.get_clock().now().to_msg(), time.monotonic()
        return self._diagnostics.report(stamp, now, processed, dropped, self._active)

    # --- Parameters ------------------------------------------------------------------------------------------------

    def _check_parameters(self, changes: Sequence[Parameter]) -> SetParametersResult:
        """Refuse, with the reason, what would not work together with everything else; change nothing."""
        if self._restoring or self._settings is None:
            return SetParametersResult(successful=True)
        try:
            wanted = parameters.read({**self._values, **_known(changes, self._values)})
            if wanted.model != self._settings.model:
                if self._loading is not None and self._loading.is_alive():
                    raise OptionError("model.*: another model is being loaded; wait until it runs or has failed")
                model = wanted.model
                check_model(model.preset, model.checkpoint, model.device, model.precision)
            if wanted.detection.weights_source == "router" and self._detector and not self._detector.has_router:
                raise OptionError("weights.source is 'router', but the running model has no trained router; use 'auto'")
        except (ValueError, OSError) as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply_parameters(self, changes: Sequence[Parameter]) -> None:
        self._values.update(_known(changes, self._values))
        if self._settings is None:
            return
        running, self._settings = self._settings, parameters.read(self._values)
        if self._detector is None:
            return
        if self._settings.assembler != running.assembler:
            self._assembler.settings = self._settings.assembler
        if self._settings.model != running.model and not self._restoring:
            arguments = (self._settings.model, running.model)
            self._loading = threading.Thread(target=self._replace_model, args=arguments, daemon=True)
            self._loading.start()

    def _replace_model(self, wanted: ModelSettings, running: ModelSettings) -> None:
        """Load a model beside the running one and put it in its place; where it fails, keep the running one."""
        try:
            self._detector = self._load(wanted)
        except Exception as error:  # whatever a checkpoint may hold, the running model goes on
            self._diagnostics.model_error = f"model.preset {wanted.preset} could not be loaded: {error}"
            self.get_logger().error(f"{self._diagnostics.model_error}; {running.preset} goes on")
            self._restoring = True
            restored = {
                f"model.{name}": getattr(running, name) for name in ("preset", "checkpoint", "device", "precision")
            }
            self.set_parameters_atomically([Parameter(name, value=value) for name, value in restored.items()])
            self._restoring = False

    def _load(self, model: ModelSettings) -> Detector:
        detector = self._detector_factory(model.preset, model.checkpoint or None, model.device, model.precision)
        weights = model.checkpoint or "random weights: detections mean nothing"
        source = "weights from its router" if detector.has_router else "weights from attention mass"
        self._diagnostics.model = f"{model.preset} on {detector.device}, {detector.dtype}, {source}, {weights}"
        self._diagnostics.model_error = ""
        self.get_logger().info(f"running {self._diagnostics.model}")
        return detector


def _known(changes: Sequence[Parameter], values: dict[str, Any]) -> dict[str, Any]:
    """Return the changed values that are this node's own, use_sim_time and its kind aside."""
    return {parameter.name: parameter.value for parameter in changes if parameter.name in values}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until it is interrupted; return the process's exit status."""
    # Not rclpy's own handlers: they would take the context away while a frame is being published.
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    node = PerceptionNode()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        autostart = node.get_parameter("autostart").value
        if autostart and node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            node.trigger_activate()
        while rclpy.ok():
            executor.spin_once(timeout_sec=0.5)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.close()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
