"""HTML report of a drive with failing sensors."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
from matplotlib.figure import Figure

from aqr_perception.demo.drive_metrics import detected_objects, evaluated_objects
from aqr_perception.demo.pictures import DETECTED_COLOUR, MISSED_COLOUR, bev_with_truth
from aqr_perception.demo.plots import svg, timeline_figure
from aqr_perception.demo.recorded_drive import RecordedDrive
from aqr_perception.demo.recording import CAMERA_GRID, FrameRecord
from aqr_perception.demo.truth import TrueObjects
from aqr_perception.visualization import html_page as html
from aqr_perception.visualization.colours import CAMERA_COLOUR, LIDAR_COLOUR

RANDOM_WEIGHTS_WARNING = "Random weights: these detections and weights are meaningless."

_PLOT_NOTES = (
    "Weight of detections: mean over a frame's detections, weighted by score; a camera's weight is the mean over the "
    "detections in its view. Mean of the maps: one row per sensor; {maps}, grey means no map. "
    "Recall: share of the true objects with a detection of the same class within 2 m. Only objects within nuScenes' "
    "range of their class that the intact LiDAR hits are evaluated."
)
_MAPS = "dark means little trust"
_SIGNED_MAPS = "blue means a suppressed sensor, black a neutral one, red a trusted one"

_HEAT_MAP_NOTE = (
    "Colours on the ground and in the images: the weight of the sensor for the objects there, violet 0 to yellow 1; "
    "the fainter, the lower the score. No query, no colour."
)
_SIGNED_HEAT_MAP_NOTE = (
    "Colours on the ground and in the images: the weight of the sensor for the objects there, blue -1 (suppressed), "
    "grey 0 (neutral), red +1 (trusted); the fainter, the lower the score. No query, no colour."
)


def write_report(path: Path, drive: RecordedDrive, notes: Sequence[str] = ()) -> None:
    """Write the report as a single HTML file.

    Args:
        notes: sentences about the playback.
    """
    signed = drive.recording.signed
    body = [
        html.element("h1", "A drive with failing sensors"),
        *_introduction(drive),
        html.tiles(drive.summary.lines()),
        html.element("h2", "Timeline"),
        html.element("div", svg(_plots(drive)), class_="card"),
        html.element("p", html.text(_PLOT_NOTES.format(maps=_SIGNED_MAPS if signed else _MAPS)), class_="soft"),
        html.element("h2", "Selected frames"),
        _legend(signed),
        *(_frame_card(drive, drive.truth.sweeps[index], frame) for index, frame in selected_frames(drive).items()),
        html.element("h2", "How this report was made"),
        *(html.element("p", html.text(note)) for note in notes),
    ]
    path.write_text(html.page("aqr_perception: a drive with failing sensors", body), encoding="utf-8")


def selected_frames(drive: RecordedDrive) -> dict[int, FrameRecord]:
    """Return the frames to show, by sweep index: before the first failure, two during each, after the last."""
    frames = drive.frames_by_sweep()

    def distance(index: int, seconds: float) -> float:
        return abs(drive.truth.seconds(frames[index].stamp_ns) - seconds)

    nearest = {min(frames, key=partial(distance, seconds=seconds)) for seconds in _selected_times(drive) if frames}
    return {index: frames[index] for index in sorted(nearest)}


def _selected_times(drive: RecordedDrive) -> list[float]:
    failures = sorted(drive.failures, key=lambda failure: failure.begin)
    if not failures:
        return [drive.seconds / 2]
    during = [failure.begin + share * (failure.end - failure.begin) for failure in failures for share in (0.4, 0.8)]
    return [failures[0].begin - 0.4, *during, (failures[-1].end + drive.seconds) / 2]


def _introduction(drive: RecordedDrive) -> list[str]:
    schedule = "; ".join(f"{failure} from {failure.begin:g} s to {failure.end:g} s" for failure in drive.failures)
    subject = f"A simulated drive of {drive.seconds:g} s, played into the running node. Failures: {schedule or 'none'}."
    paragraphs = [
        html.element("p", html.text(subject), class_="soft"),
        html.element("p", html.text(f"Model: {drive.recording.model}."), class_="soft"),
    ]
    if not drive.recording.trained:
        remedy = "Run the demo with trained weights (--checkpoint) to see AQR at work."
        paragraphs.append(html.element("div", html.text(f"{RANDOM_WEIGHTS_WARNING} {remedy}"), class_="warning"))
    return paragraphs


def _plots(drive: RecordedDrive) -> Figure:
    return timeline_figure(drive.timeline, drive.failures, drive.seconds, (12.0, 7.0))


def _frame_card(drive: RecordedDrive, truth: TrueObjects, frame: FrameRecord) -> str:
    seconds = drive.truth.seconds(frame.stamp_ns)
    evaluated, detected = evaluated_objects(truth), detected_objects(frame.detections, truth)
    counts = f"{len(frame.detections)} detections; {(evaluated & detected).sum()} of {evaluated.sum()} objects detected"
    return html.element(
        "div",
        html.element("h3", html.text(f"{seconds:.1f} s: {drive.sensor_state(seconds)}")),
        html.element("p", html.text(counts), class_="soft"),
        html.element(
            "div",
            html.element("div", *_camera_figures(drive, frame), class_="cameras"),
            _bev_figure(drive, truth, frame),
            class_="frame",
        ),
        class_="card",
    )


def _camera_figures(drive: RecordedDrive, frame: FrameRecord) -> list[str]:
    failures, cameras = drive.active_failures(drive.truth.seconds(frame.stamp_ns)), drive.truth.cameras
    names = [name for name in CAMERA_GRID if name in cameras] + [name for name in cameras if name not in CAMERA_GRID]
    return [
        html.figure(
            frame.pictures.get(name),
            f"{name}: {failures[name].effect}" if name in failures else name,
            failed=name in failures,
            missing=frame.unused.get(name, "no picture"),
        )
        for name in names
    ]


def _bev_figure(drive: RecordedDrive, truth: TrueObjects, frame: FrameRecord) -> str:
    picture = bev_with_truth(frame, truth, drive.bev_range)
    jpeg = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, 88))[1].tobytes()
    failed = "lidar" in frame.unused
    caption = f"from above; LiDAR not used: {frame.unused['lidar']}" if failed else "from above; ahead is right"
    return html.figure(jpeg, caption, failed=failed)


def _legend(signed: bool) -> str:
    boxes = {
        _css(LIDAR_COLOUR): "detection supported by the LiDAR",
        _css(CAMERA_COLOUR): "detection supported by cameras",
        _css(DETECTED_COLOUR): "true object, detected",
        _css(MISSED_COLOUR): "true object, missed",
    }
    note = _SIGNED_HEAT_MAP_NOTE if signed else _HEAT_MAP_NOTE
    return html.legend(boxes) + html.element("p", html.text(note), class_="soft")


def _css(colour: tuple[int, int, int]) -> str:
    return "rgb({}, {}, {})".format(*colour)
