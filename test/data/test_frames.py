# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Frames prepared for training, and the loss of a step on them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from aqr_perception.data.batch import collate
from aqr_perception.data.corruption.camera_corruption import noisy
from aqr_perception.data.corruption.sensor_failures import with_pictures
from aqr_perception.data.frames import LEAST_VISIBLE, TrainingFrames, without_invisible_objects
from aqr_perception.data.health import FrameWithHealth
from aqr_perception.frame import LabelledFrame
from aqr_perception.geometry import transform_points
from aqr_perception.models import build_model
from aqr_perception.models.cmt.model import CMT
from aqr_perception.models.config.presets import load_preset
from aqr_perception.models.fusion_model import FusionModel
from aqr_perception.models.image.backbone_cache import BackboneCache
from aqr_perception.simulator.drive import draw_drive
from aqr_perception.training.history import features_of
from aqr_perception.training.losses.detection_loss import DetectionLoss

INTACT = np.ones(1)


@pytest.fixture(scope="module")
def frames() -> list[LabelledFrame]:
    return [draw_drive(seed, 1.0).frame(0.5) for seed in (1, 7)]


@pytest.fixture(scope="module")
def model() -> CMT:
    return build_model("aqr_tiny")


def test_objects_that_no_sensor_sees_are_left_out(frames: list[LabelledFrame]) -> None:
    visible = [without_invisible_objects(labelled).truth for labelled in frames]
    assert 0 < sum(map(len, visible)) < sum(len(labelled.truth) for labelled in frames)
    for truth in visible:
        assert ((truth.lidar_points > 0) | (truth.visibility.max(axis=1) >= LEAST_VISIBLE)).all()


def test_a_sample_depends_on_its_random_numbers_only(frames: list[LabelledFrame], model: CMT) -> None:
    data = TrainingFrames(frames, model.preset)
    first, second = (data.sample(0, np.random.default_rng(4), 0.5).labelled for _ in range(2))
    np.testing.assert_array_equal(first.truth.boxes, second.truth.boxes)
    for one, other in zip(first.frame.cameras, second.frame.cameras, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def test_kept_pictures_stay_as_they_are_or_are_mirrored_with_their_world(
    frames: list[LabelledFrame], model: CMT
) -> None:
    data = TrainingFrames(frames, model.preset, corrupted=False, keep_pictures=True)
    before = without_invisible_objects(frames[0])
    seen = set()
    for seed in range(8):
        sample = data.sample(0, np.random.default_rng(seed), 1.0)
        changed = sample.labelled
        assert not np.allclose(changed.truth.boxes[:, :2], before.truth.boxes[:, :2])
        mirrored = np.linalg.det(changed.model_to_world[:3, :3]) < 0
        seen.add(mirrored)
        assert not sample.changed_pictures
        for old, new in zip(before.frame.cameras, changed.frame.cameras, strict=True):
            np.testing.assert_array_equal(old.image[:, ::-1] if mirrored else old.image, new.image)
            # Each object stays where it is in the picture, and the picture and the world are mirrored together.
            assert (new.intrinsics[0, 0] < 0) == mirrored == (np.linalg.det(new.extrinsics[:3, :3]) < 0)
            places, moved = (
                transform_points(view.extrinsics, truth.boxes) @ view.intrinsics.T
                for view, truth in ((old, before.truth), (new, changed.truth))
            )
            if mirrored:
                places[:, 0] = old.image.shape[1] * places[:, 2] - places[:, 0]
            np.testing.assert_allclose(places, moved, rtol=1e-4, atol=0.5)
    assert seen == {False, True}


def test_without_cameras_kept_pictures_do_not_forbid_mirroring(frames: list[LabelledFrame], model: CMT) -> None:
    data = TrainingFrames(frames, model.preset, corrupted=False, keep_pictures=True, cameras=False)
    moved = [data.sample(0, np.random.default_rng(seed), 1.0).labelled.model_to_world for seed in range(8)]
    assert {np.sign(np.linalg.det(pose[:3, :3])) for pose in moved} == {-1.0, 1.0}


def test_points_are_thinned_out_where_they_are_to_vary(frames: list[LabelledFrame], model: CMT) -> None:
    counts = []
    for vary in (False, True):
        data = TrainingFrames(frames, model.preset, corrupted=False, vary_points=vary)
        points = data.sample(0, np.random.default_rng(0), 1.0).labelled.frame.points
        assert points is not None
        counts.append(len(points))
    assert 0.35 * counts[0] < counts[1] < counts[0]


def test_broken_sensors_are_removed_in_the_share_of_frames(frames: list[LabelledFrame], model: CMT) -> None:
    cameras = []
    for removed in (0.0, 0.5, 1.0):
        data = TrainingFrames(frames, model.preset, removed=removed)
        samples = [data.sample(0, np.random.default_rng(seed), 1.0) for seed in range(40)]
        broken = [
            sum((sample.health.cameras.get(view.name, INTACT) <= 0.5).all() for view in sample.labelled.frame.cameras)
            for sample in samples
            if sample.labelled.frame.points is not None
        ]
        cameras.append(sum(broken))
    assert cameras[0] > cameras[1] > cameras[2] == 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["off", "both"])
