# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Agreement of the sensors' proposals, and what it adds to a gate's logits; `proposals.correlation` computes it."""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from aqr_perception.models.aqr.gate import Gate

_BESIDE, _ABOVE = range(-16, 17, 2), range(-4, 5, 4)
_AROUND = range(-4, 5)
PICTURE_OFFSETS = tuple(itertools.product(_BESIDE, _ABOVE))
"""Offsets in a picture in cells of the heat map: columns, rows."""
GROUND_OFFSETS = tuple(itertools.product(_AROUND, _AROUND))
"""Offsets on the ground in metres: x, y of the model frame."""
CORRELATION = 2
"""Entries of a correlation before its offsets: its mean, and the proposals' summed scores."""

ON_GROUND, IN_PICTURE = CORRELATION + len(GROUND_OFFSETS), CORRELATION + len(PICTURE_OFFSETS)
"""Entries of a correlation on the ground and in a picture."""

SURROUNDINGS = 9
"""Cells of the BEV features around a query: its own and the eight beside it."""

_HIDDEN = 64


class SensorAgreement(NamedTuple):
    """Comparison of the LiDAR's proposals with the cameras' heat maps; see `proposals.correlation`.

    Attributes:
        lidar: (B, 2 + O), correlation over offsets on the ground: of the LiDAR with all cameras.
        lidar_by_camera: (B, V, 2 + O), the same with each camera alone.
        cameras: (B, V, 2 + P), correlation over offsets in the picture: of each camera with the LiDAR.
        lidar_scores: (B, Q, classes), what the LiDAR's own head says at each query.
        camera_scores: (B, Q, V, classes), what the cameras' own head says at each query.
        lidar_features: (B, Q, 9 C), BEV features in the cells around each query; see `places.bev_surroundings`.
        at_lidar: (B, Q) bool, which queries start at the LiDAR's proposals.
    """

    lidar: Tensor
    lidar_by_camera: Tensor
    cameras: Tensor
    lidar_scores: Tensor
    camera_scores: Tensor
    lidar_features: Tensor
    at_lidar: Tensor


class AgreementGate(nn.Module):
    """Logits that are added to those of a gate; 0 for an untrained router.

    A query's weights get what each sensor's own head says at its place: an object that only the LiDAR sees where a
    camera should see it, too, may be none. The LiDAR's weight gets more; see `LidarPlaces`. The trust in a sensor gets
    the correlations of the proposals.

    Correlations tell that a camera and the LiDAR disagree, but not which of the two is at fault: a LiDAR that disagrees
    with every camera, or a camera that disagrees although the others agree. The trust therefore gets the mean, the most
    and the least of what the pairs of the LiDAR and a camera tell.

    Args:
        classes: number of classes.
        bev_channels: channels of the BEV features.
    """

    def __init__(self, classes: int, bev_channels: int) -> None:
        super().__init__()
        self.lidar_place = LidarPlaces(2 * classes + 1 + SURROUNDINGS * bev_channels)
        self.cameras = _two_layers(2 * classes)
        self.pair = nn.Sequential(
            nn.Linear(ON_GROUND + IN_PICTURE, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU()
        )
        self.lidar_trust = _two_layers(ON_GROUND + 3 * _HIDDEN)
        self.camera_trust = _two_layers(ON_GROUND + 4 * _HIDDEN)

    def forward(self, agreement: SensorAgreement, visible: Tensor) -> Gate:
        """Return logits, those of cameras that do not see a query included.

        Args:
            agreement: of B samples and their queries.
            visible: (B, Q, V) bool, which cameras see which queries.
        """
        lidar, cameras = agreement.lidar_scores, agreement.camera_scores
        best = torch.full_like(lidar, -1.0)
        if visible.shape[-1]:
            best = torch.where(visible[..., None], cameras, -1.0).amax(2)
        seen = visible.any(-1, keepdim=True)
        shown = torch.cat((lidar, best, seen, agreement.lidar_features), dim=-1)
        by_lidar = self.lidar_place(shown, agreement.at_lidar)
        if not visible.shape[-1]:  # nothing to compare the LiDAR with
            return Gate(by_lidar.float(), by_lidar.new_zeros(visible.shape), by_lidar.new_zeros(len(by_lidar), 1))
        by_camera = self.cameras(torch.cat((lidar[:, :, None].expand_as(cameras), cameras), dim=-1))
        pairs = self.pair(torch.cat((agreement.lidar_by_camera, agreement.cameras), dim=-1))
        shared = torch.cat((agreement.lidar, pairs.mean(1), pairs.amax(1), pairs.amin(1)), dim=-1)
        whole = self.camera_trust(torch.cat((pairs, shared[:, None].expand(-1, pairs.shape[1], -1)), dim=-1))
        sensors = torch.cat((self.lidar_trust(shared), whole[..., 0]), dim=-1)
        return Gate(by_lidar.float(), by_camera[..., 0].float(), sensors.float())


class LidarPlaces(nn.Module):
    """Logits of the LiDAR at single places, from what both sensors' heads say there and from the features around it.

    The features are as fine as the LiDAR's branch makes them: a ghost casts no shadow. Where many places look like
    ghosts, the next one is more likely a ghost, too, so that each place also gets mean and maximum over the LiDAR's
    proposals.

    Args:
        inputs: entries for each place.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.place = nn.Sequential(nn.Linear(inputs, _HIDDEN), nn.ReLU())
        self.logit = _two_layers(3 * _HIDDEN)

    def forward(self, shown: Tensor, at_lidar: Tensor) -> Tensor:
        """Return (B, Q) logits.

        Args:
            shown: (B, Q, inputs).
            at_lidar: (B, Q) bool, which queries start at the LiDAR's proposals.
        """
        places = self.place(shown)
        counted = places * at_lidar[..., None]
        mean = counted.sum(1, keepdim=True) / at_lidar.sum(1)[:, None, None].clamp(min=1)
        around = torch.cat((mean, counted.amax(1, keepdim=True)), dim=-1).expand(-1, places.shape[1], -1)
        logits: Tensor = self.logit(torch.cat((places, around), dim=-1))[..., 0]
        return logits


def _two_layers(inputs: int) -> nn.Sequential:
    last = nn.Linear(_HIDDEN, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, _HIDDEN), nn.ReLU(), last)
