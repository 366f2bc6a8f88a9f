# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""PETR (arXiv:2203.05625) and PETRv2 (arXiv:2206.01256): camera-only models with 3D embeddings of image cells."""