def test_losses_are_finite_and_have_the_same_names_under_every_failure(
    frames: list[LabelledFrame], model: CMT, mode: str
) -> None:
    data, loss = TrainingFrames(frames, model.preset), DetectionLoss()
    model.train()
    model.router_trained = mode != "off"
    names = set()
    for seed in range(2):
        batch = collate([data.sample(0, np.random.default_rng(seed), 1.0)], model.preset)
        with torch.no_grad():
            parts = loss(model, batch, torch.Generator().manual_seed(seed))
        assert all(torch.isfinite(value) for value in parts.values())
        names.add(tuple(parts))
    assert len(names) == 1 and ("router" in names.pop()) == (mode != "off")


def test_health_lies_on_the_models_grids(frames: list[LabelledFrame], model: CMT) -> None:
    data = TrainingFrames(frames, model.preset, augment=False, grid_mask=False)
    found = False
    for seed in range(12):
        batch = collate([data.sample(1, np.random.default_rng(seed), 0.0)], model.preset)
        assert batch.lidar_health.min() >= 0 and batch.lidar_health.max() <= 1
        assert ((batch.camera_health >= 0) & (batch.camera_health <= 1)).all()
        if batch.images is None:
            continue
        mean, std = (
            torch.tensor(values)[:, None, None] for values in (model.preset.image.mean, model.preset.image.std)
        )
        black = (batch.images * std + mean).amax(dim=(-3, -2, -1)) < 2.0
        assert (batch.camera_health[black] == 0).all()
        found |= bool(black.any())
    assert found


def test_a_camera_only_model_gets_a_camera_and_only_visible_objects(
    frames: list[LabelledFrame],
) -> None:
    data = TrainingFrames(frames, load_preset("petr_tiny"), augment=False, grid_mask=False)
    for seed in range(60):
        prepared = data.sample(0, np.random.default_rng(seed), 0.5).labelled
        assert prepared.frame.cameras
        assert prepared.frame.points is None
    clean = TrainingFrames(frames, load_preset("petr_tiny"), False, False, False).sample(0, np.random.default_rng(0), 0)
    assert (clean.labelled.truth.visibility.max(axis=1) >= LEAST_VISIBLE).all()


