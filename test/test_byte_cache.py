# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Collections bounded in bytes."""

from hypothesis import given
from hypothesis import strategies as st

from aqr_perception.byte_cache import ByteCache, ByteSet, text_bytes


@given(st.lists(st.tuples(st.integers(0, 9), st.binary(max_size=30))))
def test_a_cache_keeps_the_latest_entries_that_fit(puts: list[tuple[int, bytes]]) -> None:
    cache: ByteCache[int, bytes] = ByteCache(50, lambda _, value: len(value))
    for key, value in puts:
        cache.put(key, value)
        assert cache.get(key) == value and cache.bytes <= 50
    latest = dict(reversed(list(dict(puts).items()))) if len({key for key, _ in puts}) == len(puts) else {}
    room = 50
    for key, value in latest.items():
        room -= len(value)
        if room < 0:
            break
        assert cache.get(key) == value


def test_what_is_used_is_forgotten_last() -> None:
    cache: ByteCache[str, int] = ByteCache(2, lambda *_: 1)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    cache.discard("a")
    assert cache.bytes == len(cache) == 1


def test_an_entry_without_room_is_not_kept() -> None:
    cache: ByteCache[str, bytes] = ByteCache(10, lambda _, value: len(value))
    cache.put("large", bytes(11))
    assert cache.get("large") is None and cache.bytes == 0


def test_a_set_of_texts_without_end_stays_small() -> None:
    texts: ByteSet[tuple[str, str]] = ByteSet(10_000, lambda pair: text_bytes(*pair))
    for index in range(1000):
        texts.add((f"frame {index}", "x" * (index % 100)))
    assert ("frame 999", "x" * 99) in texts and ("frame 0", "") not in texts
    assert sum(text_bytes(*pair) for pair in texts) <= 10_000 and 0 < len(texts) < 50
    texts.discard(("frame 999", "x" * 99))
    assert ("frame 999", "x" * 99) not in texts
