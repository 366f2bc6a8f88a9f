# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""An inspection as values for other programs."""

import dataclasses
import math
from typing import Any

from aqr_perception.inspection.assessment import Inspection

_HIDDEN = ("sweeps", "findings")


def json_report(found: Inspection) -> dict[str, Any]:
    """Return the inspection as dictionaries, lists, texts and numbers; unknown numbers are null."""
    topics = {}
    for name, topic in sorted(found.heard.topics.items()):
        entry: dict[str, Any] = {"type": topic.type, "messages": topic.count, "read": len(topic.recorded)}
        entry |= {"frame": topic.frame, "errors": topic.errors}
        if name in found.rates:
            rate = found.rates[name]
            entry |= {"hertz": rate.hertz, "period": rate.period, "gaps": rate.gaps, "longest_gap": rate.longest_gap}
        if name in found.offsets:
            entry["stamps"] = dataclasses.asdict(found.offsets[name])
        if name in found.clouds:
            entry["cloud"] = _plain(found.clouds[name])
        topics[name] = entry
    frames = _plain(found.frames)
    cameras = {
        one.name: {
            "image_topic": one.camera.image.name,
            "info_topic": one.camera.info.name if one.camera.info else "",
            "encoding": one.camera.encoding,
            "size": one.camera.size,
            "rectified": one.camera.rectified,
            "frame": one.camera.frame,
            "calibration": dataclasses.asdict(one.camera.calibration),
        }
        for one in found.choice.cameras
    }
    report = {
        "source": found.source,
        "runs": found.runs,
        "sampling": found.sampling,
        "topics": topics,
        "tf": {
            "trees": list(found.tree.roots),
            "edges": [
                {
                    "parent": edge.parent,
                    "child": edge.child,
                    "static": edge.static,
                    "hertz": edge.rate.hertz if edge.rate else math.nan,
                    "longest_gap": edge.rate.longest_gap if edge.rate else math.nan,
                }
                for edge in found.tree.edges
            ],
        },
        "cameras": cameras,
        "unusable_cameras": [camera.image.name for camera in found.choice.unusable],
        "used_cameras": [one.name for one in found.cameras],
        "lidars": [topic.name for topic in found.lidars],
        "frames": frames,
        "times": {name: dataclasses.asdict(time) for name, time in found.times.items()},
        "notes": list(found.choice.notes),
        "findings": [dataclasses.asdict(one) for one in found.findings],
    }
    values: dict[str, Any] = _without_nan(report)
    return values


def _plain(entry: Any) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(entry) if field.name not in _HIDDEN]
    return {name: getattr(entry, name) for name in names}


def _without_nan(value: Any) -> Any:
    """Return values without NaN and infinity, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
