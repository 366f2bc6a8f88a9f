# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""State of the time of sensors and transforms, as a status of /diagnostics."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticStatus

from aqr_perception.nodes.clocks.sensor_clocks import ClockReport
from aqr_perception.nodes.health.sensor_health import State


@dataclass(frozen=True)
class TimeReport:
    """State of the time of sensors and transforms.

    Attributes:
        sensors: state of each sensor's stamps.
        stamps_to_clock: seconds from the node's clock to the time of the sensors, latency included; NaN if unknown.
        in_clock_time: whether the node's clock shows the time of the stamps.
        clock_runs: whether the node's clock shows a time; without /clock, simulated time is 0.
        late_sweeps: number of sweeps that arrived after a later frame.
        transforms: what is wrong with transforms.
    """

    sensors: Mapping[str, ClockReport] = field(default_factory=dict)
    stamps_to_clock: float = math.nan
    in_clock_time: bool = False
    clock_runs: bool = True
    late_sweeps: int = 0
    transforms: Sequence[str] = ()

    @property
    def state(self) -> State:
        """Level and text of the status."""
        faults = [f"{name}: {report.fault}" for name, report in self.sensors.items() if report.fault]
        faults += self.transforms
        if faults:
            return DiagnosticStatus.WARN, "; ".join(faults)
        if not self.clock_runs:
            return DiagnosticStatus.WARN, (
                "use_sim_time is true, but /clock shows no time; publish /clock or set use_sim_time to false. "
                "Ages are measured from the arrival of the data"
            )
        if math.isnan(self.stamps_to_clock) or self.in_clock_time:
            return DiagnosticStatus.OK, "stamps and clock agree" if self.in_clock_time else "no stamps"
        direction = "ahead of" if self.stamps_to_clock > 0 else "behind"
        return DiagnosticStatus.WARN, (
            f"all stamps are {abs(self.stamps_to_clock):.0f} s {direction} the node's clock; play a recording with "
            "/clock and use_sim_time, or synchronise the clocks. Ages are measured from the arrival of the data"
        )
