# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Tasks side by side, each in one thread."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers.small_fusion import write_preset
from helpers.torch_threads import torch_threads

from aqr_perception.benchmarks.inputs import made_up_frame
from aqr_perception.detector import Detector
from aqr_perception.frame_features import FeatureBranches
from aqr_perception.models.cmt.head import CmtHead
from aqr_perception.models.cmt.model import CMT
from aqr_perception.models.config.presets import preset_directory
from aqr_perception.models.ops.side_by_side import run_all, run_both, side_by_side
from aqr_perception.options import DetectionOptions

_SECONDS = 20.0
"""Longest wait for another task; the tests need none of it."""


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    with torch_threads(2):
        yield


def meeting(parties: int) -> Callable[[], int]:
    """Return a task that ends when as many others run at once."""
    barrier = threading.Barrier(parties, timeout=_SECONDS)
    return barrier.wait


@torch.inference_mode()
def test_results_come_in_the_order_of_the_tasks() -> None:
    def slow(number: int) -> int:
        time.sleep(0.01 * (5 - number))
        return number

    with side_by_side(True):
        assert run_all([lambda number=number: slow(number) for number in range(5)]) == list(range(5))  # type: ignore[misc]
        assert run_both(lambda: slow(1), lambda: "2") == (1, "2")


@torch.inference_mode()
def test_two_tasks_run_at_once_in_one_thread_each() -> None:
    meet = meeting(2)

    def task() -> tuple[int, int]:
        meet()
        return threading.get_ident(), torch.get_num_threads()

    with side_by_side(True):
        (one, threads), (other, others) = run_all([task, task])
    assert one != other and threads == others == 1
    assert torch.get_num_threads() == 2


@torch.inference_mode()
def test_a_task_with_tasks_of_its_own_gets_the_helper_that_has_nothing_to_do() -> None:
    meet = meeting(2)
    with side_by_side(True):
        for _ in range(3):
            run_all([lambda: None, lambda: run_all([meet, meet])])


@torch.inference_mode()
def test_tasks_of_tasks_need_no_more_threads_than_there_are() -> None:
    found: set[int] = set()

    def leaf() -> None:
        time.sleep(0.002)
        found.add(threading.get_ident())

    def branch() -> None:
        run_all([leaf] * 5)

    with side_by_side(True):
        run_all([branch] * 4)
    assert len(found) <= 2


@pytest.mark.parametrize("enabled", [False, True])
def test_tasks_run_in_the_calling_thread_where_nothing_is_to_be_gained(enabled: bool) -> None:
    """Disabled, outside of the context, with gradients, or with a single thread."""
    here = threading.get_ident()
    tasks = [threading.get_ident] * 3
    assert run_all(tasks) == [here] * 3
    with side_by_side(enabled), torch.enable_grad():
        assert run_all(tasks) == [here] * 3
    torch.set_num_threads(1)
    with torch.inference_mode(), side_by_side(True):
        assert run_all(tasks) == [here] * 3


@torch.inference_mode()
def test_the_first_error_is_raised_when_all_tasks_have_ended() -> None:
    ended: list[int] = []

    def fail(number: int) -> None:
        time.sleep(0.03 / number)
        ended.append(number)
        raise ValueError(f"task {number}")

    with side_by_side(True), pytest.raises(ValueError, match="task 1"):
        run_all([lambda: fail(1), lambda: fail(2), lambda: fail(3)])
    assert sorted(ended) == [1, 2, 3]
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("casts", [False, True])
def test_tasks_have_the_callers_modes(casts: bool) -> None:
    meet = meeting(2)

    def task() -> tuple[bool, torch.dtype]:
        meet()
        return torch.is_inference_mode_enabled(), (torch.ones(2, 2) @ torch.ones(2, 2)).dtype

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=casts), side_by_side(True):
        assert run_all([task, task]) == [(False, torch.bfloat16 if casts else torch.float32)] * 2
    with torch.inference_mode(), side_by_side(True):
        assert run_all([task, task]) == [(True, torch.float32)] * 2


def test_threads_that_start_later_have_all_threads() -> None:
    found: list[int] = []
    with torch.inference_mode(), side_by_side(True):
        run_all([lambda: torch.ones(100_000) + 1] * 4)
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert found == [2]


def test_a_forked_process_has_helpers_of_its_own() -> None:
    with torch.no_grad(), side_by_side(True):
        run_all([time.time] * 3)
        child = os.fork()
        if child == 0:
            meet = meeting(2)
            run_all([meet, meet])
            os._exit(0)
    until = time.monotonic() + _SECONDS
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < until:
        time.sleep(0.01)
    if ended == (0, 0):
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert ended == (child, 0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_small_models_features_are_the_same_side_by_side(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    detector, frame = Detector("aqr_tiny", device="cpu", precision=precision), made_up_frame()
    found = detector.extract(frame)
    monkeypatch.setattr(FeatureBranches, "_runs_side_by_side", lambda self: False)
    expected = detector.extract(frame)
    for name in ("image", "bev"):
        one, other = (getattr(features.maps, name).float().numpy() for features in (found, expected))
        tolerance = 1e-4 if precision == "fp32" else 0.02
        np.testing.assert_allclose(one, other, atol=tolerance * np.abs(other).max())


def test_queries_and_tokens_are_the_same_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Detector("aqr_tiny", device="cpu", precision="fp32")
    features, options = detector.extract(made_up_frame()), DetectionOptions(score_threshold=0.0)
    with monkeypatch.context() as patched:
        meet = meeting(2)
        for owner, name in ((CmtHead, "tokens"), (CMT, "_placed")):
            method = getattr(owner, name)
            patched.setattr(owner, name, lambda *args, method=method, **named: (meet(), method(*args, **named))[1])
        found = detector.detect_in(features, options).detections
    monkeypatch.setattr(CMT, "is_small", lambda self, size=1: False)
    expected = detector.detect_in(features, options).detections
    assert len(found.scores) > 100
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
    np.testing.assert_allclose(found.lidar_weight, expected.lidar_weight, atol=1e-4)


@pytest.mark.parametrize(
    ("preset", "expected"), [("aqr_tiny", True), ("petr_tiny", True), ("aqr_tiny_sparse", False), ("large", False)]
)
def test_only_models_whose_operations_are_small_run_side_by_side(preset: str, expected: bool, tmp_path: Path) -> None:
    """Sparse encoders and large pictures share their operations among all threads."""
    if preset == "large":
        entries = yaml.safe_load((preset_directory() / "aqr_tiny.yaml").read_text())
        entries["image"]["size"] = [704, 256]
        preset = write_preset(tmp_path, entries)
    called: list[bool] = []
    detector = Detector(preset, "random", device="cpu", precision="fp32")
    original = detector.model.image_features

    def noted(images: torch.Tensor | None) -> torch.Tensor | None:
        called.append(torch.get_num_threads() == 1)
        return original(images)

    detector.model.image_features = noted  # type: ignore[method-assign]
    detector.extract(made_up_frame())
    assert called == [expected]
