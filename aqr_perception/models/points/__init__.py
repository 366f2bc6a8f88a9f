"""Point branch: voxels, sparse encoder, SECOND and its feature pyramid."""
