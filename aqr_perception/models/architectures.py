# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Table of the model architectures.

A new architecture is one folder, one entry in this table and one YAML preset.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aqr_perception.models.aqr_cmt.aqr_cmt_options import AqrCmtOptions, check_aqr_cmt
from aqr_perception.models.bevformer.bevformer_options import BevFormerOptions, check_bevformer
from aqr_perception.models.petr.petr_options import PetrOptions

if TYPE_CHECKING:
    from aqr_perception.models.config.presets import Preset
    from aqr_perception.models.detection_model import DetectionModel


@dataclass(frozen=True)
class Architecture:
    """One entry of the table.

    Attributes:
        model: module and class of its `DetectionModel`, imported only when a model is built.
        sensors: branches that its presets need, `Preset.image` and `Preset.points`; ``any`` needs at least one.
        proposals: the branches that may propose queries, as in `ProposalOptions`.
        options: dataclass of the architecture's preset entries, under the architecture's name in the YAML file.
        check: returns a preset's error, or None; called after the checks that all architectures share.
    """

    model: str
    sensors: Literal["any", "cameras", "cameras and lidar"] = "any"
    proposals: tuple[Literal["bev", "image"], ...] = ("bev", "image")
    options: type | None = None
    check: "Callable[[Preset], str | None] | None" = None

    def model_class(self) -> "type[DetectionModel]":
        """Import the model's class."""
        module, _, name = self.model.partition(":")
        loaded: type[DetectionModel] = getattr(importlib.import_module(module), name)
        return loaded


ARCHITECTURES: Mapping[str, Architecture] = {
    "cmt": Architecture("aqr_perception.models.cmt.model:CMT"),
    "aqr_cmt": Architecture(
        "aqr_perception.models.aqr_cmt.model:AqrCMT",
        sensors="cameras and lidar",
        proposals=(),
        options=AqrCmtOptions,
        check=check_aqr_cmt,
    ),
    "mome": Architecture("aqr_perception.models.mome.model:MoME", sensors="cameras and lidar", proposals=()),
    "petr": Architecture(
        "aqr_perception.models.petr.model:PETR", sensors="cameras", proposals=("image",), options=PetrOptions
    ),
    "bevformer": Architecture(
        "aqr_perception.models.bevformer.model:BEVFormer",
        sensors="cameras",
        options=BevFormerOptions,
        check=check_bevformer,
    ),
}
