# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints, shipped weights, and transfer of branches between models."""
