# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Bodies of cars, trucks, buses, trailers and machines, in variants drawn from a seed."""

import numpy as np
from numpy.typing import NDArray

from aqr_perception.simulator.solids import Mesh, merged
from aqr_perception.simulator.street.forms import coloured, cuboid, lump, prism, taper, tube

Random = np.random.Generator
_STYLES = ("sedan", "hatchback", "estate", "suv", "van", "pickup")


def _wheels(xs: tuple[float, ...], half_width: float, radius: float, thickness: float = 0.22) -> list[Mesh]:
    parts = []
    for x in xs:
        for side in (-1, 1):
            outer = side * half_width
            parts.append(tube((x, outer, radius), (x, outer - side * thickness, radius), radius, "rubber", 10))
            parts.append(tube((x, outer * 1.005, radius), (x, outer * 0.98, radius), 0.6 * radius, "metal", 6))
    return parts


def _lamps(
    front: float, back: float, half_width: float, front_z: float, back_z: float, size: float = 0.14
) -> list[Mesh]:
    parts = [cuboid((back - 0.005, 0, back_z + 0.35), (0.03, 0.4, 0.05), "brake")]
    for side in (-1, 1):
        y = side * (half_width - 0.22)
        parts.append(cuboid((front - 0.03, y, front_z), (0.1, 0.36, size), "headlamp"))
        parts.append(cuboid((back + 0.03, y, back_z), (0.1, 0.3, size * 1.2), "tail"))
    parts.append(cuboid((back, 0, back_z - 0.18), (0.03, 0.5, 0.12), "retro"))
    parts.append(cuboid((front, 0, front_z - 0.22), (0.03, 0.5, 0.12), "retro"))
    return parts


def car(rng: Random) -> Mesh:
    """Return a saloon, hatchback, estate, off-roader, van or pickup."""
    style = str(rng.choice(_STYLES, p=(0.25, 0.25, 0.12, 0.22, 0.1, 0.06)))
    high = {"suv": 1.75, "van": 2.0, "pickup": 1.8}.get(style, 1.45)
    length, half, clear = 4.5, 0.9, 0.2 if high < 1.5 else 0.3
    belt = high * rng.uniform(0.56, 0.62)
    hood_x = {"van": 1.75}.get(style, rng.uniform(0.75, 1.05))
    hood_z, nose_z = belt * rng.uniform(0.93, 1.0), belt * rng.uniform(0.68, 0.8)
    roof_front = hood_x - {"van": 0.7}.get(style, rng.uniform(0.65, 0.85)) * (1.0 if style != "suv" else 0.8)
    back = -length / 2
    roof_back = {"sedan": -0.95, "hatchback": -1.55, "estate": -1.95, "suv": -1.85, "van": -2.1, "pickup": -0.25}[style]
    glass_back = {"sedan": -1.55, "hatchback": -2.05, "estate": -2.15, "suv": -2.1, "van": -2.2, "pickup": -0.5}[style]
    front = length / 2
    profile = [
        (0.0, clear), (front - 0.1, clear), (front, clear + 0.15), (front - 0.02, nose_z), (hood_x, hood_z),
        (glass_back, belt), (back + 0.04, belt * 0.97), (back, clear + 0.25), (back + 0.1, clear),
    ]  # fmt: skip
    parts = [prism(profile, [half * w for w in (0.95, 0.86, 0.88, 0.9, 1.0, 1.0, 0.95, 0.92, 0.9)], "paint")]
    cabin = [
        (roof_back, high - 0.05),
        (glass_back, belt - 0.01),
        (hood_x + 0.02, hood_z - 0.01),
        (roof_front, high - 0.05),
    ]
    parts.append(prism(cabin, [half * w for w in (0.74, 0.93, 0.93, 0.74)], "glass"))
    middle = (roof_front + roof_back) / 2
    parts.append(
        taper((middle, 0, high - 0.06), (roof_front - roof_back + 0.1, half * 1.52),
              (middle, 0, high), (roof_front - roof_back - 0.2, half * 1.36), "paint")
    )  # fmt: skip
    for x in (middle, roof_back * 0.9):
        parts.append(taper((x, 0, belt), (0.12, half * 1.89), (x, 0, high - 0.05), (0.12, half * 1.5), "paint"))
    if style == "van":  # closed sides
        parts.append(taper((-1.1, 0, belt), (1.9, half * 1.89), (-1.1, 0, high - 0.05), (1.8, half * 1.51), "paint"))
    if style == "pickup":
        parts.append(cuboid((-1.4, 0, belt - 0.02), (1.6, half * 1.5, 0.05), "plastic"))
        if rng.random() < 0.5:
            parts.append(lump((-1.35, 0, belt), (0.7, half * 0.7, 0.3), "load", rng, 0.3))
    radius = 0.33 if high < 1.6 else 0.38
    parts += _wheels((1.38, -1.35), half, radius)
    parts += _lamps(front, back, half, nose_z - 0.08, belt * 0.85)
    parts += [cuboid((front - 0.03, 0, clear + 0.2), (0.08, 1.3, 0.2), "plastic")]
    parts += [
        cuboid((hood_x - 0.1, side * (half + 0.06), belt + 0.06), (0.14, 0.16, 0.12), "paint") for side in (-1, 1)
    ]
    if style in ("estate", "suv") and rng.random() < 0.25:
        parts.append(taper((-0.7, 0, high), (1.6, 0.7), (-0.7, 0, high + 0.25), (1.3, 0.6), "plastic"))
    return merged(parts)


