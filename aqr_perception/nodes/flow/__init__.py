"""Flow of frames through the node's stages, one after another or side by side."""
