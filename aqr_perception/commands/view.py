# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Command ``aqr_perception view``: bags, recordings and running nodes in Rerun."""

import argparse
import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from aqr_perception.commands.model_option import add_model

if TYPE_CHECKING:
    from rerun import RecordingStream

    from aqr_perception.viewers.shown_frame import ShownFrame

_LIVE = "live"
_FLUSH_SECONDS = 30.0
_FOREVER = 3600.0
_WEB_PORT, _DATA_PORT = 9090, 9876
"""Rerun's usual ports; others where these are in use, as a browser would show another recording."""
_WEB_MEMORY = "50%"
"""Memory for what a browser may still load; the oldest frames go first."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    view = commands.add_parser(
        "view",
        help="a bag, a recording or a running node in Rerun",
        description="Show boxes with the weights of LiDAR and cameras, clouds, camera pictures with heat maps, the "
        "weights from above and over time in Rerun (pip install 'aqr_perception[rerun]'). A bag with the node's "
        "outputs is shown as it was recorded; one with sensors only is run through the detector: single sweeps, each "
        "with the nearest images.",
        epilog="Without a display, write a file (--rerun) and open it elsewhere with `rerun FILE.rrd`, or use --web. "
        "For RViz and Foxglove, see `aqr_perception layout`.",
    )
    view.add_argument(
        "source",
        nargs="+",
        metavar="SOURCE",
        help="bag (several: outputs of the node, and the sensors that they come from), folder of recorded data as for "
        "'convert', or the word live: the running node",
    )
    outputs = view.add_mutually_exclusive_group()
    outputs.add_argument("--rerun", type=Path, metavar="FILE.rrd", help="write a recording of Rerun; open no window")
    outputs.add_argument(
        "--web",
        action="store_true",
        help="show it in a browser: prints the address to open, which the network can reach, too",
    )
    view.add_argument(
        "--params", type=Path, metavar="FILE", help="parameter file of the node: its topics and frames (default: found)"
    )
    view.add_argument(
        "--node", default="", help="full name of the node, such as /robot/aqr_perception (default: found)"
    )
    view.add_argument("--frames", type=int, help="frames to show, at most (default: all)")
    view.add_argument("--seconds", type=float, help="of a running node: stop after this time (default: at Ctrl-C)")
    detector = view.add_argument_group("recordings without the node's outputs")
    add_model(detector)
    detector.add_argument(
        "--checkpoint", help="path of the weights, or 'random' (default: the weights shipped for the preset)"
    )
    detector.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    detector.add_argument("--score-threshold", type=float, default=0.3, help="lowest score (default: %(default)s)")
    view.set_defaults(run=_view)


def _view(options: argparse.Namespace) -> int:
    if options.frames is not None and options.frames < 1:
        raise ValueError(f"--frames: found {options.frames}, needed 1 or more")
    if options.seconds is not None and options.source != [_LIVE]:
        raise ValueError(f"--seconds: found {options.seconds:g} for a recording, needed 'live'; use --frames")
    _check_output(options)
    try:
        import rerun
    except ModuleNotFoundError as error:
        if error.name != "rerun":
            raise
        raise ValueError(
            "view: found no rerun-sdk, needed it to show anything; run: pip install 'aqr_perception[rerun]'"
        ) from error
    from aqr_perception.viewers.rerun_recording import RerunRecording

    frames = _live(options) if options.source == [_LIVE] else _recorded(options)
    try:
        first = next(frames, None)
    except KeyboardInterrupt:
        first = None
    if first is None:
        raise ValueError(f"{' '.join(options.source)}: found no frame, needed at least one to show")
    stream = rerun.RecordingStream("aqr_perception")
    try:
        _open(stream, options, first)
    except RuntimeError as error:  # Rerun's own errors: a port in use, no program to start
        raise ValueError(f"view: Rerun cannot be opened: {error}; try --rerun FILE.rrd") from error
    recording = RerunRecording(stream)
    try:
        recording.add(first)
        for frame in frames:
            recording.add(frame)
        while options.web:  # this process serves the browser
            time.sleep(_FOREVER)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    stream.flush(timeout_sec=_FLUSH_SECONDS)
    stream.disconnect()
    if options.rerun is not None:
        megabytes = options.rerun.stat().st_size / 1e6
        print(f"{options.rerun}: {recording.frames} frames, {megabytes / recording.frames:.2f} MB each")
    return 0


def _check_output(options: argparse.Namespace) -> None:
    """Check, before anything is read, that the result can be shown or written."""
    if options.rerun is not None:
        if options.rerun.suffix != ".rrd":
            raise ValueError(f"--rerun: found {options.rerun}, needed a name that ends in .rrd")
        if not options.rerun.parent.is_dir():
            raise ValueError(f"--rerun: found no folder {options.rerun.parent}, needed one for {options.rerun.name}")
        return
    window = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not options.web and not window:
        raise ValueError(
            "view: found no display (DISPLAY and WAYLAND_DISPLAY are empty), needed one for Rerun's window; write "
            "a file with --rerun FILE.rrd, or use --web"
        )


def _open(stream: "RecordingStream", options: argparse.Namespace, first: "ShownFrame") -> None:
    """Connect the recording with a file, a browser or Rerun's window, arranged for the cameras of the first frame."""
    import rerun

    from aqr_perception.viewers.message_frames import is_lidar
    from aqr_perception.viewers.rerun_blueprint import blueprint

    names = dict.fromkeys([*first.cameras, *first.camera_names, *(name for name in first.unused if not is_lidar(name))])
    arranged = blueprint(list(names), lidar=first.bev is not None or any(map(is_lidar, first.unused)))
    if options.rerun is not None:
        stream.save(options.rerun, default_blueprint=arranged)
    elif options.web:
        web, data = _free_port(_WEB_PORT), _free_port(_DATA_PORT)
        address = stream.serve_grpc(grpc_port=data, default_blueprint=arranged, server_memory_limit=_WEB_MEMORY)
        rerun.serve_web_viewer(web_port=web, open_browser=False, connect_to=address)
        print(f"open http://localhost:{web}/?url={quote(address, safe='')}; Ctrl-C ends it", flush=True)
    else:
        stream.spawn(default_blueprint=arranged)


