# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Transformer decoder: attention with windowed bias, decoder layers and position embeddings."""
