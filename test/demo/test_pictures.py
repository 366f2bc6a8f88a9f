# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Pictures of a drive show the ground truth in its place."""

import dataclasses

import numpy as np
from helpers.recorded_drives import boxes_at, recorded_drive, truth_at

from aqr_perception.demo.pictures import DETECTED_COLOUR, MISSED_COLOUR, FilmFrames, bev_with_truth
from aqr_perception.demo.recording import BEV, Recording


def test_true_objects_are_green_if_detected_and_magenta_if_missed() -> None:
    drive = recorded_drive()
    frame = drive.recording.frames[0]
    truth = truth_at(0, np.concatenate([boxes_at((10.0, 0.0)), boxes_at((-20.0, -30.0))]))
    picture = bev_with_truth(frame, truth, drive.bev_range).astype(int)
    for centre, colour in (((10.0, 0.0), DETECTED_COLOUR), ((-20.0, -30.0), MISSED_COLOUR)):
        scale = picture.shape[1] / 102.4
        column, row = round((centre[0] + 51.2) * scale), round((51.2 - centre[1]) * scale)
        around = picture[row - 8 : row + 9, column - 8 : column + 9, ::-1]
        assert np.abs(around - colour).sum(axis=-1).min() < 60


def test_without_lidar_the_birds_eye_view_shows_detections_on_black() -> None:
    drive = recorded_drive()
    frame = next(frame for frame in drive.recording.frames if BEV not in frame.pictures)
    picture = bev_with_truth(frame, truth_at(0, boxes_at()), drive.bev_range)
    assert picture.shape[0] == picture.shape[1] and picture.any()


def test_a_film_frame_is_drawn_for_every_sweep_with_or_without_detections() -> None:
    drive = recorded_drive(sweeps=6)
    complete = list(FilmFrames(drive))
    fewer = dataclasses.replace(drive, recording=Recording(drive.recording.frames[1:], "", True))
    assert len(complete) == 6 and all(picture.shape == (720, 1280, 3) for picture in complete)
    empty = FilmFrames(fewer).draw(0)
    assert (empty[60:160, 100:300] == 24).all() and (complete[0][60:160, 100:300] != 24).any()
