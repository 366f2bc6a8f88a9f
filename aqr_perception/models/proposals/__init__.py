# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Proposals: queries that start at peaks of the branches' heat maps."""
