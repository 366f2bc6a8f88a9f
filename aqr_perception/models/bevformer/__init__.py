"""BEVFormer (Li et al. 2022, https://arxiv.org/abs/2203.17270): a bird's-eye view from cameras that remembers."""
