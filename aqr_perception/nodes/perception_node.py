# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""ROS node: wiring of topics, parameters and lifecycle."""

import dataclasses
import itertools
import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher, PublisherEventCallbacks
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from aqr_perception.nodes.clocks.stamp_sequence import LATE_NS
from aqr_perception.nodes.diagnostics import Diagnostics
from aqr_perception.nodes.health.health_publisher import HealthPublisher
from aqr_perception.nodes.health.time_report import TimeReport
from aqr_perception.nodes.input.frame_request import LIDAR, AssemblerSettings, FrameRequest
from aqr_perception.nodes.input.lidar_trigger import trigger_text
from aqr_perception.nodes.parameters import declared_values, node_settings, parameter_files
from aqr_perception.nodes.parameters.declaration import Overrides
from aqr_perception.nodes.parameters.node_settings import ModelSettings, Settings
from aqr_perception.nodes.parameters.parameter_callbacks import add_parameter_callbacks
from aqr_perception.nodes.running_model import DetectorFactory, RunningModel, check_model, load_detector
from aqr_perception.nodes.sensor_topics import SensorTopics, check_topics
from aqr_perception.nodes.stop_signals import StopSignals
from aqr_perception.options import OptionError

if TYPE_CHECKING:
    from aqr_perception.nodes.input.transforms import TransformBuffer

_POLL_PERIOD = 0.02
_LINK_PERIOD = 0.5
_TIME_PERIOD = 0.1
_STUCK_SECONDS = 0.8
_STOP_POLL = 0.1


