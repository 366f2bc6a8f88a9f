# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The demo's bag is the same from one process and from several."""

from pathlib import Path

import pytest

from aqr_perception.bags.reader import BagReader
from aqr_perception.demo import simulated_drive
from aqr_perception.demo.simulated_drive import DemoDrive
from aqr_perception.simulator.bag import sweep_times


def content(path: Path) -> list[tuple[str, int, bytes]]:
    with BagReader(path) as bag:
        return [(message.topic, message.stamp_ns, message.data) for message in bag.messages()]


@pytest.mark.slow
def test_several_processes_simulate_the_same_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated_drive, "_FEW_SWEEPS", 4)
    drive = DemoDrive(seconds=1.0, picture=(44, 16))
    bags = []
    for workers in (1, 2):
        (tmp_path / str(workers)).mkdir()
        bags.append(content(drive.ensure_bag(tmp_path / str(workers), False, workers)))
    assert bags[0] == bags[1]
    assert sum(topic == "/lidar/points" for topic, *_ in bags[0]) == len(sweep_times(1.0, drive.rate)) == 5


def test_a_bag_that_exists_is_used_again(tmp_path: Path) -> None:
    drive = DemoDrive(seconds=0.2, picture=(44, 16))
    path = drive.ensure_bag(tmp_path, False)
    first = path.stat().st_mtime_ns
    assert drive.ensure_bag(tmp_path, False) == path and path.stat().st_mtime_ns == first
