# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Construction of a preset's image backbone."""

from aqr_perception.models.config.presets import ImageBranch
from aqr_perception.models.image.efficientnet_lite import EfficientNetLite
from aqr_perception.models.image.resnet import ResNet
from aqr_perception.models.image.vit import VIT_SIZES, VitBackbone
from aqr_perception.models.image.vovnet import VoVNet


def image_backbone(
    branch: ImageBranch, stages: tuple[int, ...] | None = None
) -> ResNet | VoVNet | EfficientNetLite | VitBackbone:
    """Return a preset's image backbone with random weights.

    Args:
        branch: image branch of the preset.
        stages: stages to return: 1 to 4 are strides 4, 8, 16, 32; None for those of the branch's stride. A Vision
            Transformer has no stage 1, and VoVNet always returns stages 3 and 4.
    """
    stages = stages or ((2, 3) if branch.stride == 8 else (3, 4))
    if branch.backbone == "vovnet99":
        return VoVNet()
    if branch.backbone == "efficientnet_lite0":
        return EfficientNetLite(stages)
    if branch.backbone in VIT_SIZES:
        return VitBackbone(VIT_SIZES[branch.backbone], branch.vit, stages)
    if branch.backbone == "resnet101_deformable":
        # FCOS3D's backbone, which BEVFormer starts from: Caffe's strides, two stages of deformable convolutions.
        return ResNet(101, stages, deformable_stages=(3, 4), stride_first=True, width=branch.width)
    return ResNet(50 if branch.backbone == "resnet50" else 18, stages, width=branch.width)
