# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""HTML report of a drive with failing sensors."""

from collections.abc import Sequence
from pathlib import Path

from aqr_perception.demo.drive_frames import report_frames, report_phases
from aqr_perception.demo.pictures import DETECTED_COLOUR, MISSED_COLOUR
from aqr_perception.demo.recorded_drive import RecordedDrive
from aqr_perception.report.html_report import write_report as write_html

RANDOM_WEIGHTS_WARNING = "Random weights: these detections and weights are meaningless."

_REMEDY = "Run the demo with trained weights (--checkpoint) to see AQR at work."
_TRUTH_NOTE = (
    "From above, true objects are outlined: {} if detected, {} if missed. Only objects within nuScenes' range of "
    "their class that the intact LiDAR hits are evaluated; a detection of the class within 2 m finds them."
)
_NAMES = {DETECTED_COLOUR: "green", MISSED_COLOUR: "magenta"}


def write_report(path: Path, drive: RecordedDrive, notes: Sequence[str] = (), pictures_every: int = 1) -> Path:
    """Write the report as a single HTML file.

    Args:
        notes: sentences about the playback.
        pictures_every: every n-th frame has pictures.
    """
    schedule = "; ".join(f"{failure} from {failure.begin:g} s to {failure.end:g} s" for failure in drive.failures)
    return write_html(
        path,
        report_frames(drive),
        title="A drive with failing sensors",
        subtitle=f"A simulated drive of {drive.seconds:g} s, played into the running node. Failures: "
        f"{schedule or 'none'}. Model: {drive.recording.model}.",
        warning="" if drive.recording.trained else f"{RANDOM_WEIGHTS_WARNING} {_REMEDY}",
        facts=drive.summary.lines(),
        notes=(_TRUTH_NOTE.format(_NAMES[DETECTED_COLOUR], _NAMES[MISSED_COLOUR]), *_account(drive), *notes),
        phases=report_phases(drive),
        start_ns=drive.truth.start_ns,
        pictures_every=pictures_every,
    )


def _account(drive: RecordedDrive) -> list[str]:
    """Return a sentence that accounts for every sweep."""
    missing, count = drive.unanswered(), len(drive.truth.sweeps)
    if not missing:
        return [f"The node answered all {count} sweeps."]
    times = ", ".join(f"{seconds:.1f}" for seconds in missing)
    return [f"The node answered {count - len(missing)} of {count} sweeps; it published nothing for those at {times} s."]
