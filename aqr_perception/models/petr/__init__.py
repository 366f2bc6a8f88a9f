"""PETR (arXiv:2203.05625) and PETRv2 (arXiv:2206.01256): camera-only, image cells embedded by their rays in 3D."""
