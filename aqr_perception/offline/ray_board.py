# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Progress of the bags on a Ray cluster; a module of its own, because its actor needs nothing else."""


class ProgressBoard:
    """The newest progress of each job."""

    def __init__(self) -> None:
        self._news: dict[int, tuple[float, int]] = {}

    def put(self, number: int, seconds: float, frames: int) -> None:
        self._news[number] = (seconds, frames)

    def take(self) -> dict[int, tuple[float, int]]:
        news, self._news = self._news, {}
        return news