def _free_port(usual: int) -> int:
    """Return a port that nobody listens on: the usual one if possible."""
    for port in (usual, 0):
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind(("", port))
            found: int = trial.getsockname()[1]
            return found
    raise ValueError("--web: found no free port, needed one")


def _recorded(options: argparse.Namespace) -> "Iterator[ShownFrame]":
    from aqr_perception.data.recordings.bag_frames import is_bag
    from aqr_perception.data.rig_file import read_rig
    from aqr_perception.viewers.recorded_outputs import RecordedOutputs

    sources = [Path(source) for source in options.source]
    rig = None if options.params is None else read_rig(options.params)
    progress = sys.stderr.isatty()
    if all(is_bag(source) for source in sources):
        with RecordedOutputs(sources, options.node, rig) as outputs:
            if outputs.node:
                yield from outputs.frames(options.frames, progress)
                return
    if len(sources) > 1:
        found = ", ".join(map(str, sources))
        raise ValueError(
            f"{found}: found no outputs of the node in any of them, needed one SOURCE to run the detector on"
        )
    yield from _detected(sources, options, progress)


def _detected(sources: Sequence[Path], options: argparse.Namespace, progress: bool) -> "Iterator[ShownFrame]":
    from tqdm import tqdm

    from aqr_perception.data.rig_file import read_rig
    from aqr_perception.detector import Detector
    from aqr_perception.options import DetectionOptions
    from aqr_perception.viewers.detected_frames import detected_frames

    rig = None if options.params is None else read_rig(options.params)
    chosen = DetectionOptions(score_threshold=options.score_threshold)

    def load() -> Detector:
        return Detector(options.model, options.checkpoint, options.device, options=chosen)

    frames = detected_frames(sources[0], load, options.frames, rig)
    yield from tqdm(frames, total=options.frames, unit="frame", desc="detecting", disable=not progress)


def _live(options: argparse.Namespace) -> "Iterator[ShownFrame]":
    try:
        from aqr_perception.viewers.live.running_node import live_frames
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "aqr_perception" and "live" not in (error.name or ""):
            raise
        raise ValueError(
            f"view live: found no {error.name}, needed ROS 2 with the built package; source its setup file"
        ) from error
    yield from live_frames(options.node, options.params, options.frames, options.seconds)
