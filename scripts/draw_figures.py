#!/usr/bin/env python3
# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Draw the figures of docs/how_aqr_works.md from a simulated scene and the shipped weights of aqr_tiny.

Run it after a change of the shipped weights. The same code and weights give the same figures.
"""

import argparse
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from numpy.typing import NDArray
from PIL import Image

from aqr_perception.data.corruption import lidar_corruption
from aqr_perception.data.sources.simulated import TRAINING_WORLD, accumulated_sweeps
from aqr_perception.detector import Detector
from aqr_perception.evaluation.scenarios import BEAM_ELEVATIONS
from aqr_perception.frame import CameraView, Frame, Result
from aqr_perception.geometry import project, transform_points
from aqr_perception.models.config.presets import load_preset
from aqr_perception.models.weights.shipped import choose_weights
from aqr_perception.options import AqrOptions, DetectionOptions
from aqr_perception.simulator.drive import draw_drive
from aqr_perception.simulator.rig import nuscenes_rig
from aqr_perception.visualization.bev_picture import bev_picture
from aqr_perception.visualization.picture_options import PictureOptions

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "figures"
SOURCE = "source.json"
PRESET, SCENE, CAMERA = "aqr_tiny", 5004, "front"
SECONDS = 10.0
PICTURE = (704, 256)
LIDAR_COLOUR, CAMERA_COLOUR, ROUTER_COLOUR = "#d1780a", "#2a6fbb", "#2f8f46"


def conditions(frame: Frame) -> dict[str, Frame]:
    """Return the scene with all sensors and with three failures."""
    views = tuple(
        replace(view, image=np.zeros_like(view.image)) if view.name == CAMERA else view for view in frame.cameras
    )
    assert frame.points is not None
    few = lidar_corruption.beams_nearest(frame.points, BEAM_ELEVATIONS).points
    return {
        "all sensors": frame,
        f"{CAMERA} camera black": replace(frame, cameras=views),
        "4 of 32 beams": replace(frame, points=few),
        "no LiDAR": replace(frame, points=None),
    }


class Scene(NamedTuple):
    """The scene in each condition, with the results of the detector."""

    frames: Mapping[str, Frame]
    results: Mapping[str, Result]
    without_aqr: Mapping[str, Result]

    @property
    def view(self) -> CameraView:
        """The camera that fails."""
        return next(view for view in self.frames["all sensors"].cameras if view.name == CAMERA)

    def ahead(self, result: Result) -> NDArray[np.intp]:
        """Return the detections whose query the failing camera sees."""
        assert result.queries is not None
        view = self.view
        pixels, depths = project(
            view.intrinsics, transform_points(view.extrinsics, result.queries.points.astype(float))
        )
        height, width = view.image.shape[:2]
        seen = ((pixels >= 0) & (pixels < (width, height))).all(axis=1) & (depths > 1.0)
        return np.flatnonzero(seen)


def detected_scene() -> Scene:
    """Return the scene with its results, with and without AQR."""
    sweeps, interval = accumulated_sweeps(load_preset(PRESET))
    rig = nuscenes_rig(PICTURE)
    drive = draw_drive(SCENE, 20.0, rig, TRAINING_WORLD, sweeps=sweeps, sweep_interval=interval)
    labelled = drive.frame(SECONDS)
    frames = conditions(labelled.frame)
    detector = Detector(PRESET, device="cpu", precision="fp32")
    on = DetectionOptions(attention=True)
    off = DetectionOptions(attention=True, aqr=AqrOptions.of_model("off"))
    results = {name: detector.detect(frame, on) for name, frame in frames.items()}
    return Scene(frames, results, {name: detector.detect(frame, off) for name, frame in frames.items()})


def draw_flow(_: Scene) -> Figure:
    """Return the diagram of a frame's way through the model."""
    figure = Figure(figsize=(9.0, 3.0), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 18), ylim=(0, 6))
    axes.axis("off")

    def box(x: float, y: float, width: float, text: str, colour: str) -> None:
        axes.add_patch(
            FancyBboxPatch((x, y), width, 1.2, "round,pad=0.1", facecolor=colour, alpha=0.18, edgecolor="0.3")
        )
        axes.text(x + width / 2, y + 0.6, text, ha="center", va="center", fontsize=9)

    def arrow(start: tuple[float, float], end: tuple[float, float]) -> None:
        axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "0.3"})

    box(0.2, 4.6, 3.4, "LiDAR branch:\ntokens from above", LIDAR_COLOUR)
    box(0.2, 2.5, 3.4, "image branch:\ntokens of each camera", CAMERA_COLOUR)
    box(0.2, 0.4, 3.4, "queries: a point in\nspace for each object", "0.5")
    box(6.6, 1.4, 3.4, "router: looks at tokens\nnear the query's point", ROUTER_COLOUR)
    box(11.6, 3.5, 3.0, "decoder: queries\nattend to tokens", "0.5")
    box(15.6, 3.5, 2.2, "boxes,\nclasses", "0.5")
    arrow((3.7, 5.2), (11.5, 4.5))
    arrow((3.7, 3.1), (11.5, 4.1))
    arrow((3.7, 5.0), (6.6, 2.7))
    arrow((3.7, 2.9), (6.5, 2.2))
    arrow((3.7, 1.1), (6.5, 1.8))
    arrow((10.1, 2.1), (12.2, 3.4))
    arrow((14.7, 4.1), (15.5, 4.1))
    axes.plot((3.7, 13.6), (0.8, 0.8), color="0.3", lw=1)
    arrow((13.6, 0.8), (13.6, 3.4))
    axes.text(7.4, 0.9, "queries", fontsize=8)
    axes.text(10.2, 2.9, "weights", fontsize=8, ha="left")
    return figure


