# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Command ``aqr_perception layout``: RViz's and Foxglove's views of a node, from its parameter file."""

import argparse
import sys
from pathlib import Path


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    layout = commands.add_parser(
        "layout",
        help="views of a node for RViz and Foxglove, from its parameter file",
        description="Write RViz's configuration and Foxglove's layout with the LiDARs, cameras, frames and namespace "
        "of a node's parameter file.",
        epilog="Then run: rviz2 -d OUT.rviz, or import OUT.json in Foxglove. The launch files do this by themselves "
        "(rviz:=true).",
    )
    layout.add_argument(
        "--params", type=Path, required=True, metavar="FILE", help="parameter file of the node, such as nuscenes.yaml"
    )
    layout.add_argument("--namespace", default="", help="namespace of the node (default: none)")
    layout.add_argument(
        "--fixed-frame",
        default="",
        metavar="FRAME",
        help="TF frame of the view (default: the first that is set of output_frame, base_frame, model_frame, "
        "fixed_frame)",
    )
    layout.add_argument("--rviz", type=Path, metavar="OUT.rviz", help="RViz's configuration to write")
    layout.add_argument("--foxglove", type=Path, metavar="OUT.json", help="Foxglove's layout to write")
    layout.set_defaults(run=_layout)


def _layout(options: argparse.Namespace) -> int:
    from aqr_perception.viewers.foxglove_layout import foxglove_layout
    from aqr_perception.viewers.node_topics import ViewError, read_node_topics
    from aqr_perception.viewers.rviz_config import rviz_config

    if options.rviz is None and options.foxglove is None:
        raise ViewError("layout: found neither --rviz nor --foxglove, needed a file to write")
    topics = read_node_topics(options.params, options.namespace)
    if options.rviz is not None:
        header = f"RViz's view of {topics.node}, made from {options.params.name} by `aqr_perception layout`."
        options.rviz.write_text(rviz_config(topics, options.fixed_frame, header))
        print(options.rviz)
    if options.foxglove is not None:
        options.foxglove.write_text(foxglove_layout(topics, options.fixed_frame))
        print(options.foxglove)
    if not (options.fixed_frame or topics.vehicle_frame):
        print("note: the parameters name no TF frame; choose the frame of the 3D view in Foxglove", file=sys.stderr)
    return 0
