"""The point branch: voxels, sparse encoder, SECOND and SECOND-FPN."""