class PerceptionNode(LifecycleNode):  # type: ignore[misc]  # ROS 2 is untyped here
    """The lifecycle node `aqr_perception`; see docs/reference for its topics and parameters.

    Args:
        detector_factory: returns the detector for a preset, checkpoint, device, precision and image backend.
        stop: ends the wait for a model that is being loaded.
    """

    def __init__(
        self,
        detector_factory: DetectorFactory = load_detector,
        stop: threading.Event | None = None,
        **node_arguments: Any,
    ) -> None:
        super().__init__("aqr_perception", **node_arguments)
        self._settings: Settings | None = None  # None: not configured
        self._resources: list[Callable[[], object]] = []
        self._leaving, self._left = threading.Lock(), False
        self._track_ids = itertools.count(1)  # for the node's whole life, so that no id comes twice
        self._diagnostics = Diagnostics(node_name=self.get_fully_qualified_name())
        self._last_link_check = self._last_tick = self._last_time_report = -math.inf
        # First of all, so that /diagnostics exists while the rest is made.
        self._diagnostics.state = "starting"
        self._health = HealthPublisher(self, self._report)
        self._answer_wrong_transitions()
        self._detector_factory = detector_factory
        self._stop = threading.Event() if stop is None else stop
        self._overrides = Overrides(self)
        self._values = declared_values.declare(self, self._overrides)
        for sentence in declared_values.ignored(self._overrides, self._values):
            self.get_logger().warning(sentence)
        self._diagnostics.state = "unconfigured"
        add_parameter_callbacks(self, declared_values.converted, self._check_parameters, self._apply_parameters)

    def create_publisher(self, *arguments: Any, **named: Any) -> "Publisher[Any]":
        """Create a publisher without events, as rclpy's executor checks each event at each message that it receives.

        Subscribers of another QoS or type warn by themselves.
        """
        named.setdefault("event_callbacks", PublisherEventCallbacks(use_default_callbacks=False))
        return super().create_publisher(*arguments, **named)

    # --- Lifecycle -------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._diagnostics = Diagnostics(node_name=self.get_fully_qualified_name())
        self._diagnostics.state = "configuring: loading the model"
        try:
            if self._overrides.problems:
                raise OptionError("; ".join(self._overrides.problems.values()))
            self._connect(node_settings.read(self._values))
        except Exception as error:  # rclpy would hide it
            self.get_logger().error(f"cannot configure: {error}")
            self.close()
            self._diagnostics.state, self._diagnostics.state_error = "unconfigured", f"cannot configure: {error}"
            return TransitionCallbackReturn.FAILURE
        self._diagnostics.state = "inactive"
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._diagnostics.forget_rates()
        self._tracks.clear()
        self._pipeline.start()
        self._diagnostics.state = "active"
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._pipeline.stop()
        self._outputs.delete_markers()
        self._tracks.delete_markers()
        self._diagnostics.state = "inactive"
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.close()
        self._diagnostics.state = "finalized"
        return TransitionCallbackReturn.SUCCESS

    def _answer_wrong_transitions(self) -> None:
        """Refuse transitions that the state does not allow; rclpy before Kilted raises, which ends the process."""
        service = self._service_change_state
        change = service.callback

        def answer(request: Any, response: Any) -> Any:
            try:
                return change(request, response)
            except Exception as error:  # rclpy's error of rcl has no public name
                asked = request.transition.label or request.transition.id
                self.get_logger().error(f"transition {asked} is refused: {parameter_files.one_line(error)}")
                response.success = False
                return response

        service.callback = answer

    def close(self) -> None:
        """Finish the frame in progress and release all resources; /diagnostics goes on until the node is destroyed."""
        self._settings = None
        while self._resources:
            self._resources.pop()()
        self._diagnostics = Diagnostics(node_name=self.get_fully_qualified_name())

    def destroy_node(self) -> None:
        """Destroy the node, which disappears from the graph at once; any thread may call this, once or more often."""
        with self._leaving:
            if self._left:
                return
            self._left = True
        self._health.close()
        super().destroy_node()
        # rclpy leaves the services of the life cycle, and with them the node's name, to the garbage collector. A thread
        # that still loads a model holds the node.
        self._state_machine.destroy_when_not_in_use()

    def _connect(self, settings: Settings) -> None:
        """Load the model and create publishers, subscribers and timers."""
        # SciPy and OpenCV take most of a second, in which the node already reports.
        from tf2_ros import TransformListener

        from aqr_perception.nodes.input.assembler import Assembler
        from aqr_perception.nodes.output.autoware_objects import AutowareObjects
        from aqr_perception.nodes.output.publishers import Publishers
        from aqr_perception.nodes.output.track_publisher import TrackPublisher
        from aqr_perception.nodes.pipeline import Pipeline

        logger = self.get_logger()
        topics = {camera.name: camera.image_topic for camera in settings.assembler.cameras}
        topics |= {lidar.name: lidar.topic for lidar in settings.assembler.lidars}
        check_topics(self, topics)
        autoware = AutowareObjects(logger.info) if settings.autoware_objects else None
        state = self._diagnostics.state
        self._diagnostics = Diagnostics(settings.assembler.sensors, self.get_fully_qualified_name(), topics)
        self._diagnostics.state = state
        self._model = RunningModel(
            settings.model, self._detector_factory, self._diagnostics, logger, self._restore_model, self._stop
        )
        self._resources.append(self._model.close)
        settings = self._with_class_thresholds()
        cameras = [camera.name for camera in settings.assembler.cameras]
        outputs = self._outputs = Publishers(self, cameras, settings.assembler.marker_lifetime, autoware)
        outputs.pictures = settings.pictures
        self._resources.append(outputs.destroy)
        self._tracks = TrackPublisher(
            self,
            settings.tracking,
            self._track_ids,
            settings.assembler.fixed_frame,
            settings.assembler.marker_lifetime,
            logger.warning,
        )
        self._resources.append(self._tracks.destroy)
        self._assembler = Assembler(
            self._supported(settings.assembler),
            self._on_time_jump,
            clock_ns=self._clock_ns,
            simulated=lambda: self.get_clock().ros_time_is_active,
        )
        self._buffer = self._transform_buffer()
        listener = TransformListener(self._buffer, self)
        self._resources.append(listener.unregister)
        self._pipeline = Pipeline(
            self._buffer,
            self._model,
            outputs,
            self._diagnostics,
            logger,
            settings.detection,
            self._clock_ns,
            self._tracks,
            settings.pipelining,
        )
        self._trigger = LIDAR
        self._sensors = SensorTopics(
            self, settings.assembler, settings.reliable, self._assembler, self._diagnostics, self._poll
        )
        self._resources.append(self._sensors.destroy)
        # With use_sim_time, the node's own clock stops when a bag has ended.
        timer = self.create_timer(_POLL_PERIOD, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._resources.append(partial(self.destroy_timer, timer))
        self._resources.append(self._pipeline.stop)  # released first, because the pipeline uses all other resources
        self._settings = settings

    def _transform_buffer(self) -> "TransformBuffer":
        """Return a buffer that is emptied when the clock jumps back, until the resources are released."""
        from aqr_perception.nodes.input.transforms import TransformBuffer

        # tf2's own buffer of a node leaves a service and a callback at the node for ever; `_on_clock_jump` clears it.
        buffer = TransformBuffer()
        buffer.now_ns = self._assembler.now_ns
        back = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-LATE_NS), on_clock_change=True)
        jumps = self.get_clock().create_jump_callback(back, post_callback=self._on_clock_jump)
        self._resources.append(jumps.unregister)
        return buffer

    # --- Frames ----------------------------------------------------------------------------------------------------

    def _on_time_jump(self, seconds: float) -> None:
        self.get_logger().warning(f"time jumped back by {seconds:.1f} s: the node forgets all data and transforms")
        self._pipeline.forget()
        self._diagnostics.forget_rates()
        self._buffer.clear()

    def _on_clock_jump(self, jump: TimeJump) -> None:
        self._assembler.forget(max(0.0, -jump.delta.nanoseconds / 1e9))

    def _clock_ns(self) -> int:
        nanoseconds: int = self.get_clock().now().nanoseconds
        return nanoseconds

    def _tick(self) -> None:
        self._last_tick = time.monotonic()
        self._outputs.delete_old_markers()
        self._tracks.delete_old_markers()
        if self._model.swap_if_loaded() and self._settings is not None:
            self._settings = self._with_class_thresholds()
            self._pipeline.options = self._settings.detection
            self._assembler.settings = self._supported(self._settings.assembler)
        self._poll()
        # Here, because assembler and TF buffer must not be read from the thread of /diagnostics.
        if self._last_tick - self._last_time_report > _TIME_PERIOD:
            self._last_time_report = self._last_tick
            self._diagnostics.time = self._time_report()
            self._sensors.follow_calibrations(self._last_tick)

    def _poll(self) -> None:
        if (request := self._assembler.poll()) is not None:
            self._say_trigger(request)
            self._pipeline.submit(request)

    def _say_trigger(self, request: FrameRequest) -> None:
        """Log which of several LiDARs triggers the frames, when that changes."""
        before, self._trigger = self._trigger, request.trigger or self._trigger
        if self._trigger == before:
            return
        text = trigger_text(request.settings.lidars, self._trigger)
        if self._trigger == LIDAR:
            self.get_logger().info(text, throttle_duration_sec=5.0)
        else:
            self.get_logger().warning(text, throttle_duration_sec=5.0)

    def _time_report(self) -> TimeReport:
        assembler = self._assembler
        return TimeReport(
            assembler.clock_reports(),
            assembler.stamps_to_clock,
            assembler.in_clock_time,
            self._clock_ns() > 0,
            assembler.late_sweeps,
            self._buffer.faults(),
        )

    # --- Health, in the thread of its publisher ----------------------------------------------------------------------

    def _report(self, now: float) -> DiagnosticArray:
        diagnostics, stamp = self._diagnostics, self.get_clock().now().to_msg()
        if self._settings is None:
            return diagnostics.report(stamp, now, 0, 0, active=False)
        if now - self._last_link_check > _LINK_PERIOD:
            self._last_link_check = now
            self._sensors.report_links(now)
        idle = now - self._last_tick
        diagnostics.callbacks_stuck = idle if idle > _STUCK_SECONDS else 0.0
        diagnostics.frames.stuck = self._pipeline.stuck
        return diagnostics.report(stamp, now, *self._pipeline.counts, self._pipeline.running)

    def _supported(self, settings: AssemblerSettings) -> AssemblerSettings:
        """Return the settings limited to what the running model uses; warn if no sensor is left."""
        supported = self._model.supported_settings(settings)
        if supported.has_no_sensors:
            self.get_logger().warning(self._no_sensor())
        return supported

    def _no_sensor(self) -> str:
        return (
            f"model.preset {self._model.running.preset} uses none of the enabled sensors; choose another preset, or "
            "set use_lidar or one of camera.<name>.enabled to true"
        )

    # --- Parameters ------------------------------------------------------------------------------------------------

    def _check_parameters(self, changes: Sequence[Parameter]) -> SetParametersResult:
        """Refuse values that are invalid alone or with the others, with the reason."""
        known = _known(changes, self._values)
        if self._settings is None or not known:
            return SetParametersResult(successful=True)
        try:
            self._check(node_settings.read({**self._values, **known}), self._settings)
        except (ValueError, OSError) as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _check(self, requested: Settings, running: Settings) -> None:
        model = requested.model
        if model != self._model.requested:
            if self._model.is_loading:
                raise OptionError("model.*: another model is being loaded; wait until it runs or has failed")
            check_model(model.preset, model.checkpoint, model.device, model.precision)
        elif (
            requested.assembler != running.assembler
            and self._model.supported_settings(requested.assembler).has_no_sensors
        ):
            raise OptionError(self._no_sensor())
        if requested.detection.weights_source == "router" and not self._model.detector.has_router:
            raise OptionError("weights.source is 'router', but the running model has no trained router; use 'auto'")

    def _apply_parameters(self, changes: Sequence[Parameter]) -> None:
        known = _known(changes, self._values)
        self._values.update(known)
        for name in known:
            self._overrides.problems.pop(name, None)
        if self._settings is None:
            return
        before, self._settings = self._settings, node_settings.read(self._values)
        self._pipeline.options = self._settings.detection
        self._pipeline.pipelining = self._settings.pipelining
        self._tracks.options = self._settings.tracking
        self._outputs.pictures = self._settings.pictures
        if self._settings.assembler != before.assembler:
            self._assembler.settings = self._supported(self._settings.assembler)
        if self._settings.model != self._model.requested:
            self._model.start_loading(self._settings.model)

    def _with_class_thresholds(self) -> Settings:
        """Declare the score thresholds of the running model's classes, and return all settings."""
        declared_values.declare_classes(self, self._model.detector.classes, self._values, self._overrides)
        while self._overrides.problems:  # a wrong override of another model's class must not stop the node
            _, problem = self._overrides.problems.popitem()
            self.get_logger().error(f"{problem}; score_threshold applies to this class")
        return node_settings.read(self._values)

    def _restore_model(self, running: ModelSettings) -> None:
        """Reset the model parameters to the running model's values."""
        restored = dataclasses.asdict(running)
        self.set_parameters_atomically([Parameter(f"model.{name}", value=value) for name, value in restored.items()])


