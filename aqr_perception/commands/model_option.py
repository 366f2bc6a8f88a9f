# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Options that mean the same in several commands, under one name."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aqr_perception.detector import Detector


def add_model(command: "argparse.ArgumentParser | argparse._ArgumentGroup", purpose: str = "") -> None:
    """Add ``--model``, a preset's name or file; ``--preset``, its earlier name in ``train``, stays without help."""
    command.add_argument(
        "--model", default="aqr_tiny", help=f"preset name or .yaml path{purpose} (default: %(default)s)"
    )
    add_alias(command, "--preset", "model")


def add_alias(command: "argparse.ArgumentParser | argparse._ArgumentGroup", name: str, option: str) -> None:
    """Add another name of an option that takes one string, without help."""
    command.add_argument(name, dest=option, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def routed_detector(options: argparse.Namespace) -> "Detector":
    """Return the detector of a command's model, weights, device and precision; it can act in all modes of ``--aqr``.

    Raises:
        OptionError: its router cannot act in one of the modes.
    """
    from aqr_perception.detector import Detector
    from aqr_perception.options import AqrOptions

    detector = Detector(options.model, options.checkpoint, options.device, options.precision)
    for mode in options.aqr:
        detector.check_aqr(AqrOptions.of_model(mode))
    return detector
