# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A simulated bag holds the frames of its drive."""

from pathlib import Path

import numpy as np
import pytest

from aqr_perception.bags.errors import BagError
from aqr_perception.bags.reader import BagReader
from aqr_perception.data.sources.bags import BagDataset
from aqr_perception.simulator.bag import START_NS, TRUTH_TOPIC, write_bag
from aqr_perception.simulator.drive import Drive, draw_drive
from aqr_perception.simulator.rig import nuscenes_rig

RATE, SECONDS = 10.0, 0.4


@pytest.fixture(scope="module")
def drive() -> Drive:
    return draw_drive(1, 2.0, nuscenes_rig((176, 64)))


@pytest.fixture(scope="module")
def folder(drive: Drive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bags")
    write_bag(drive, folder / "drive.mcap", SECONDS, rate=RATE, raw=True, progress=False)
    return folder


def test_the_labelled_frames_of_a_bag_equal_the_drives_frames(drive: Drive, folder: Path) -> None:
    data = BagDataset(folder, sweeps=2)
    assert len(data) == 4
    for index in (1, 3):
        found, expected = data[index], drive.frame((index + 1) / RATE)
        assert found.frame.stamp_ns - START_NS == expected.frame.stamp_ns
        np.testing.assert_allclose(found.truth.boxes, expected.truth.boxes, atol=1e-3)
        np.testing.assert_array_equal(found.truth.labels, expected.truth.labels)
        hit, really = found.truth.lidar_points, expected.truth.lidar_points
        assert (hit[really > 30] > 0.6 * really[really > 30]).all()  # some of the ground may be counted, too
        np.testing.assert_allclose(found.model_to_world, expected.model_to_world, atol=1e-6)
        assert found.frame.points is not None and expected.frame.points is not None
        np.testing.assert_allclose(found.frame.points, expected.frame.points, atol=5e-3)
        for view, own in zip(
            found.frame.cameras, sorted(expected.frame.cameras, key=lambda view: view.name), strict=True
        ):
            assert view.name == own.name and view.age == pytest.approx(own.age, abs=1e-5)
            np.testing.assert_array_equal(view.image, own.image)
            np.testing.assert_allclose(view.intrinsics, own.intrinsics)
            np.testing.assert_allclose(view.extrinsics, own.extrinsics, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_both_storages_and_compressed_pictures_hold_every_topic(drive: Drive, tmp_path: Path, storage: str) -> None:
    path = write_bag(drive, tmp_path / "bag", 0.2, rate=RATE, storage=storage, progress=False)
    with BagReader(path) as bag:
        counts = {topic.name: topic.count for topic in bag.topics}
    assert counts["/lidar/points"] == counts[TRUTH_TOPIC] == counts["/front/image_raw/compressed"] == 2
    assert counts["/clock"] == counts["/tf"] == 13 and counts["/tf_static"] == 1


def test_a_folder_without_bags_is_named(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="found no bag, needed"):
        BagDataset(tmp_path)
