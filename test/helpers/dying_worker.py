# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Work of a worker process that dies amid the second job."""

import os

from aqr_perception.offline import fleet
from aqr_perception.offline.bag_run import BagJob, BagOutcome


def dies_at_two(number: int, job: BagJob) -> BagOutcome:
    """End this process without a word if the job's bag is ``two``."""
    fleet._events.put((number, 0.0, 0))
    if job.bag.name == "two":
        os._exit(9)
    return BagOutcome(job.bag)
