# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Command ``aqr_perception export``: a model for ONNX Runtime, OpenVINO and torch.export."""

import argparse
import logging
from pathlib import Path

_log = logging.getLogger(__name__)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    export = commands.add_parser(
        "export",
        help="write a model's parts for ONNX Runtime, OpenVINO or torch.export",
        description="Write the image branch, the dense point branch and the decoder with its heads, each for a fixed "
        "rig, and a manifest with their inputs. Each part is compared with PyTorch. Parts that cannot be exported stay "
        "in PyTorch and are named.",
    )
    export.add_argument("model", metavar="MODEL", help="preset name or .yaml path")
    export.add_argument(
        "--checkpoint",
        help="weights file, or 'random' (default: weights shipped for the preset, otherwise random)",
    )
    export.add_argument(
        "--format", choices=("onnx", "openvino", "torch-export"), default="onnx", help="default: %(default)s"
    )
    export.add_argument("--output", type=Path, default=Path("export"), help="folder (default: %(default)s)")
    rig = export.add_mutually_exclusive_group()
    rig.add_argument("--rig", type=Path, help="rig or parameter file whose number of cameras is used")
    rig.add_argument("--cameras", type=int, default=6, help="number of cameras (default: %(default)s)")
    export.add_argument(
        "--aqr",
        default="auto",
        help="auto, off, modulation, bias, both or gate, built into the decoder (default: %(default)s)",
    )
    export.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    # The imports below take seconds.
    _log.info("loading PyTorch and the model %s", options.model)
    from aqr_perception.data.rig_file import read_rig
    from aqr_perception.detector import Detector
    from aqr_perception.export.exporter import MANIFEST, export
    from aqr_perception.options import AqrOptions

    cameras = options.cameras if options.rig is None else len(read_rig(options.rig).cameras)
    detector = Detector(options.model, options.checkpoint, "cpu", "fp32")
    aqr = AqrOptions.of_model(options.aqr)
    detector.check_aqr(aqr)
    manifest = export(detector, options.format, options.output, cameras, aqr)
    for part in manifest["parts"]:
        shapes = ", ".join(f"{entry['name']} {tuple(entry['shape'])}" for entry in part["inputs"])
        compared = part["difference_from_torch"]
        agreement = "not compared" if compared is None else f"differs by {max(compared.values()):.1e}"
        print(f"{options.output / part['file']}: {agreement}; inputs {shapes}")
    for name, reason in manifest["left_in_torch"].items():
        print(f"stays in PyTorch: {name}: {reason}")
    print(options.output / MANIFEST)
    return 0
