# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Fixtures and marks of all tests."""

import gc
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from helpers import own_domain  # noqa: F401  # before ROS 2 reads the environment
from helpers.places import REFERENCE

gc.disable()  # see pytest_collection_finish

# Examples have no deadline in wall-clock time: on a loaded machine any of them may take a second.
hypothesis.settings.register_profile("patient", hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session")
def shared_reference() -> Path:
    """The folder with the reference data of published models, which is not part of the package."""
    folder = REFERENCE
    if not folder.is_dir():
        pytest.skip(f"needs the reference data of published models in {folder}")
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Use one thread: sums then have one order, and forks of this process lack no threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of published models as slow: they run networks of full size; with few examples, see below."""
    for item in items:
        if item.path.name.startswith("test_published"):
            item.add_marker(pytest.mark.slow)
    if os.environ.get("AQR_TEST_EXAMPLES") == "few":
        for test in {getattr(item, "function", None) for item in items}:
            _draw_fewer_examples(test)
    if "PYTEST_XDIST_WORKER" in os.environ:
        _put_long_files_first(items)


def pytest_collection_finish() -> None:
    """Collect garbage among the objects of the tests only: those of the libraries and of the collection stay."""
    gc.freeze()
    gc.enable()


def _put_long_files_first(items: list[pytest.Item]) -> None:
    """Sort the files: a worker that gets a long file last works on it while the others have nothing to do."""
    tests = Counter(item.path for item in items)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, -tests[item.path]))


def _draw_fewer_examples(test: object) -> None:
    """Let a test of properties draw a quarter of its examples, at least five; those written out all run."""
    own = getattr(test, "_hypothesis_internal_use_settings", None)
    if isinstance(own, hypothesis.settings) and own.max_examples > 5:
        fewer = hypothesis.settings(own, max_examples=max(own.max_examples // 4, 5))
        test._hypothesis_internal_use_settings = fewer  # type: ignore[attr-defined]
