# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Command ``aqr_perception benchmark``: speed and memory."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from aqr_perception.commands.model_option import add_model
from aqr_perception.commands.output import write_json

_log = logging.getLogger(__name__)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    benchmark = commands.add_parser("benchmark", help="measure speed and memory").add_subparsers(
        required=True, metavar="WHAT"
    )
    frame = benchmark.add_parser(
        "frame",
        help="one frame by stage",
        description="Measure repeated detection in one frame: median and 95th percentile by stage, and peak memory. "
        "With --compare or --sweep: several settings in alternation until the medians are stable to 5 %, operations, "
        "limits of this machine and the distance to them by stage.",
    )
    add_model(frame)
    frame.add_argument(
        "--checkpoint",
        help="weights file, or 'random' (default: weights shipped for the preset, otherwise random)",
    )
    frame.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16 (default: %(default)s)")
    frame.add_argument("--aqr", default="auto", help="auto, off, modulation, bias, both or gate (default: %(default)s)")
    frame.add_argument(
        "--image-backend", choices=("torch", "openvino"), default="torch", help="what runs the image branch"
    )
    several = frame.add_mutually_exclusive_group()
    several.add_argument(
        "--compare",
        metavar="SETTING=A,B",
        help="compare values of model, precision, image_backend, aqr, cuda_graphs, threads, cameras, points or "
        "queries, for example precision=fp32,bf16; the first is the reference",
    )
    several.add_argument(
        "--sweep",
        action="append",
        metavar="SETTING=N,...",
        help="measure the cost against cameras, points or queries, for example cameras=1,2,4,6; may be repeated",
    )
    frame.add_argument("--plot", type=Path, help="picture of a sweep, .png or .svg (needs matplotlib)")
    frame.add_argument(
        "--seconds", type=float, default=60.0, help="longest time of a comparison (default: %(default)s)"
    )
    _add_measuring(frame, repeats=10)
    frame.set_defaults(run=_benchmark_frame)

    attention = benchmark.add_parser(
        "attention",
        help="cross-attention of the decoder, with and without window bias and attention mass",
        description="Measure plain attention, window bias, attention mass and dense bias in alternation: median times, "
        "peak memory, and ratios to plain attention.",
    )
    attention.add_argument("--queries", type=int, default=900, help="number of queries (default: %(default)s)")
    attention.add_argument(
        "--bev", type=int, nargs=2, default=(128, 128), metavar=("ROWS", "COLUMNS"), help="BEV cells (default: 128 128)"
    )
    attention.add_argument("--views", type=int, default=6, help="number of cameras (default: %(default)s)")
    attention.add_argument(
        "--image",
        type=int,
        nargs=2,
        default=(20, 50),
        metavar=("ROWS", "COLUMNS"),
        help="cells of a camera's features (default: 20 50)",
    )
    attention.add_argument("--heads", type=int, default=8, help="number of heads (default: %(default)s)")
    _add_measuring(attention, repeats=5)
    attention.set_defaults(run=_benchmark_attention)

    deformable = benchmark.add_parser(
        "deformable",
        help="variants of BEVFormer's deformable attention",
        description="Measure grid sampling, one gathering sum and, on CUDA, the fused kernel in alternation: "
        "median times and ratios to grid sampling.",
    )
    deformable.add_argument("--queries", type=int, default=10_000, help="number of queries (default: %(default)s)")
    deformable.add_argument(
        "--image",
        type=int,
        nargs=2,
        default=(928, 1600),
        metavar=("HEIGHT", "WIDTH"),
        help="size of a camera's image in pixels (default: 928 1600)",
    )
    _add_measuring(deformable, repeats=5)
    deformable.set_defaults(run=_benchmark_deformable)
    _add_tracking(benchmark)

    node = benchmark.add_parser(
        "node",
        help="the running node: its own work by stage, age of results, memory, CPU",
        description="Start the node, as a user does, and send it pictures and sweeps of a simulated drive over DDS. "
        "Measure what it does apart from the model by stage, the age of its results, its memory over time, and the "
        "CPU time of its threads. Needs ROS 2 and the built package.",
    )
    node.add_argument("--model", default="aqr_tiny", help="preset name or .yaml path (default: %(default)s)")
    node.add_argument("--cameras", type=int, default=6, help="number of cameras, 1 to 6 (default: %(default)s)")
    node.add_argument(
        "--size", type=_size, default=(1600, 900), metavar="WIDTHxHEIGHT", help="size of pictures (default: 1600x900)"
    )
    pictures = node.add_mutually_exclusive_group()
    pictures.add_argument("--jpeg", dest="raw", action="store_false", default=False, help="send JPEGs (default)")
    pictures.add_argument("--raw", action="store_true", help="send raw bgr8 pictures")
    node.add_argument("--points", type=int, default=35_000, help="points of a sweep (default: %(default)s)")
    node.add_argument("--rate", type=float, default=5.0, help="frames per second (default: %(default)s)")
    node.add_argument("--seconds", type=float, default=60.0, help="duration (default: %(default)s)")
    node.add_argument("--listen", action="store_true", help="subscribe to all outputs, weight images included")
    node.add_argument(
        "--parameter", "-p", action="append", default=[], metavar="NAME:=VALUE", help="a further parameter of the node"
    )
    node.add_argument("--json", type=Path, help="also write the figures to this file")
    node.set_defaults(run=_benchmark_node)