def _known(changes: Sequence[Parameter], values: dict[str, Any]) -> dict[str, Any]:
    """Return the changed values of this node's own parameters, not of rclpy's, e.g. use_sim_time."""
    return {parameter.name: parameter.value for parameter in changes if parameter.name in values}


def main(arguments: Sequence[str] | None = None, stop_signals: StopSignals | None = None) -> int:
    """Run the node until it is asked to stop; return the process's exit status."""
    stop = threading.Event() if stop_signals is None else stop_signals.requested
    try:
        given = sys.argv[1:] if arguments is None else list(arguments)
        files = parameter_files.read(given)
        if surplus := remove_ros_args(["perception_node", *given])[1:]:
            raise ValueError(f"found arguments {surplus}, needed --ros-args -p NAME:=VALUE or --params-file FILE")
        if stop_signals is not None:
            stop_signals.wait_for_clean_up()
        # rclpy's own handlers would shut down the context while a frame is being published.
        rclpy.init(args=["perception_node", *given], signal_handler_options=SignalHandlerOptions.NO)
        node = PerceptionNode(stop=stop)
    except Exception as error:  # rclpy's errors in arguments have no common type
        print(f"perception_node: cannot start: {parameter_files.one_line(error)}", file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    if stop_signals is not None:
        stop_signals.say_goodbye_by(node.destroy_node)
    for file in files:
        if not file.addresses(node.get_fully_qualified_name()):
            node.get_logger().warning(file.ignored_by(node.get_fully_qualified_name()))
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        _run(node, executor, stop)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.close()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _run(node: PerceptionNode, executor: SingleThreadedExecutor, stop: threading.Event) -> None:
    autostart = node.get_parameter("autostart").value
    if autostart and node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
        node.trigger_activate()
    while rclpy.ok() and not stop.is_set():
        executor.spin_once(timeout_sec=_STOP_POLL)


if __name__ == "__main__":
    signals = StopSignals()
    signals.exit(main(stop_signals=signals))