def draw_windows(scene: Scene) -> Figure:
    """Return the windows of one query in the camera's picture and from above."""
    result, view = scene.results["all sensors"], scene.view
    chosen = _chosen(scene, result)
    assert result.queries is not None and result.weight_maps.bev is not None
    point = result.queries.points[chosen]
    trained = load_preset(PRESET).aqr
    figure = Figure(figsize=(9.0, 3.3), layout="constrained")
    camera, above = figure.subplots(1, 2, width_ratios=[2.2, 1])

    camera.imshow(cv2.cvtColor(view.image, cv2.COLOR_BGR2RGB))
    weights = result.weight_maps.cameras[CAMERA]
    pixel = project(view.intrinsics, transform_points(view.extrinsics, point[None].astype(float)))[0][0]
    cell = 1 / abs(weights.image_to_map[0, 0]), 1 / abs(weights.image_to_map[1, 1])
    _windows(camera, pixel, cell, trained.router_image_window, trained.image_window)
    camera.set(
        title=f"camera {CAMERA}, windows of a query", xticks=[], yticks=[], xlim=(0, PICTURE[0]), ylim=(PICTURE[1], 0)
    )

    points = scene.frames["all sensors"].points
    assert points is not None
    above.scatter(points[:, 0], points[:, 1], s=0.3, color="0.55", linewidths=0)
    rows, columns = result.weight_maps.bev.shape
    x_min, y_min, x_max, y_max = result.weight_maps.bev_range
    step = (x_max - x_min) / columns, (y_max - y_min) / rows
    _windows(above, point[:2], step, trained.router_bev_window, trained.bev_window)
    above.set(
        title="from above", aspect="equal", xlabel="x forward (m)", ylabel="y left (m)",
        xlim=(-5, point[0] + 20), ylim=(point[1] - 15, point[1] + 15),
    )  # fmt: skip
    above.legend(loc="upper left", fontsize=7)
    return figure


def _windows(axes: Axes, at: NDArray[Any], cell: tuple[float, float], router: int, bias: int) -> None:
    kinds = (("the router looks here", router, ROUTER_COLOUR, "-"), ("the weight acts here", bias, "#b01030", "--"))
    for label, cells, colour, line in kinds:
        width, height = cells * cell[0], cells * cell[1]
        corner = (at[0] - width / 2, at[1] - height / 2)
        axes.add_patch(
            Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=2, linestyle=line, label=label)
        )
    axes.plot(*at[:2], "x", color="#b01030")


