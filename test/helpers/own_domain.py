# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""DDS domains of a run: one of each worker process of pytest-xdist, and one more of each process."""

import os

_FIRST = int(os.environ.get("ROS_DOMAIN_ID", "1"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_OF_WORKERS = [(_FIRST - 1 + 7 * worker) % 100 + 1 for worker in range(_WORKERS)]
_FREE = [domain for domain in range(1, 101) if domain not in _OF_WORKERS]

DOMAIN = _FREE[os.getpid() % len(_FREE)]
"""Runs side by side on one machine have different process numbers, and so seldom a domain in common."""

if "PYTEST_XDIST_WORKER" in os.environ:  # nodes of one worker's tests must not hear those of another's
    os.environ["ROS_DOMAIN_ID"] = str(_OF_WORKERS[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))])
