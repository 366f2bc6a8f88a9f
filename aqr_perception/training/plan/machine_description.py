# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Description of the machine that trains, for model cards."""

import os
import platform
from typing import Any

import torch

from aqr_perception.process_environment import physical_cores, processor_entries


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, matrix units, memory in GB, GPU and versions."""
    return {
        "processor": processor_entries().get("model name") or platform.processor() or platform.machine(),
        "cores": physical_cores(),
        "threads": torch.get_num_threads(),
        "amx": bool(torch.cpu._is_amx_tile_supported()),
        "avx512_bf16": bool(torch.cpu._is_avx512_bf16_supported()),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
