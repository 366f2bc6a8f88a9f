# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Bags stay open for the thread and process that read them, and for no other."""

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aqr_perception.bags import messages
from aqr_perception.bags.errors import BagError
from aqr_perception.bags.reader_cache import ReaderCache
from aqr_perception.bags.writer import BagWriter


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three bags of one message each."""
    paths = [tmp_path_factory.mktemp("bags") / f"{number}.mcap" for number in range(3)]
    for path in paths:
        with BagWriter(path) as writer:
            writer.write("/tf", messages.tf([]), 1)
    return paths


def test_a_bag_is_opened_once_and_read_again(bags: list[Path]) -> None:
    cache = ReaderCache()
    first = cache.reader(bags[0])
    assert cache.reader(bags[0]) is first and cache.reader(bags[1]) is not first
    assert [len(list(first.messages())) for _ in range(2)] == [1, 1]


def test_the_bag_that_was_not_read_for_the_longest_time_is_closed(
    bags: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, closed = ReaderCache(2), []
    monkeypatch.setattr("aqr_perception.bags.reader.BagReader.close", lambda reader: closed.append(reader.path))
    kept = cache.reader(bags[0])
    cache.reader(bags[1])
    assert cache.reader(bags[0]) is kept
    cache.reader(bags[2])
    assert closed == [bags[1]] and cache.reader(bags[0]) is kept


def test_another_thread_has_a_reader_of_its_own(bags: list[Path]) -> None:
    cache = ReaderCache()
    with ThreadPoolExecutor(1) as other:
        theirs = other.submit(cache.reader, bags[0]).result()
        assert other.submit(cache.reader, bags[0]).result() is theirs
    assert cache.reader(bags[0]) is not theirs


def test_a_forked_process_and_a_pickled_cache_have_readers_of_their_own(
    bags: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ReaderCache()
    parents = cache.reader(bags[0])
    assert pickle.loads(pickle.dumps(cache)).reader(bags[0]) is not parents
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert cache.reader(bags[0]) is not parents


def test_a_bag_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"none\.mcap: found no such file"):
        ReaderCache().reader(tmp_path / "none.mcap")
