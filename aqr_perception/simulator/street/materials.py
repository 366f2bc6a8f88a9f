# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Materials of world 2: colour, LiDAR reflectivity and gloss of every surface."""

from typing import NamedTuple

import numpy as np


class Material(NamedTuple):
    """A surface.

    Attributes:
        colour: BGR, linear, 0..1.
        reflectivity: share of a LiDAR's light that returns at normal incidence; above 1 for retroreflectors.
        gloss: share of the light that is mirrored at normal incidence.
    """

    colour: tuple[float, float, float]
    reflectivity: float
    gloss: float = 0.0


TABLE: dict[str, Material] = {
    "paint": Material((0.3, 0.3, 0.3), 0.4, 0.06),
    "glass": Material((0.03, 0.03, 0.03), 0.06, 0.12),
    "rubber": Material((0.02, 0.02, 0.02), 0.05),
    "metal": Material((0.3, 0.3, 0.31), 0.4, 0.08),
    "plastic": Material((0.03, 0.03, 0.03), 0.12),
    "skin": Material((0.2, 0.3, 0.5), 0.45),
    "cloth": Material((0.2, 0.15, 0.12), 0.3),
    "trousers": Material((0.08, 0.05, 0.04), 0.2),
    "panel": Material((0.6, 0.6, 0.6), 0.5, 0.02),
    "retro": Material((0.75, 0.75, 0.75), 3.0),
    "band": Material((0.8, 0.8, 0.8), 2.0),
    "headlamp": Material((0.6, 0.62, 0.62), 0.6, 0.1),
    "tail": Material((0.02, 0.02, 0.3), 0.8, 0.05),
    "brake": Material((0.02, 0.02, 0.25), 0.8, 0.05),
    "beacon": Material((0.02, 0.25, 0.6), 0.5, 0.05),
    "streetlamp": Material((0.5, 0.5, 0.5), 0.4),
    "ground": Material((0.1, 0.1, 0.1), 0.12),
    "wall": Material((0.3, 0.33, 0.38), 0.4),
    "concrete": Material((0.32, 0.34, 0.35), 0.35),
    "wood": Material((0.09, 0.15, 0.23), 0.4),
    "bark": Material((0.05, 0.08, 0.11), 0.25),
    "leaves": Material((0.03, 0.11, 0.06), 0.45),
    "load": Material((0.15, 0.25, 0.35), 0.35),
}  # fmt: skip
NAMES = tuple(TABLE)
INDEX = {name: index for index, name in enumerate(NAMES)}
COLOURS = np.array([material.colour for material in TABLE.values()], np.float32)
REFLECTIVITY = np.array([material.reflectivity for material in TABLE.values()], np.float32)
GLOSS = np.array([material.gloss for material in TABLE.values()], np.float32)
