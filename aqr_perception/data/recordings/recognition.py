# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Recognition of the layout of a folder of recorded data."""

from pathlib import Path

from aqr_perception.data.recordings.dgp_scene import read_dgp_scene, scene_files
from aqr_perception.data.recordings.keyframes import keyframe_folders, read_keyframes
from aqr_perception.data.recordings.kitti_raw import SWEEPS, is_kitti_raw, read_kitti_raw
from aqr_perception.data.recordings.nuscenes_scene import nuscenes_versions, read_nuscenes_scene
from aqr_perception.data.recordings.recorded_data import Recording, RecordingError

LAYOUTS = (
    "nuScenes tables (a folder with v1.0-*/scene.json), a drive of KITTI raw (a folder with "
    f"{SWEEPS}), a DGP scene such as DDAD's (scene_*.json), or keyframes (keyframe.json)"
)


def open_recording(folder: Path, scene: str | None = None, version: str | None = None) -> Recording:
    """Return the recording in a folder of any known layout.

    Args:
        scene: name of the scene, for layouts with several: nuScenes' or a DGP scene's folder.
        version: folder of the tables, for nuScenes.

    Raises:
        RecordingError: the folder does not exist, has no known layout, or its data is broken.
    """
    if not folder.exists():
        raise RecordingError(f"{folder}: found no such file or folder, needed recorded data: {LAYOUTS}")
    if folder.is_dir() and keyframe_folders(folder):
        return read_keyframes(folder)
    if folder.is_dir() and nuscenes_versions(folder):
        return read_nuscenes_scene(folder, scene, version)
    if is_kitti_raw(folder):
        return read_kitti_raw(folder)
    if (folder.is_file() and folder.match("scene_*.json")) or (folder.is_dir() and scene_files(folder)):
        return read_dgp_scene(folder, scene)
    raise RecordingError(f"{folder}: found no known layout, needed one of: {LAYOUTS}")