def _cab(front: float, length: float, height: float, hood: float) -> list[Mesh]:
    """Return a truck's cab with its face at `front`; with a bonnet if `hood` is above 0."""
    back = front - length - hood
    shape = [(back, 0.6), (front, 0.6), (front, 1.25)]
    shape += [(front - hood, 1.45)] if hood else []
    shape += [(front - hood - 0.12, height), (back, height)]
    parts = [prism(shape, [1.18] * len(shape), "paint")]
    parts.append(cuboid((front - hood - 0.03, 0, height - 0.55), (0.2, 2.1, 0.65), "glass"))
    parts.append(cuboid((front - hood - 0.5 * length, 0, height - 0.55), (0.45 * length, 2.4, 0.6), "glass"))
    parts.append(cuboid((front, 0, 0.95), (0.06, 1.6, 0.4), "plastic"))
    return parts


def _bed(rng: Random, kind: str, front: float, back: float) -> list[Mesh]:
    """Return the load bed of a truck or trailer between two x."""
    middle, length = (front + back) / 2, front - back
    if kind == "box":
        top = rng.uniform(2.7, 3.5)
        parts = [cuboid((middle, 0, (1.0 + top) / 2), (length, 2.48, top - 1.0), "panel")]
        return [*parts, cuboid((middle, 0, 1.2), (length * 0.98, 2.5, 0.12), "metal")]
    if kind == "tank":
        parts = [
            tube((back, 0, 2.0), (front, 0, 2.0), 1.05, "metal", 14),
            cuboid((middle, 0, 1.0), (length, 2.0, 0.15), "metal"),
        ]
        return [*parts, cuboid((middle, 0, 3.05), (length * 0.5, 0.5, 0.1), "plastic")]
    if kind == "flat":
        parts = [cuboid((middle, 0, 1.1), (length, 2.45, 0.18), "wood")]
        for at in np.arange(back + 0.8, front - 0.6, rng.uniform(1.2, 2.2)):
            if rng.random() < 0.75:
                high = rng.uniform(0.5, 1.7)
                colour = rng.uniform(0.05, 0.5, 3)
                parts.append(
                    coloured(cuboid((at, 0, 1.2 + high / 2), (1.1, rng.uniform(1.2, 2.3), high), "load"), colour)
                )
        return [*parts, cuboid((front - 0.05, 0, 1.9), (0.1, 2.4, 1.5), "metal")]
    parts = [
        prism(
            [(middle, 1.0), (front, 1.0), (front, 2.4), (back, 2.4), (back + 0.5, 1.1)],
            [1.0, 1.1, 1.24, 1.24, 1.1],
            "paint",
        )
    ]
    return [*parts, lump((middle, 0, 2.35), (length * 0.42, 1.05, rng.uniform(0.2, 0.6)), "load", rng, 0.15)]


