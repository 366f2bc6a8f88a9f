# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""BEVFormer (arXiv:2203.17270): bird's-eye view (BEV) features from cameras, with memory."""
