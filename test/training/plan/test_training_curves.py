# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Curves of a training that was killed and resumed."""

from pathlib import Path

from torch.utils.tensorboard.writer import SummaryWriter

from aqr_perception.training.plan.training_curves import Curve, StageCurves, read_curves, write_picture


def write_events(folder: Path, points: dict[int, float], suffix: str) -> None:
    writer = SummaryWriter(str(folder), filename_suffix=suffix)
    for step, value in points.items():
        writer.add_scalar("validation/score", value, step)
    writer.close()


def test_a_resumed_part_replaces_what_it_repeats_and_the_rest_of_a_killed_one_is_left_out(tmp_path: Path) -> None:
    write_events(tmp_path, {10: 0.25, 20: 0.5, 30: 0.75, 40: 1.0}, "a")
    write_events(tmp_path, {20: 0.625, 30: 0.875}, "b")
    assert read_curves(tmp_path, 35) == {"validation/score": Curve((10, 20, 30), (0.25, 0.625, 0.875))}
    assert read_curves(tmp_path)["validation/score"].steps == (10, 20, 30, 40)
    (first, _) = sorted(tmp_path.glob("events.*"), key=lambda path: path.stat().st_mtime_ns)
    first.write_bytes(first.read_bytes()[:-20])  # by a power failure
    assert read_curves(tmp_path)["validation/score"].steps == (10, 20, 30)


def test_stages_without_points_are_drawn_too(tmp_path: Path) -> None:
    curves = {"loss/total": Curve((10, 20), (3.0, 2.0))}
    write_picture(tmp_path / "a.png", [StageCurves("one", 20, curves), StageCurves("two", 5, {})], "two stages")
    write_picture(tmp_path / "b.png", [StageCurves("two", 5, {})], "none")
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("a.png", "b.png"))