def truck(rng: Random) -> Mesh:
    """Return a lorry with a box, tank, flat bed or skip."""
    kind = str(rng.choice(("box", "tank", "flat", "tipper"), p=(0.5, 0.12, 0.23, 0.15)))
    hood = float(rng.choice((0.0, 0.9), p=(0.75, 0.25)))
    front, cab = 3.5, rng.uniform(1.5, 2.1)
    parts = _cab(front, cab, rng.uniform(2.3, 2.7), hood)
    parts += _bed(rng, kind, front - cab - hood - 0.2, -3.5)
    parts.append(cuboid((0, 0, 0.75), (6.8, 0.9, 0.3), "metal"))
    parts += _wheels((2.4, -1.7, -2.8), 1.22, 0.48, 0.32) + _lamps(front, -3.5, 1.2, 0.85, 0.85, 0.18)
    return merged(parts)


def bus(rng: Random) -> Mesh:
    """Return a bus or coach, with windows along its sides."""
    high = rng.uniform(2.9, 3.5)
    shape = [(-5.5, 0.35), (5.4, 0.35), (5.5, 1.1), (5.35, high), (-5.4, high)]
    parts = [prism(shape, [1.24, 1.2, 1.22, 1.22, 1.22], "paint")]
    parts.append(cuboid((5.43, 0, high * 0.63), (0.14, 2.3, high * 0.42), "glass"))
    parts.append(coloured(cuboid((5.44, 0, high - 0.22), (0.1, 1.5, 0.24), "panel"), (0.02, 0.4, 0.6)))
    for x in np.arange(-4.7, 4.9, 1.35):
        parts.append(cuboid((x, 0, high * 0.63), (1.15, 2.5, high * 0.3), "glass"))
    for x in (4.3, 0.2):
        parts.append(cuboid((x, -0.63, 1.35), (1.1, 1.26, 1.9), "glass"))
    if rng.random() < 0.6:
        parts.append(
            coloured(
                cuboid((rng.uniform(-3, 2), 0, 1.0), (rng.uniform(2, 4), 2.5, 0.7), "panel"), rng.uniform(0.02, 0.8, 3)
            )
        )
    parts.append(taper((-1, 0, high), (4, 1.7), (-1, 0, high + 0.22), (3.6, 1.5), "panel"))
    parts += _wheels((3.4, -2.8), 1.25, 0.5, 0.3) + _lamps(5.5, -5.5, 1.25, 0.75, 0.95, 0.2)
    return merged(parts)


def trailer(rng: Random) -> Mesh:
    """Return a semi-trailer with a box, tank, flat bed or skip."""
    kind = str(rng.choice(("box", "tank", "flat", "tipper"), p=(0.6, 0.1, 0.2, 0.1)))
    parts = _bed(rng, kind, 6.0, -6.0)
    parts += [cuboid((0, 0, 0.95), (11.6, 1.0, 0.25), "metal"), cuboid((3.4, 0, 0.5), (0.2, 1.6, 1.0), "metal")]
    parts += _wheels((-2.6, -3.8, -5.0), 1.22, 0.5, 0.34)
    lamps = [cuboid((-6.0, side * 1.0, 1.0), (0.06, 0.35, 0.16), "tail") for side in (-1, 1)]
    return merged([*parts, *lamps, cuboid((-6.0, 0, 1.25), (0.04, 2.3, 0.1), "band")])


def construction_vehicle(rng: Random) -> Mesh:
    """Return an excavator, wheel loader, roller or tipper."""
    return _MACHINES[int(rng.choice(4, p=(0.4, 0.25, 0.15, 0.2)))](rng)


