"""BEVFormer (arXiv:2203.17270): bird's-eye view (BEV) features from cameras, with memory."""
