"""Fixtures and marks of all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.places import REFERENCE


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
    """Mark the tests of published models as slow: they run networks of full size."""
    for item in items:
        if item.path.name.startswith("test_published"):
            item.add_marker(pytest.mark.slow)
