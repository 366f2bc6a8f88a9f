"""PETR (arXiv:2203.05625) and PETRv2 (arXiv:2206.01256): cameras alone, image cells embedded by their rays in space."""
