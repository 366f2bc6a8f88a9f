# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The clock of a frame: parts inside of parts are counted once, also those of other threads."""

import threading
import time

import pytest

from aqr_perception.stage_clock import StageClock, in_this_frame, measured


def work(seconds: float) -> None:
    """Take CPU time of this thread."""
    start = time.thread_time()
    while time.thread_time() - start < seconds:
        pass


def test_a_part_inside_of_another_counts_once() -> None:
    clock = StageClock()
    with clock.run("assemble", "build"):
        work(0.01)
        for _ in range(2):
            with measured("decode"):
                work(0.015)
    assert set(clock.parts) == {"build", "decode"}
    assert clock.parts["build"].cpu == pytest.approx(0.01, abs=0.005)
    assert clock.parts["decode"].cpu == pytest.approx(0.03, abs=0.005)
    assert clock.seconds["assemble"] >= sum(part.wall for part in clock.parts.values()) - 1e-3


def test_waiting_takes_wall_time_but_no_cpu_time() -> None:
    clock = StageClock()
    with clock.run("publish", "publish"):
        time.sleep(0.03)
    assert clock.parts["publish"].wall >= 0.03 and clock.parts["publish"].cpu < 0.015


def test_work_of_other_threads_counts_for_the_frame_that_asked_for_it() -> None:
    clock = StageClock()

    @measured("rectify")
    def rectify() -> None:
        work(0.01)

    def decode() -> None:
        work(0.01)
        rectify()

    with clock.run("assemble", "build"):
        threads = [threading.Thread(target=in_this_frame(decode, "decode")) for _ in range(2)]
        with measured("wait"):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert clock.parts["decode"].cpu == pytest.approx(0.02, abs=0.008)
    assert clock.parts["rectify"].cpu == pytest.approx(0.02, abs=0.008)
    assert clock.parts["build"].cpu < 0.008, "the threads' work is not the caller's"


def test_nothing_is_measured_outside_of_a_frame() -> None:
    calls = []
    with measured("decode"):
        in_this_frame(lambda: calls.append(1), "decode")()
    clock = StageClock()
    with clock.run("detect"):
        work(0.001)
    assert calls == [1] and clock.parts == {} and clock.seconds["detect"] > 0


def test_a_failing_part_is_counted_and_its_frame_goes_on() -> None:
    clock = StageClock()
    with clock.run("assemble", "build"):
        with pytest.raises(ZeroDivisionError), measured("decode"):
            work(0.005)
            raise ZeroDivisionError
        work(0.005)
    assert clock.parts["decode"].cpu >= 0.005 and clock.parts["build"].cpu >= 0.004


def test_a_stage_that_fails_is_the_current_one_and_the_next_frame_is_measured_alone() -> None:
    clock = StageClock()
    with pytest.raises(ZeroDivisionError), clock.run("detect"):
        raise ZeroDivisionError
    assert clock.current == "detect" and clock.seconds == {}
    other = StageClock()
    with other.run("publish", "publish"), measured("messages"):
        pass
    assert clock.parts == {} and set(other.parts) == {"messages", "publish"}
