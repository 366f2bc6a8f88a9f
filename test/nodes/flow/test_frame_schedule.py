# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The order of frames through the stages, simulated without threads and in virtual time."""

import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr_perception.nodes.flow.frame_schedule import Schedule

BUILD, DETECT, PUBLISH = range(3)
Seconds = Callable[[int, float], float]
"""What a stage takes for the frame of a stamp."""


class Output(NamedTuple):
    """A published frame: its stamp, and how old it was then."""

    stamp: float
    age: float


class Run(NamedTuple):
    outputs: list[Output]
    schedule: Schedule[float]
    begun: list[tuple[float, int, float]]
    """Time, stage and stamp of everything that was begun."""

    @property
    def ages(self) -> list[float]:
        """Ages of the outputs but the last one: no newer request replaces the last one while it waits."""
        return [output.age for output in self.outputs[:-1]]

    def count(self, stage: int) -> int:
        return sum(one == stage for _, one, _ in self.begun)


def steady(build: float, detect: float, publish: float) -> Seconds:
    return lambda stage, stamp: (build, detect, publish)[stage]


def simulate(requests: Sequence[float], seconds: Seconds, beside: bool, fails: set[float] = frozenset()) -> Run:
    """Submit requests at the times of their stamps; return what is published. Frames in `fails` end in detection."""
    schedule: Schedule[float] = Schedule(3, lambda one, other: one >= other, lambda one, other: one > other)
    schedule.beside = beside
    number = itertools.count()
    events = [(stamp, next(number), -1, stamp) for stamp in requests]
    heapq.heapify(events)
    run = Run([], schedule, [])
    busy: set[int] = set()
    while events:
        now, _, ended, stamp = heapq.heappop(events)
        if ended == -1:
            schedule.submit(stamp)
        elif ended in busy and stamp >= 0:
            busy.discard(ended)
            schedule.end(ended, now, goes_on=not (ended == DETECT and stamp in fails))
            if ended == PUBLISH:
                run.outputs.append(Output(stamp, now - stamp))
        for stage in (PUBLISH, DETECT, BUILD):
            item = schedule.begin(stage, now)
            if item is not None:
                busy.add(stage)
                run.begun.append((now, stage, item))
                heapq.heappush(events, (now + seconds(stage, item), next(number), stage, item))
            pause = schedule.pause(stage, now)
            if math.isfinite(pause):
                # A thread that has slept wakes a little later than asked.
                heapq.heappush(events, (now + pause + 1e-6, next(number), stage, -1.0))
    return run


def every(period: float, until: float) -> list[float]:
    return [index * period for index in range(round(until / period))]


def test_without_pipelining_one_frame_is_in_flight() -> None:
    run = simulate(every(0.01, 4.0), steady(0.06, 0.1, 0.01), beside=False)
    assert len(run.outputs) == pytest.approx(4.0 / 0.17, abs=2)
    assert max(run.ages) <= 0.17 + 0.01 + 1e-9
    order = [(stage, stamp) for _, stage, stamp in run.begun]
    assert order == [(stage, output.stamp) for output in run.outputs for stage in range(3)]


