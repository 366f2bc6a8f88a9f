# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Command line: ``aqr_perception COMMAND``, with the commands of ``commands/`` and ``presets``."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from aqr_perception.commands import (
    benchmark,
    convert,
    demo,
    evaluate,
    export,
    inspect,
    layout,
    process,
    simulate,
    train,
    view,
)
from aqr_perception.process_environment import prepare_process


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status: 0, or 1 after an error, which is printed in one line."""
    prepare_process()  # before a command loads torch
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(with_subjects(given))
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("aqr_perception"):
            raise
        print(
            f"aqr_perception: this command needs {error.name}, which is not installed; run: pip install "
            "'aqr_perception[train,simulate]' && pip install --no-deps nuscenes-devkit==1.2.0",
            file=sys.stderr,
        )
    except (ValueError, OSError) as error:
        print(f"aqr_perception: {error}", file=sys.stderr)
    return 1


def with_subjects(arguments: Sequence[str]) -> list[str]:
    """Return arguments with left-out subjects: ``convert SET OUT``, ``inspect PATH``, ``benchmark --compare``."""
    return inspect.with_subject(convert.with_subject(benchmark.with_subject(arguments)))


def _parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each command sets `run` to the function that runs it."""
    parser = argparse.ArgumentParser(
        prog="aqr_perception", description="Camera + LiDAR 3D object detection with adaptive query routing (AQR)."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    presets = commands.add_parser("presets", help="list the model presets")
    presets.set_defaults(run=_print_presets)
    for command in (demo, simulate, train, evaluate, benchmark, export, convert, inspect, process, view, layout):
        command.add(commands)
    return parser


def _print_presets(_: argparse.Namespace) -> int:
    from aqr_perception.models.config.presets import load_preset, preset_names

    names = preset_names()
    width = max(map(len, names))
    for name in names:
        print(f"{name:<{width}}  {load_preset(name).description}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
