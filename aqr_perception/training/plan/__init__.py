# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Trainings from files and flags: one training, and plans of several stages."""
