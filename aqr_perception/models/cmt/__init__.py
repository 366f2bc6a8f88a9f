# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""CMT (arXiv:2301.01283) with adaptive query routing (AQR)."""
