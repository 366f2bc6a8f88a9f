# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Made-up frames of a report: two objects, a front camera that fails, and a moment without result."""

import numpy as np

from aqr_perception.report.report_frame import (
    BEV,
    LIDAR,
    ReportDetection,
    ReportFrame,
    ReportPhase,
    ReportSensor,
    ReportTruth,
    Window,
)

START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 200_000_000


def drive_frames() -> list[ReportFrame]:
    """Return five frames: two with all sensors, one without result, two with a failing front camera."""
    return [_frame(index) for index in range(5)]


def failing_phases() -> list[ReportPhase]:
    """Return the phases of the frames."""
    edge, end = START_NS + 3 * PERIOD_NS, START_NS + 5 * PERIOD_NS
    return [
        ReportPhase("all sensors working", START_NS, edge),
        ReportPhase("camera front black", edge, end, ("front",)),
    ]


def _frame(index: int) -> ReportFrame:
    stamp_ns, fails = START_NS + index * PERIOD_NS, index >= 3
    truth = [_truth(10.0, index != 2), _truth(20.0, False)]
    if index == 2:
        sensors = [ReportSensor(name, False, "no frame") for name in (LIDAR, "front", "back")]
        return ReportFrame(stamp_ns, sensors, truth=truth, unanswered="nothing was published")
    sensors = [
        ReportSensor(LIDAR, True, age=0.0),
        ReportSensor("front", True, failure="camera front black" if fails else "", age=0.01),
        ReportSensor("back", True, doubt="late" if fails else "", age=0.02),
    ]
    picture = np.full((48, 132, 3), 40 * index + 20, np.uint8)
    return ReportFrame(
        stamp_ns,
        sensors,
        [_detection(index, 10.0, 0.8, 0.1 if fails else 0.9), _detection(index, 20.0, 0.4, 0.1 if fails else 0.9)],
        {"front": picture, "back": picture, BEV: np.full((120, 120, 3), 30, np.uint8)},
        truth,
        {"image": 30.0, "decoder": 20.0 + index},
    )


def _truth(distance: float, detected: bool) -> ReportTruth:
    return ReportTruth("car", [distance, 0.0, 0.0, 4.0, 2.0, 1.5, 0.0, 0.0, 0.0], detected)


def _detection(index: int, distance: float, score: float, weight: float) -> ReportDetection:
    share = 0.5 + 0.05 * index
    x = 0.5 + distance / 100
    return ReportDetection(
        "car",
        score,
        [distance, 0.0, 0.0, 4.0, 2.0, 1.5, 0.0, 1.0, 0.0],
        0.7 + 0.01 * index,
        weight,
        {"front": weight, "back": 0.0},
        {LIDAR: share, "front": 0.9 - share, "back": 0.1},
        {BEV: Window(x, 0.5, 0.03, 0.03), "front": Window(x, 0.4, 0.04, 0.09)},
        {BEV: [(x, 0.48, x + 0.04, 0.48), (x, 0.52, x + 0.04, 0.52)]},
    )