def _machine_cab(x: float, y: float, z: float) -> list[Mesh]:
    parts = [cuboid((x, y, z + 0.7), (1.3, 1.1, 1.4), "glass"), cuboid((x, y, z + 1.45), (1.45, 1.25, 0.12), "paint")]
    parts += [
        cuboid((x + dx, y + dy, z + 0.7), (0.1, 0.1, 1.4), "paint") for dx in (-0.65, 0.65) for dy in (-0.55, 0.55)
    ]
    return [*parts, tube((x, y, z + 1.5), (x, y, z + 1.68), 0.1, "beacon", 6)]


def _excavator(rng: Random) -> Mesh:
    parts = []
    for side in (-1, 1):
        track = [(0.0, 0.0), (1.7, 0.0), (2.0, 0.4), (1.7, 0.8), (-1.7, 0.8), (-2.0, 0.4), (-1.7, 0.0)]
        parts.append(prism(track, [0.28] * 7, "rubber").moved(_shift(-0.4, side * 1.1)))
    parts += [cuboid((-0.7, 0, 1.3), (3.0, 2.4, 0.7), "paint"), cuboid((-1.6, 0, 1.85), (1.1, 2.3, 0.6), "paint")]
    parts += [cuboid((-2.2, 0, 1.4), (0.1, 2.2, 0.4), "band"), *_machine_cab(0.2, 0.6, 1.6)]
    elbow = np.array([rng.uniform(2.0, 3.0), -0.4, rng.uniform(2.7, 4.2)])
    hand = np.array([elbow[0] + rng.uniform(0.3, 1.7), -0.4, rng.uniform(0.7, 2.0)])
    parts += [tube((0.6, -0.4, 1.5), elbow, 0.22, "paint", 6), tube(elbow, hand, 0.17, "paint", 6)]
    parts.append(taper(hand - (0, 0, 0.6), (0.5, 0.9), hand, (0.9, 1.0), "metal"))
    return merged(parts)


def _loader(rng: Random) -> Mesh:
    parts = [cuboid((-1.4, 0, 1.4), (2.4, 1.7, 0.9), "paint"), cuboid((0.9, 0, 1.1), (1.4, 1.2, 0.6), "paint")]
    parts += [*_machine_cab(-0.3, 0, 1.6), *_wheels((1.2, -1.6), 1.2, 0.75, 0.5)]
    lift = rng.uniform(0.6, 2.2)
    parts += [tube((0.8, side * 0.5, 1.4), (2.6, side * 0.5, lift), 0.13, "paint", 6) for side in (-1, 1)]
    bucket = [(2.5, lift - 0.5), (3.6, lift - 0.5), (2.9, lift + 0.5), (2.5, lift + 0.4)]
    return merged([*parts, prism(bucket, [1.3] * 4, "metal"), cuboid((-2.6, 0, 1.2), (0.08, 1.6, 0.3), "band")])


def _roller(rng: Random) -> Mesh:
    drums = [tube((x, -0.9, 0.65), (x, 0.9, 0.65), 0.65, "metal", 12) for x in (-1.6, 1.6)]
    body = prism([(-2.0, 0.9), (2.0, 0.9), (2.1, 1.4), (0.6, 1.6), (-2.1, 1.7)], [0.8] * 5, "paint")
    return merged([*drums, body, *_machine_cab(-0.3, 0, 1.6)])


def _tipper(rng: Random) -> Mesh:
    """Return a tipper: a truck's shape that its colour, beacon and stripes tell from a truck."""
    parts = [*_cab(3.2, 1.6, 2.5, 0.0), *_bed(rng, "tipper", 1.4, -3.2), cuboid((0, 0, 0.75), (6.2, 0.9, 0.3), "metal")]
    parts += [tube((2.5, 0, 2.5), (2.5, 0, 2.7), 0.12, "beacon", 6), cuboid((-3.22, 0, 1.2), (0.04, 2.2, 0.3), "band")]
    return merged([*parts, *_wheels((2.2, -1.3, -2.4), 1.22, 0.52, 0.34), *_lamps(3.2, -3.2, 1.2, 0.85, 0.85, 0.18)])


def _shift(x: float, y: float) -> NDArray[np.float64]:
    shift = np.eye(4)
    shift[:2, 3] = x, y
    return shift


_MACHINES = (_excavator, _loader, _roller, _tipper)
