"""Recognition of the layout of a folder of recorded data."""

from pathlib import Path

from aqr_perception.data.recordings.keyframes import keyframe_folders, read_keyframes
from aqr_perception.data.recordings.nuscenes_scene import nuscenes_versions, read_nuscenes_scene
from aqr_perception.data.recordings.recording import Recording, RecordingError

LAYOUTS = "nuScenes tables (a folder with v1.0-*/scene.json), keyframe folders (keyframe.json)"


def open_recording(folder: Path, scene: str | None = None, version: str | None = None) -> Recording:
    """Return the recording in a folder of any known layout.

    Args:
        scene: name of the scene, for layouts with several.
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
    raise RecordingError(f"{folder}: found no known layout, needed one of: {LAYOUTS}")
