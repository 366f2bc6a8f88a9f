# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Routers with weights that differ between queries, unlike those of an untrained router."""

import torch

from aqr_perception.detector import Detector


def spread_router(detector: Detector, spread: float) -> Detector:
    """Add normal noise of a standard deviation to the router's parameters; return the detector."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in detector.model.named_parameters():
            if name.startswith("aqr."):
                parameter += spread * torch.randn(parameter.shape, generator=generator)
    return detector
