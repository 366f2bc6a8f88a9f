"""Image backbones and necks: pictures to feature maps."""
