"""The image backbone that a preset names."""

from aqr_perception.models.config.presets import ImageBranch
from aqr_perception.models.image.resnet import ResNet
from aqr_perception.models.image.vit import VIT_SIZES, VitBackbone
from aqr_perception.models.image.vovnet import VoVNet


def image_backbone(branch: ImageBranch, stages: tuple[int, ...] = (3, 4)) -> ResNet | VoVNet | VitBackbone:
    """Return the network, with random weights.

    Args:
        branch: names the network.
        stages: that it returns (1 to 4 are strides 4, 8, 16, 32; a Vision Transformer has no stage 1); VoVNet always
            returns the last two.
    """
    if branch.backbone == "vovnet99":
        return VoVNet()
    if branch.backbone in VIT_SIZES:
        return VitBackbone(VIT_SIZES[branch.backbone], branch.vit, stages)
    if branch.backbone == "resnet101_deformable":
        # As FCOS3D's, which BEVFormer starts from: Caffe's strides, deformable convolutions in the last two stages.
        return ResNet(101, stages, deformable_stages=(3, 4), stride_first=True, width=branch.width)
    return ResNet(50 if branch.backbone == "resnet50" else 18, stages, width=branch.width)
