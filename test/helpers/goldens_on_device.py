# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Recorded samples of the published models against those of a device and precision, as JSON.

    python -m helpers.goldens_on_device DEVICE PRECISION FILE [PRESET ...]

In fp32, a stage outside the tests' tolerance is an error. Lower precisions have no tolerance: hard choices, such as
MoME's experts, differ; their differences are written only.
"""

import json
import sys
from pathlib import Path

import numpy as np

from helpers import published_goldens
from helpers.published_goldens import CASES, TOLERANCE


def differences(name: str, device: str, precision: str) -> dict[str, float]:
    """Return for each stage the median difference from the recorded samples, relative to their deviation."""
    recorded = published_goldens.load(name)
    found = published_goldens.compute(name, recorded, device, precision)
    return {
        stage: float(np.median(np.abs(found[stage] - samples)) / max(float(samples.std()), 1e-6))
        for stage, samples in recorded.items()
    }


def main(device: str, precision: str, file: str, *names: str) -> int:
    """Write the differences of some presets, or of all; return 1 if a preset fails or differs in fp32."""
    results: dict[str, object] = {}
    failed = False
    for name in names or CASES:
        try:
            stages = differences(name, device, precision)
        except Exception as error:  # one preset must not hide the others
            results[name], failed = {"error": f"{type(error).__name__}: {error}"}, True
            continue
        results[name] = stages
        failed |= precision == "fp32" and max(stages.values()) > TOLERANCE
        Path(file).write_text(json.dumps(results, indent=2) + "\n")
    Path(file).write_text(json.dumps(results, indent=2) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
