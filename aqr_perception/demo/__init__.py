# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Demo: a simulated drive with failing sensors played into the node, and a report."""
