# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Bags side by side: in worker processes, and on a local Ray."""

import shutil
from pathlib import Path

import pytest
from helpers.processed_drive import Drive

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from helpers.dying_worker import dies_at_two

from aqr_perception.offline import fleet
from aqr_perception.offline.bag_run import BagJob
from aqr_perception.offline.settings import GivenParameters

pytestmark = pytest.mark.slow  # each worker imports PyTorch


def bags_of(drive: Drive, folder: Path) -> tuple[Path, ...]:
    broken = folder / "broken.mcap"
    broken.write_bytes(b"no bag")
    return (broken, *(Path(shutil.copy(drive.bag, folder / f"{name}.mcap")) for name in ("one", "two")))


def check(folder: Path, processed: Path) -> None:
    for name in ("one", "two"):
        ours, theirs = ((place / "detections.jsonl").read_text() for place in (folder / name, processed))
        assert [line.partition(",")[0] for line in ours.splitlines()] == [
            line.partition(",")[0] for line in theirs.splitlines()
        ]
    assert not (folder / "broken" / "detections.jsonl").exists()


def test_workers_process_bags_side_by_side_and_name_the_broken_one(
    drive: Drive, processed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bags = bags_of(drive, tmp_path)
    assert drive.process(tmp_path / "out", "--workers", "2", bags=bags) == 1
    assert "1 of 3 bags failed" in capsys.readouterr().err
    check(tmp_path / "out", processed)


def test_a_worker_that_is_killed_costs_its_bag_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "_work", dies_at_two)
    jobs = [BagJob(Path(name), tmp_path, GivenParameters()) for name in ("one", "two", "three")]
    outcomes = {str(outcome.bag): outcome for outcome in fleet.side_by_side(jobs, 1, lambda *_: None)}
    assert "ended without a word" in outcomes["two"].error
    assert not outcomes["one"].error and not outcomes["three"].error


def test_ray_spreads_bags(drive: Drive, processed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'aqr_perception[ray]'")
    bags = bags_of(drive, tmp_path)
    assert drive.process(tmp_path / "out", "--ray", "local", bags=bags) == 1
    assert "1 of 3 bags failed" in capsys.readouterr().err
    check(tmp_path / "out", processed)


def test_an_address_without_ray_is_said(drive: Drive, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'aqr_perception[ray]'")
    assert drive.process(tmp_path / "out", "--ray", "127.0.0.1:1") == 1
    assert "found no Ray cluster" in capsys.readouterr().err
