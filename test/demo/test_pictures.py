"""Pictures of moments show the truth in its place."""

import dataclasses

import numpy as np
from helpers.played_drives import boxes, played, truth_at

from aqr_perception.demo.pictures import FOUND_COLOUR, MISSED_COLOUR, Sheets, bird_view
from aqr_perception.demo.recording import BEV, Recording


def test_true_objects_are_drawn_where_they_are_green_if_found_and_magenta_if_missed() -> None:
    drive = played()
    answer = drive.recording.answers[0]
    truth = truth_at(0, np.concatenate([boxes((10.0, 0.0)), boxes((-20.0, -30.0))]))
    picture = bird_view(answer, truth, drive.bev_range).astype(int)
    for centre, colour in (((10.0, 0.0), FOUND_COLOUR), ((-20.0, -30.0), MISSED_COLOUR)):
        scale = picture.shape[1] / 102.4
        column, row = round((centre[0] + 51.2) * scale), round((51.2 - centre[1]) * scale)
        around = picture[row - 8 : row + 9, column - 8 : column + 9, ::-1]
        assert np.abs(around - colour).sum(axis=-1).min() < 60


def test_without_lidar_the_bird_view_shows_the_detections_alone() -> None:
    drive = played()
    blind = next(answer for answer in drive.recording.answers if BEV not in answer.pictures)
    picture = bird_view(blind, None, drive.bev_range)
    assert picture.shape[0] == picture.shape[1] and picture.any()


def test_a_sheet_is_drawn_for_every_moment_and_an_unanswered_one_says_so() -> None:
    drive = played(moments=6)
    whole = list(Sheets(drive))
    fewer = dataclasses.replace(drive, recording=Recording(drive.recording.answers[1:], "", True))
    assert len(whole) == 6 and all(sheet.shape == (720, 1280, 3) for sheet in whole)
    unanswered = Sheets(fewer).draw(0)
    assert (unanswered[60:160, 100:300] == 24).all() and (whole[0][60:160, 100:300] != 24).any()
