"""The image backbone that a preset names."""

from aqr_perception.models.image.resnet import ResNet
from aqr_perception.models.image.vovnet import VoVNet
from aqr_perception.models.presets import ImageBranch


def image_backbone(branch: ImageBranch) -> ResNet | VoVNet:
    """Return the network, with random weights."""
    if branch.backbone == "vovnet99":
        return VoVNet()
    return ResNet(depth=50 if branch.backbone == "resnet50" else 18)
