# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Memory measurement of the attention benchmark."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aqr_perception.benchmarks.attention_time import AttentionCase, peak_memory

SMALL = AttentionCase(queries=4, bev=(4, 4), views=1, image=(2, 2), heads=2)


@pytest.mark.slow
def test_memory_is_measured_from_a_script_without_a_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "measure.py"  # like an installed executable, it runs when it is imported
    script.write_text(
        "import torch\n"
        "from aqr_perception.benchmarks.attention_time import AttentionCase, peak_memory\n"
        f"print(peak_memory({SMALL!r}, 'plain', 'cpu', torch.float32))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    measured = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=60)
    assert measured.returncode == 0, measured.stderr
    assert 10 < float(measured.stdout) < 4096


@pytest.mark.slow
def test_a_failed_measurement_reports_the_error() -> None:
    with pytest.raises(RuntimeError, match="no such variant"):
        peak_memory(SMALL, "no such variant", "cpu", torch.float32)
