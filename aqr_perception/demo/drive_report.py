"""The demo's report: one HTML file that tells how a drive with failing sensors went."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2

from aqr_perception.demo.figures import counted, found
from aqr_perception.demo.pictures import FOUND_COLOUR, MISSED_COLOUR, bird_view
from aqr_perception.demo.played import PlayedDrive
from aqr_perception.demo.plots import svg, timeline_figure
from aqr_perception.demo.recording import RING, Answer
from aqr_perception.visualization import html_page as html
from aqr_perception.visualization.colours import CAMERA_COLOUR, LIDAR_COLOUR

MEANINGLESS = "Random weights: these detections and weights mean nothing."


def write_report(path: Path, drive: PlayedDrive, facts: Sequence[str] = ()) -> None:
    """Write the report.

    Args:
        facts: how the drive was played, a sentence each.
    """
    schedule = "; ".join(f"{failure} from {failure.begin:g} s to {failure.end:g} s" for failure in drive.failures)
    subject = f"A simulated drive of {drive.seconds:g} s, played into the running node. Failures: {schedule or 'none'}."
    body = [
        html.element("h1", "A drive with failing sensors"),
        html.element("p", html.text(subject), class_="soft"),
        html.element("p", html.text(f"Model: {drive.recording.model}."), class_="soft"),
    ]
    if not drive.recording.trained:
        body.append(html.element("div", html.text(f"{MEANINGLESS} Give weights to see AQR at work."), class_="warning"))
    plots = timeline_figure(drive.course, drive.failures, drive.seconds, (12.0, 7.0))
    body += [
        html.tiles(drive.summary.lines()),
        html.element("h2", "The course of things"),
        html.element("div", svg(plots), class_="card"),
        html.element("p", html.text(_READING), class_="soft"),
        html.element("h2", "Moments"),
        _legend(),
        *(_moment(drive, moment, answer) for moment, answer in chosen(drive).items()),
        html.element("h2", "How it was made"),
        *(html.element("p", html.text(fact)) for fact in facts),
    ]
    path.write_text(html.page("aqr_perception: a drive with failing sensors", body), encoding="utf-8")


_READING = (
    "Weights of detections: mean over a frame's detections, each counted by its score; a camera's own weight, over the "
    "detections that it looks at. Mean of the maps: dark rows are sensors that the model does not trust, grey where "
    "there was no map. Objects found: share of the true objects within nuScenes' range of their class, and hit by the "
    "LiDAR when it works, that a detection of the same class lies within 2 m of."
)


def chosen(drive: PlayedDrive) -> dict[int, Answer]:
    """Return the answers to show, by moment: just before the first failure, twice in each one, and after the last."""
    ordered = sorted(drive.failures, key=lambda failure: failure.begin)
    wanted = [ordered[0].begin - 0.4] if ordered else [drive.seconds / 2]
    for failure in ordered:
        wanted += [failure.begin + share * (failure.end - failure.begin) for share in (0.4, 0.8)]
    if ordered:
        wanted.append((ordered[-1].end + drive.seconds) / 2)
    answers = drive.answers_by_moment()

    def away(moment: int, seconds: float) -> float:
        return abs(drive.truth.seconds(answers[moment].stamp_ns) - seconds)

    nearest = {min(answers, key=partial(away, seconds=seconds)) for seconds in wanted if answers}
    return {moment: answers[moment] for moment in sorted(nearest)}


def _moment(drive: PlayedDrive, moment: int, answer: Answer) -> str:
    seconds = drive.truth.seconds(answer.stamp_ns)
    states, cameras = drive.failing(seconds), drive.truth.cameras
    objects = drive.truth.moments[moment]
    counts, hit = counted(objects), found(answer.detections, objects)
    others = [name for name in cameras if name not in RING]
    ring = [
        html.figure(
            answer.pictures.get(name),
            f"{name}: {states[name].effect}" if name in states else name,
            failed=name in states,
            missing=answer.left_out.get(name, "no picture"),
        )
        for name in (*RING, *others)
        if name in cameras
    ]
    without = "lidar" in answer.left_out
    caption = f"from above; LiDAR left out: {answer.left_out['lidar']}" if without else "from above; ahead is right"
    jpeg = cv2.imencode(".jpg", bird_view(answer, objects, drive.bev_range), (cv2.IMWRITE_JPEG_QUALITY, 88))[
        1
    ].tobytes()
    told = f"{len(answer.detections)} detections; {(counts & hit).sum()} of {counts.sum()} objects found"
    return html.element(
        "div",
        html.element("h3", html.text(f"{seconds:.1f} s: {drive.state(seconds)}")),
        html.element("p", html.text(told), class_="soft"),
        html.element(
            "div",
            html.element("div", *ring, class_="ring"),
            html.figure(jpeg, caption, failed=without),
            class_="moment",
        ),
        class_="card",
    )


def _legend() -> str:
    def css(colour: tuple[int, int, int]) -> str:
        return "rgb({}, {}, {})".format(*colour)

    boxes = {
        css(LIDAR_COLOUR): "detection that the LiDAR carries",
        css(CAMERA_COLOUR): "that cameras carry",
        css(FOUND_COLOUR): "true object, found",
        css(MISSED_COLOUR): "true object, missed",
    }
    heat = "The brighter the heat map, the more the evidence at that place is trusted: black is 0, yellow 1.5."
    return html.legend(boxes) + html.element("p", html.text(heat), class_="soft")