def test_pipelining_raises_the_rate_to_that_of_the_slowest_stage_and_the_age_by_less_than_a_frame() -> None:
    seconds = steady(0.06, 0.1, 0.01)
    alone, beside = (simulate(every(0.01, 4.0), seconds, beside) for beside in (False, True))
    assert len(beside.outputs) == pytest.approx(4.0 / 0.1, abs=3)
    assert max(beside.ages) - max(alone.ages) < 0.17
    usual = sorted(beside.ages)[len(beside.ages) // 2]
    assert usual - 0.17 < 0.04, "a build begins when it will end at about the same time as the detection"


@pytest.mark.parametrize("slowest", [BUILD, PUBLISH])
def test_pipelining_helps_too_where_the_model_is_not_the_slowest(slowest: int) -> None:
    seconds = steady(*(0.1 if stage == slowest else 0.05 for stage in range(3)))
    alone, beside = (simulate(every(0.01, 4.0), seconds, beside) for beside in (False, True))
    assert len(beside.outputs) == pytest.approx(4.0 / 0.1, abs=3)
    assert max(beside.ages) - max(alone.ages) < 0.2


def test_a_model_that_keeps_up_with_the_sensors_gives_the_same_with_and_without_pipelining() -> None:
    alone, beside = (simulate(every(0.2, 4.0), steady(0.06, 0.1, 0.01), beside) for beside in (False, True))
    assert alone.outputs == beside.outputs and len(alone.outputs) == 20


def test_nothing_is_built_in_vain_while_frames_take_their_usual_time() -> None:
    run = simulate(every(0.01, 4.0), steady(0.02, 0.5, 0.01), beside=True)
    assert run.count(DETECT) == len(run.outputs)
    in_vain = {stamp for _, stage, stamp in run.begun if stage == BUILD} - {output.stamp for output in run.outputs}
    assert max(in_vain, default=0.0) < 0.5, "during the first frame, nothing is known of the model's time"


def test_a_built_frame_is_replaced_while_the_model_hangs_but_ever_more_rarely() -> None:
    def seconds(stage: int, stamp: float) -> float:
        hangs = stage == DETECT and 1.9 < stamp <= 2.0
        return 12.0 if hangs else (0.06, 0.1, 0.01)[stage]

    requests = every(0.05, 20.0)
    alone, beside = (simulate(requests, seconds, beside) for beside in (False, True))
    in_vain = beside.count(BUILD) - beside.count(DETECT)
    assert 2 <= in_vain <= 9, "the logarithm of 12 s"
    # Two frames may be in detection between 1.9 s and 2 s, so compare with the time of one.
    assert max(beside.ages) - max(alone.ages) < 12.0
    assert [output.stamp for output in beside.outputs] == sorted({output.stamp for output in beside.outputs})


def test_the_first_frames_of_a_slow_model_do_not_starve_the_next_ones() -> None:
    run = simulate(every(0.1, 60.0), steady(0.05, 5.0, 0.01), beside=True)
    assert len(run.outputs) >= 11, "the model is busy all the time"
    assert max(run.ages) <= 2 * 5.06 + 0.1


def test_frames_that_fail_end_alone() -> None:
    requests = every(0.05, 4.0)
    failing = set(requests[::3])
    run = simulate(requests, steady(0.02, 0.03, 0.01), beside=True, fails=failing)
    assert [output.stamp for output in run.outputs] == [stamp for stamp in requests if stamp not in failing]
    assert run.schedule.processed == len(requests) and run.schedule.dropped == 0


@given(
    st.lists(st.tuples(*[st.floats(0.001, 0.3)] * 3), min_size=1, max_size=8),
    st.floats(0.01, 0.4),
)
@settings(max_examples=25, deadline=None)
def test_ages_rise_by_less_than_the_slowest_frame_whatever_frames_take(
    spent: list[tuple[float, float, float]], period: float
) -> None:
    requests = every(period, 20 * period)

    def seconds(stage: int, stamp: float) -> float:
        return spent[round(stamp / period) % len(spent)][stage]

    run = simulate(requests, seconds, beside=True)
    slowest = sum(max(stages) for stages in zip(*spent, strict=True))
    assert max(run.ages) <= period + 2 * slowest + 1e-3
    stamps = [output.stamp for output in run.outputs]
    assert stamps == sorted(set(stamps))
    assert len(stamps) + run.schedule.dropped == len(requests) and run.schedule.processed == len(stamps)
    assert stamps[-1] == requests[-1], "the newest data is always published"
    for stage in range(3):
        times = sorted((begun, begun + seconds(stage, stamp)) for begun, one, stamp in run.begun if one == stage)
        assert all(end <= begin + 1e-9 for (_, end), (begin, _) in itertools.pairwise(times)), "one frame in a stage"


@given(st.tuples(*[st.floats(0.001, 0.3)] * 3), st.floats(0.01, 0.4))
@settings(max_examples=25, deadline=None)
def test_pipelining_is_never_slower(spent: tuple[float, float, float], period: float) -> None:
    requests = every(period, 30 * period)
    alone, beside = (simulate(requests, steady(*spent), beside) for beside in (False, True))
    assert len(beside.outputs) >= len(alone.outputs) - 1


def started(beside: bool = True) -> Schedule[int]:
    """Return a schedule with frame 1 in detection, and frame 2 in the build if that is allowed."""
    schedule: Schedule[int] = Schedule(3, lambda one, other: one >= other, lambda one, other: one > other)
    schedule.beside = beside
    schedule.submit(1)
    assert schedule.begin(BUILD, 0.0) == 1
    schedule.end(BUILD, 0.1, goes_on=True)
    assert schedule.begin(DETECT, 0.1) == 1
    schedule.submit(2)
    assert schedule.begin(BUILD, 0.2) == (2 if beside else None)
    return schedule


def test_a_frame_that_is_not_newer_waits_for_those_in_flight() -> None:
    schedule = started()
    schedule.end(BUILD, 0.3, goes_on=True)
    schedule.submit(2)
    assert schedule.begin(BUILD, 0.3) is None and schedule.pause(BUILD, 0.3) == math.inf
    schedule.end(DETECT, 0.4, goes_on=True)
    for stage, frame in ((PUBLISH, 1), (DETECT, 2)):
        assert schedule.begin(stage, 0.4) == frame
        schedule.end(stage, 0.5, goes_on=True)
    assert schedule.begin(BUILD, 0.5) is None
    assert schedule.begin(PUBLISH, 0.5) == 2
    schedule.end(PUBLISH, 0.6, goes_on=True)
    assert schedule.begin(BUILD, 0.6) == 2


def test_stopping_finishes_the_frame_in_detection_and_discards_the_one_behind_it() -> None:
    schedule = started()
    schedule.stop()
    schedule.submit(3)
    assert schedule.begin(BUILD, 0.3) is None
    schedule.end(BUILD, 0.3, goes_on=True)
    assert schedule.begin(DETECT, 0.3) is None
    schedule.end(DETECT, 0.4, goes_on=True)
    assert not schedule.is_over and schedule.begin(DETECT, 0.4) is None and schedule.begin(PUBLISH, 0.4) == 1
    schedule.end(PUBLISH, 0.5, goes_on=True)
    assert schedule.is_over


def test_stopping_finishes_the_only_frame_even_if_it_is_still_being_built() -> None:
    schedule: Schedule[int] = Schedule(3, lambda one, other: True)
    schedule.submit(1)
    assert schedule.begin(BUILD, 0.0) == 1
    schedule.stop()
    for stage in range(3):
        assert stage == BUILD or schedule.begin(stage, 0.1) == 1
        schedule.end(stage, 0.1, goes_on=True)
    assert schedule.is_over and schedule.processed == 1


def test_forgetting_drops_what_waits_and_the_built_frame() -> None:
    schedule = started()
    schedule.submit(3)
    schedule.end(BUILD, 0.3, goes_on=True)
    schedule.forget()
    assert schedule.dropped == 2 and schedule.in_flight == 1
    schedule.end(DETECT, 0.4, goes_on=True)
    assert schedule.begin(DETECT, 0.4) is None and schedule.begin(PUBLISH, 0.4) == 1


def test_the_frame_that_has_taken_most_time_is_told_without_its_waits() -> None:
    schedule = started()
    assert schedule.progress(0.25) == (1, pytest.approx(0.1 + 0.15))
    schedule.end(BUILD, 0.3, goes_on=True)
    schedule.end(DETECT, 0.4, goes_on=True)
    assert schedule.progress(5.0) is None, "both wait"
    assert schedule.begin(PUBLISH, 5.0) == 1
    assert schedule.progress(5.5) == (1, pytest.approx(0.1 + 0.3 + 0.5))
    schedule.end(PUBLISH, 6.0, goes_on=True)
    assert schedule.usual_seconds == pytest.approx(1.4)


def test_pipelining_may_be_turned_off_with_frames_in_flight() -> None:
    schedule = started()
    schedule.beside = False
    schedule.end(BUILD, 0.3, goes_on=True)
    schedule.submit(3)
    schedule.end(DETECT, 0.4, goes_on=True)
    assert schedule.begin(DETECT, 0.4) is None, "a result waits already"
    assert schedule.begin(PUBLISH, 0.4) == 1 and schedule.begin(DETECT, 0.4) == 2
    for stage in (PUBLISH, DETECT):
        schedule.end(stage, 0.5, goes_on=True)
    assert schedule.begin(BUILD, 0.5) is None
    assert schedule.begin(PUBLISH, 0.5) == 2
    schedule.end(PUBLISH, 0.6, goes_on=True)
    assert schedule.begin(BUILD, 0.6) == 3
