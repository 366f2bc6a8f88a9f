# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Medians of the stages' times in /diagnostics."""

from aqr_perception.nodes.health.frame_times import TIMES_WINDOW, FrameTimes
from aqr_perception.stage_clock import PARTS, Spent, StageClock


def frame(decode: float, model: float) -> StageClock:
    clock = StageClock()
    clock.seconds = {"assemble": decode, "detect": model, "publish": 0.001}
    clock.parts = {"decode": Spent(2 * decode, decode), "publish": Spent(0.001, 0.0005)}
    return clock


def test_the_medians_of_the_last_frames_are_reported_in_milliseconds() -> None:
    times = FrameTimes()
    for index, decode in enumerate((0.010, 0.020, 0.090)):
        times.add(frame(decode, 0.1 * (index + 1)), float(index))
    values = {name: float(value) for name, value in times.values(3.0).items()}
    assert values["model_ms"] == 200.0
    assert values["overhead_ms"] == 21.0, "all stages but the model"
    assert (values["decode_ms"], values["decode_cpu_ms"], values["overhead_cpu_ms"]) == (40.0, 20.0, 20.5)
    assert (values["publish_ms"], values["publish_cpu_ms"], values["pictures_ms"]) == (1.0, 0.5, 0.0)
    assert {f"{part}_ms" for part in PARTS} < set(values)


def test_old_frames_are_forgotten() -> None:
    times = FrameTimes()
    names = set(times.values(0.0))
    times.add(frame(0.010, 0.1), 0.0)
    assert times.values(TIMES_WINDOW)["model_ms"] == "100.0"
    assert set(times.values(TIMES_WINDOW + 0.1).values()) == {"unknown"}
    assert set(times.values(2 * TIMES_WINDOW)) == names
