"""BEVFormer (arXiv:2203.17270): a bird's-eye view from cameras, with memory."""
