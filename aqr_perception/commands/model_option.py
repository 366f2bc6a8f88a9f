# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Options that mean the same in several commands, under one name."""

import argparse


def add_model(command: "argparse.ArgumentParser | argparse._ArgumentGroup", purpose: str = "") -> None:
    """Add ``--model``, a preset's name or file; ``--preset``, its earlier name in ``train``, stays without help."""
    command.add_argument(
        "--model", default="aqr_tiny", help=f"preset name or .yaml path{purpose} (default: %(default)s)"
    )
    add_alias(command, "--preset", "model")


def add_alias(command: "argparse.ArgumentParser | argparse._ArgumentGroup", name: str, option: str) -> None:
    """Add another name of an option that takes one string, without help."""
    command.add_argument(name, dest=option, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
