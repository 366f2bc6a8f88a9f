"""DDS domain of this run alone, apart from the environment's."""

import os

_FREE = [domain for domain in range(1, 101) if str(domain) != os.environ.get("ROS_DOMAIN_ID")]

DOMAIN = _FREE[os.getpid() % len(_FREE)]
"""Runs side by side on one machine have different process numbers, and so seldom a domain in common."""