@pytest.mark.slow
def test_a_branch_gets_its_own_sensor_only(frames: list[LabelledFrame], model: CMT) -> None:
    by_camera = TrainingFrames(frames, model.preset, lidar=False)
    by_lidar = TrainingFrames(frames, model.preset, cameras=False)
    for seed in range(20):
        seen_by_camera, seen_by_lidar = (
            data.sample(0, np.random.default_rng(seed), 0.5).labelled.frame for data in (by_camera, by_lidar)
        )
        assert seen_by_camera.points is None and seen_by_camera.cameras
        assert seen_by_lidar.points is not None and not seen_by_lidar.cameras


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["petr_tiny", "bevformer_mini"])
def test_camera_only_models_train_on_the_same_frames(frames: list[LabelledFrame], preset: str) -> None:
    model = build_model(preset).train()
    data = TrainingFrames(frames, model.preset, grid_mask=False)
    batch = collate([data.sample(0, np.random.default_rng(1), 0.5)], model.preset)
    parts = DetectionLoss()(model, batch, torch.Generator().manual_seed(0))
    sum(parts.values()).backward()
    assert all(torch.isfinite(value) for value in parts.values()) and "router" not in parts
    assert batch.points is None
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_a_batch_of_other_classes_than_the_presets_is_refused(frames: list[LabelledFrame], model: CMT) -> None:
    truth = frames[0].truth.relabelled(("car", "forklift"))
    assert set(truth.labels.tolist()) == {0} and len(truth) == (frames[0].truth.labels == 0).sum()
    with pytest.raises(ValueError, match=r"classes car, forklift, but the preset has car, truck, .*relabelled"):
        collate([FrameWithHealth(dataclasses.replace(frames[0], truth=truth))], model.preset)


def test_pictures_that_training_changed_are_marked_and_the_others_are_not(
    frames: list[LabelledFrame], model: CMT
) -> None:
    steady = TrainingFrames(frames, model.preset, augment=False, grid_mask=False)
    marks = []
    for seed in range(12):
        sample = steady.sample(0, np.random.default_rng(seed), 0.0)
        intact = {view.name for view in sample.labelled.frame.cameras if view.image is _image(frames[0], view.name)}
        present = {view.name for view in sample.labelled.frame.cameras}
        assert sample.changed_pictures == present - intact
        # A misplaced camera has an intact picture and a poor health.
        assert sample.changed_pictures <= sample.health.cameras.keys()
        marks.append(len(sample.changed_pictures))
    assert 0 in marks and max(marks) > 0
    augmented = TrainingFrames(frames, model.preset, corrupted=False).sample(0, np.random.default_rng(0), 0.0)
    assert augmented.changed_pictures == {view.name for view in augmented.labelled.frame.cameras}
    plain = steady.sample(0, np.random.default_rng(int(np.argmin(marks))), 0.0)
    batch = collate([augmented, plain], model.preset)
    assert batch.changed is not None and batch.changed.tolist() == [[True] * 6, [False] * 6]


def _image(labelled: LabelledFrame, name: str) -> np.ndarray:
    return next(view.image for view in labelled.frame.cameras if view.name == name)


def test_a_feature_cache_stores_only_pictures_that_come_again(
    frames: list[LabelledFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model("aqr_tiny").eval()
    assert isinstance(model, FusionModel)
    model.requires_grad_(False)
    model.backbone_cache = BackboneCache(tmp_path, model.img_backbone)
    data = TrainingFrames(frames, model.preset, augment=False, grid_mask=False)
    monkeypatch.setattr("aqr_perception.data.frames.corrupt", one_noisy_camera)
    monkeypatch.setattr(model, "bev_features", lambda points: None)
    for seed in range(3):
        batch = collate([data.sample(0, np.random.default_rng(seed), 0.0)], model.preset)
        features_of(model, batch)
    assert len(list(tmp_path.rglob("*.npz"))) == 5  # of six cameras, the first fails in a new way each time


def one_noisy_camera(
    labelled: LabelledFrame, rng: np.random.Generator, earlier: LabelledFrame | None
) -> FrameWithHealth:
    first = labelled.frame.cameras[0]
    return with_pictures(labelled, {first.name: noisy(first.image, 0.5, rng)})
