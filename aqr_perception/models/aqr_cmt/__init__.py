"""CMT with adaptive query routing as in the research code, whose checkpoints it loads."""
