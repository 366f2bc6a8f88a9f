# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""An inspection as a self-contained HTML page: problems, the TF tree as a picture, and the text report."""

from collections import defaultdict
from collections.abc import Iterable

from aqr_perception.inspection.assessment import Inspection
from aqr_perception.inspection.finding import SEVERITIES
from aqr_perception.inspection.reports.text_report import text_report
from aqr_perception.inspection.reports.tf_picture import tf_picture
from aqr_perception.visualization.html_page import element, page, text, tiles

_CELLS = "td, th { text-align: left; vertical-align: top; padding: 4px 12px 4px 0 }"
_STYLE = f"<style>{_CELLS} pre {{ font-size: 13px; white-space: pre-wrap }}</style>"
_MEANINGS = {"stops": "the node cannot run it", "loses": "the node leaves data out", "odd": "odd, the node goes on"}


def sensor_frames(found: Inspection) -> dict[str, str]:
    """Return the sensors measured in each TF frame: the chosen ones, and unusable cameras."""
    sensors: dict[str, list[str]] = defaultdict(list)
    for topic in found.choice.lidars:
        sensors[topic.frame].append(topic.name)
    for one in found.choice.cameras:
        sensors[one.camera.frame].append(one.camera.image.name)
    for camera in found.choice.unusable:
        sensors[camera.frame].append(camera.image.name)
    return {frame: ", ".join(topics) for frame, topics in sensors.items() if frame}


def report_page(found: Inspection) -> str:
    """Return the HTML document."""
    counts = {severity: sum(one.severity == severity for one in found.findings) for severity in SEVERITIES}
    figures = [("runs with the node", "yes" if found.runs else "no")]
    figures += [("LiDARs", str(len(found.lidars))), ("cameras", str(len(found.cameras)))]
    figures += [(_MEANINGS[severity], str(count)) for severity, count in counts.items() if count]
    rows = (element("tr", *(element("td", text(cell)) for cell in _row)) for _row in _rows(found))
    heads = element("tr", *(element("th", name) for name in ("", "where", "problem", "found", "needed", "remedy")))
    problems = (
        element("div", element("table", heads, *rows), class_="card") if found.findings else element("p", "None.")
    )
    title = text(f"Inspection of {found.source}")
    body = [
        _STYLE, element("h1", title), tiles(figures), element("h2", "Problems"), problems,
        element("h2", "TF tree"), element("div", tf_picture(found.tree, sensor_frames(found)), class_="card"),
        element("h2", "Report"), element("div", element("pre", text("\n".join(text_report(found)))), class_="card"),
    ]  # fmt: skip
    return page(f"Inspection of {found.source}", body)


def _rows(found: Inspection) -> Iterable[tuple[str, ...]]:
    for one in found.findings:
        yield _MEANINGS[one.severity], one.subject, one.problem, one.found, one.needed, one.remedy