def _chosen(scene: Scene, result: Result) -> int:
    """Return the detection nearest to the middle of the picture that is 10 m to 20 m away."""
    assert result.queries is not None
    view, ahead = scene.view, scene.ahead(result)
    distances = np.hypot(*result.detections.boxes[ahead, :2].T)
    points = transform_points(view.extrinsics, result.queries.points[ahead].astype(float))
    aside = abs(project(view.intrinsics, points)[0][:, 0] - PICTURE[0] / 2)
    return int(ahead[np.where((distances >= 10.0) & (distances <= 20.0), aside, np.inf).argmin()])


def draw_trust(scene: Scene) -> Figure:
    """Return the trust in LiDAR or cameras from above, in three conditions."""
    names = ("all sensors", f"{CAMERA} camera black", "no LiDAR")
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names)), names, strict=True):
        result, frame = scene.results[name], scene.frames[name]
        picture = bev_picture(
            result.weight_maps, frame.points, result.detections, size=500, options=PictureOptions(view="trust")
        )
        axes.imshow(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
        axes.set(title=name, xticks=[], yticks=[])
    return figure


def draw_weights(scene: Scene) -> Figure:
    """Return the weights of the objects ahead, and their attention, in each condition."""
    figure = Figure(figsize=(9.0, 3.2), layout="constrained")
    weights, attention = figure.subplots(1, 2)
    names = list(scene.frames)
    camera = [view.name for view in scene.frames["all sensors"].cameras].index(CAMERA)
    kinds = (("LiDAR", LIDAR_COLOUR, -0.18), (f"camera {CAMERA}", CAMERA_COLOUR, 0.18))
    for place, name in enumerate(names):
        result, plain = scene.results[name], scene.without_aqr[name]
        ahead, plain_ahead = scene.ahead(result), scene.ahead(plain)
        of = (result.detections.lidar_weight[ahead], result.detections.camera_weights[ahead, camera])
        for (label, colour, shift), values in zip(kinds, of, strict=True):
            weights.bar(place + shift, values.mean(), 0.34, color=colour, alpha=0.4, label=label if not place else None)
            weights.plot(np.full(len(values), place + shift), values, ".", color=colour)
        on, off = _attention(result, ahead)[:, 0], _attention(plain, plain_ahead)[:, 0]
        for values, shift, shade, label in ((off, -0.18, "0.6", "AQR off"), (on, 0.18, LIDAR_COLOUR, "AQR on")):
            attention.bar(place + shift, values.mean(), 0.34, color=shade, label=label if not place else None)
    weights.set(title="weights of the objects ahead", ylim=(0, 1.3))
    attention.set(title="share of attention on the LiDAR, mean", ylim=(0, 1.3))
    for axes in (weights, attention):
        axes.set_yticks(np.linspace(0, 1, 6))
        axes.set_xticks(range(len(names)), [name.replace(" ", "\n", 1) for name in names], fontsize=8)
        axes.legend(fontsize=8, ncols=2, loc="upper center")
    return figure


def _attention(result: Result, chosen: NDArray[np.intp]) -> NDArray[np.float32]:
    assert result.queries is not None and result.queries.attention is not None
    return result.queries.attention[chosen]


FIGURES: Mapping[str, Callable[[Scene], Figure]] = {
    "aqr_flow.png": draw_flow,
    "aqr_windows.png": draw_windows,
    "aqr_trust.png": draw_trust,
    "aqr_weights.png": draw_weights,
}


def weights_hash() -> str:
    """Return the SHA-256 of the shipped weights."""
    path = choose_weights(PRESET, None).path
    assert path is not None
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG with 256 colours, which is a third of the size."""
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110)
    Image.open(picture).convert("RGB").quantize(256).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder (default: docs/figures)")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    scene = detected_scene()
    for name, draw in FIGURES.items():
        save(draw(scene), options.output / name)
    source = {"preset": PRESET, "scene": SCENE, "weights_sha256": weights_hash()}
    (options.output / SOURCE).write_text(json.dumps(source, indent=2) + "\n")


if __name__ == "__main__":
    main()
