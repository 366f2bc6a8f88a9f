# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The node's parameters: table, declaration, users' values, checks and settings."""