def _add_tracking(benchmark: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    tracking = benchmark.add_parser("tracking", help="the tracker", description="Measure the tracker frame by frame.")
    tracking.add_argument("--objects", type=int, default=100, help="objects in a frame (default: %(default)s)")
    tracking.add_argument("--repeats", type=int, default=300, help="number of frames (default: %(default)s)")
    tracking.add_argument("--json", type=Path, help="also write the figures to this file")
    tracking.set_defaults(run=_benchmark_tracking)


def _benchmark_tracking(options: argparse.Namespace) -> int:
    from aqr_perception.benchmarks import tracking_time

    measured = tracking_time.run(options.objects, options.repeats)
    print(measured)
    write_json(options.json, measured.as_dict())
    return 0


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def _add_measuring(command: argparse.ArgumentParser, repeats: int) -> None:
    """Add the options that all benchmarks share."""
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    command.add_argument("--repeats", type=int, default=repeats, help="number of measurements (default: %(default)s)")
    command.add_argument("--json", type=Path, help="also write the figures to this file")


def _benchmark_frame(options: argparse.Namespace) -> int:
    # The imports below take seconds.
    _log.info("loading PyTorch and the model %s", options.model)
    from aqr_perception.benchmarks import frame_time, inputs
    from aqr_perception.detector import Detector
    from aqr_perception.options import AqrOptions, DetectionOptions

    if options.compare or options.sweep:
        return _compare_frames(options)
    if options.plot is not None:
        raise ValueError("--plot draws a sweep; give --sweep, too, for example --sweep cameras=1,2,4,6")
    detector = Detector(
        options.model, options.checkpoint, options.device, options.precision, image_backend=options.image_backend
    )
    detection = DetectionOptions(aqr=AqrOptions.of_model(options.aqr))
    detector.check_aqr(detection.aqr)
    measured = frame_time.run(detector, inputs.made_up_frame(), options.repeats, detection)
    print(measured.table())
    write_json(options.json, measured.as_dict())
    return 0


def _compare_frames(options: argparse.Namespace) -> int:
    from aqr_perception.benchmarks import inputs
    from aqr_perception.benchmarks.frame_comparison import compare
    from aqr_perception.benchmarks.frame_settings import FrameSettings, parse

    if options.plot is not None and not options.sweep:
        raise ValueError("--plot draws a sweep; found --compare, needed --sweep, for example --sweep cameras=1,2,4,6")
    base = FrameSettings(
        *(options.model, options.checkpoint, options.device, options.precision, options.image_backend, options.aqr)
    )
    wanted = options.sweep or [options.compare]
    for text in options.sweep or ():
        if text.partition("=")[0] not in ("cameras", "points", "queries"):
            raise ValueError(f"--sweep {text}: needed cameras=..., points=... or queries=...; use --compare for others")
    settings = {text: parse(text, base) for text in wanted}
    if options.plot is not None:
        import matplotlib.figure  # noqa: F401  # before minutes of measurement
    scenes = inputs.simulated_frames() if options.compare else ()
    measured = {
        text: compare(variants, inputs.made_up_frame(), options.seconds, scenes) for text, variants in settings.items()
    }
    for text, comparison in measured.items():
        print(f"{options.model}, {text}\n{comparison.table()}")
    if options.plot is not None:
        from aqr_perception.benchmarks.cost_plot import draw_costs

        sweeps = [(text.partition("=")[0], comparison) for text, comparison in measured.items()]
        draw_costs(sweeps, options.model, options.plot)
        print(options.plot)
    write_json(options.json, {text: comparison.as_dict() for text, comparison in measured.items()})
    return 0


def with_subject(arguments: Sequence[str]) -> list[str]:
    """Return arguments with ``frame`` after ``benchmark`` where its options follow at once."""
    given = list(arguments)
    if given[:1] == ["benchmark"] and len(given) > 1 and given[1].startswith("--") and given[1] != "--help":
        return [given[0], "frame", *given[1:]]
    return given


def _benchmark_attention(options: argparse.Namespace) -> int:
    from aqr_perception.benchmarks import attention_time
    from aqr_perception.devices import choose_device

    case = attention_time.AttentionCase(
        options.queries, tuple(options.bev), options.views, tuple(options.image), options.heads
    )
    rows = attention_time.run(case, options.repeats, str(choose_device(options.device)))
    print(attention_time.table(case, rows))
    write_json(options.json, [row.as_dict() for row in rows])
    return 0


def _benchmark_deformable(options: argparse.Namespace) -> int:
    from aqr_perception.benchmarks import deformable_time
    from aqr_perception.devices import choose_device

    case = deformable_time.DeformableCase(options.queries, tuple(options.image))
    rows = deformable_time.run(case, options.repeats, str(choose_device(options.device)))
    print(deformable_time.table(case, rows))
    write_json(options.json, [row.as_dict() for row in rows])
    return 0


def _benchmark_node(options: argparse.Namespace) -> int:
    try:
        from aqr_perception.benchmarks.live import node_load
        from aqr_perception.benchmarks.live.sensor_feed import FeedCase
        from aqr_perception.nodes.transport import transport_environment
    except ModuleNotFoundError as error:
        raise ValueError(
            f"benchmark node needs ROS 2 and the built package: found no {error.name}; pip alone does not install the "
            "node, build a workspace with colcon and source it"
        ) from error

    case = FeedCase(options.cameras, options.size, options.raw, options.points, options.rate)
    measured = node_load.run(
        case, options.model, options.seconds, transport_environment(), options.listen, options.parameter
    )
    print(measured.table())
    write_json(options.json, measured.as_dict())
    return 0
