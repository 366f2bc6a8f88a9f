# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Choices of a fuzzed input, made from bytes."""

import random
import struct
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

ValueT = TypeVar("ValueT")

SIZES = (0, 1, 2, 3, 4, 7, 8, 12, 15, 16, 255, 256, 2**15, 2**16 - 1, 2**16, 2**24, 2**30, 2**31 - 8, 2**31 - 4)
SIZES += (2**31 - 1, 2**31, 2**31 + 1, 2**32 - 8, 2**32 - 4, 2**32 - 1)
"""Sizes at which integers overflow, change their sign or run out."""

NUMBERS = (0.0, 1.0, -1.0, -0.0, 0.5, 2.0, 255.0, 256.0, 1e4, 1e6, -1e6, 1e8, 1e-6, 1e-45, 1e-300, 1e38, -1e38, 1e300)
NUMBERS += (3.5e38, 1.7e308, float("inf"), float("-inf"), float("nan"), 2.0**31, 2.0**53, 2.0**63, -(2.0**63))
"""Numbers at which floating-point formats overflow, lose digits or stop being numbers."""

TEXTS = ("", " ", "/", ".", "..", "~", "\n", "\u2028", "\u00e9", "\U0001f697", "%s%n", "{0}", "a" * 300, "nan", "lidar")


class Choices:
    """Choices made from bytes, in order. After the last byte, each choice is the usual one: the first or 0.

    So no bytes at all give a usual, valid input, and coverage-guided fuzzers and hypothesis can change one choice.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def unsigned(self, size: int) -> int:
        """Return an integer of `size` bytes."""
        part = self._data[self._place : self._place + size]
        self._place += size
        return int.from_bytes(part, "little")

    def signed(self, size: int) -> int:
        """Return an integer of `size` bytes, or one near the ends of their range."""
        kind = self.unsigned(1) % 4
        half = 1 << (8 * size - 1)
        if kind == 0:
            return self.unsigned(1)
        value = (self.unsigned(size), half + self.unsigned(1), self.unsigned(1) - 1)[kind - 1]
        return (value + half) % (2 * half) - half

    def below(self, count: int) -> int:
        """Return an integer of 0..count-1."""
        if count <= 1:
            return 0
        return self.unsigned(1 if count <= 256 else 2 if count <= 1 << 16 else 4) % count

    def pick(self, values: Sequence[ValueT]) -> ValueT:
        return values[self.below(len(values))]

    def chance(self, one_in: int = 4) -> bool:
        """Return true for one in a few random bytes."""
        return self.unsigned(1) % one_in == one_in - 1

    def size(self, usual: int = 0) -> int:
        """Return an integer of 32 bits without a sign: at an edge, near the usual one, small, or any."""
        kind = self.unsigned(1) % 5
        if kind == 0:
            return self.pick(SIZES)
        if kind == 1:
            return max(0, usual + self.unsigned(1) % 9 - 4)
        if kind == 2:
            return usual * self.pick((2, 3, 4, 8, 256, 1 << 16)) % 2**32
        return self.unsigned(1 if kind == 3 else 4)

    def number(self, usual: float = 1.0) -> float:
        """Return a number of 64 bits: an edge, near the usual one, small, or any."""
        kind = self.unsigned(1) % 5
        if kind == 0:
            return self.pick(NUMBERS)
        if kind == 1:
            return usual * self.pick((-1.0, 0.0, 0.5, 1.01, 2.0, 8.0, 1e3, 1e-3, 1e9))
        if kind == 2:
            return self.unsigned(2) / 256.0 - 128.0
        if kind == 3:
            return usual + self.unsigned(1) / 16.0 - 8.0
        found: float = struct.unpack("<d", self.unsigned(8).to_bytes(8, "little"))[0]
        return found

    def text(self) -> str:
        """Return a text without NUL, which messages cannot hold."""
        kind = self.unsigned(1) % 3
        if kind < 2:
            return self.pick(TEXTS)
        signs = (self.unsigned(1 + self.unsigned(1) % 2) for _ in range(self.unsigned(1) % 12))
        return "".join(chr(sign) for sign in signs if sign and not 0xD800 <= sign < 0xE000)

    def random(self) -> np.random.Generator:
        """Return a generator of numbers that need no choice of their own."""
        return np.random.default_rng(self.unsigned(3))

    def some(self, change: Callable[[], object], most: int = 4) -> None:
        """Make a change up to `most` times."""
        for _ in range(self.unsigned(1) % (most + 1)):
            change()

    def spoilt(self, data: bytes, header: int = 0) -> bytes:
        """Return bytes with up to seven changes: values, bits, integers, missing, repeated or surplus bytes.

        Args:
            header: number of first bytes in which half of the changes are made; 0 for all.
        """
        spoilt = bytearray(data)
        for _ in range(self.unsigned(1) % 8):
            if not spoilt:
                break
            reach = min(header, len(spoilt)) if header and self.unsigned(1) % 2 == 0 else len(spoilt)
            place = self.below(reach)
            kind = self.unsigned(1) % 8
            if kind == 0:
                spoilt[place] = self.unsigned(1)
            elif kind == 1:
                spoilt[place] ^= 1 << self.unsigned(1) % 8
            elif kind == 2:
                spoilt[place] = self.pick((0, 255, 127, 128, 1))
            elif kind == 3:
                length, order = self.pick((2, 4, 8)), self.pick(("big", "little"))
                value = self.size() if length == 4 else self.pick(SIZES) * self.pick((1, 2**16, 2**32))
                spoilt[place : place + length] = (value % (1 << 8 * length)).to_bytes(length, order)
            elif kind == 4:
                del spoilt[place : place + 1 + self.below(64)]
            elif kind == 5:
                spoilt[place:place] = spoilt[place : place + 1 + self.below(64)] * (1 + self.unsigned(1) % 4)
            elif kind == 6:
                spoilt[place:place] = self.unsigned(8).to_bytes(8, "little")
            else:
                del spoilt[place:]
        return bytes(spoilt)


def random_bytes(seed: int, kind: str, index: int) -> bytes:
    """Return the bytes of one input of a run: many zeros in most, so that most choices are the usual ones."""
    source = random.Random(f"{seed}/{kind}/{index}")
    data = source.randbytes(source.choice((24, 80, 160, 320)))
    share = source.choice((0.0, 0.3, 0.6, 0.85))
    if not share:
        return data
    # A byte of the second series decides whether one of the first stays.
    limit = int(share * 256)
    return bytes(value if kept >= limit else 0 for value, kept in zip(data, source.randbytes(len(data)), strict=True))
