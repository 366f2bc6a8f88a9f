# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Commands of ``aqr_perception``, one module each. Slow imports happen only when a command runs."""
