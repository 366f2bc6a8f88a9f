"""What every test may use."""

from pathlib import Path

import pytest
from helpers.places import REFERENCE


@pytest.fixture(scope="session")
def shared_reference() -> Path:
    """The folder with reference data of published models; users do not have it."""
    folder = REFERENCE
    if not folder.is_dir():
        pytest.skip(f"needs the reference data of published models in {folder}")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what compares with published models as slow: whole networks of their size run there."""
    for item in items:
        if item.path.name.startswith("test_published"):
            item.add_marker(pytest.mark.slow)
