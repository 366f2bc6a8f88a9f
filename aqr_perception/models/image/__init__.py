"""Image backbones and necks: from images to feature maps."""
