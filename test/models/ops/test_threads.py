# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Threads of small operations."""

import threading
from collections.abc import Iterator

import pytest
import torch
from helpers.torch_threads import torch_threads

from aqr_perception.benchmarks.inputs import made_up_frame
from aqr_perception.detector import Detector
from aqr_perception.models.aqr.router import Router
from aqr_perception.models.ops.threads import one_thread
from aqr_perception.models.transformer.decoder import TransformerDecoder


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    with torch_threads(3):
        yield


def test_the_number_of_threads_comes_back_even_after_an_error() -> None:
    with pytest.raises(ValueError, match="inside"), one_thread(True):
        assert torch.get_num_threads() == 1
        raise ValueError("inside")
    assert torch.get_num_threads() == 3


def test_a_disabled_context_changes_nothing() -> None:
    with one_thread(False):
        assert torch.get_num_threads() == 3


def test_an_inner_context_leaves_the_outer_one_alone() -> None:
    with one_thread(True):
        with one_thread(True):
            pass
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3


def test_a_thread_that_starts_meanwhile_ends_with_as_many_threads_as_the_others() -> None:
    found: list[int] = []

    def start() -> None:
        with one_thread(True):
            found.append(torch.get_num_threads())
        found.append(torch.get_num_threads())

    with one_thread(True):
        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
        assert torch.get_num_threads() == 1
    assert found == [1, 3] and torch.get_num_threads() == 3


def test_a_small_model_routes_in_one_thread_and_attends_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: dict[str, int] = {}
    for part in (Router, TransformerDecoder):
        forward = part.forward

        def noted(self, *arguments, _forward=forward, _name=part.__name__, **options):  # type: ignore[no-untyped-def]
            threads[_name] = torch.get_num_threads()
            return _forward(self, *arguments, **options)

        monkeypatch.setattr(part, "forward", noted)
    Detector("aqr_tiny", "random", device="cpu", precision="fp32").detect(made_up_frame())
    assert threads == {"Router": 1, "TransformerDecoder": 3}
    assert torch.get_num_threads() == 3
