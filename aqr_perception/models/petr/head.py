# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Parts of PETR under the published key `pts_bbox_head`: tokens of one or two frames, decoder, prediction branches.

Attribute names follow the published checkpoints' keys.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.models.aqr import rendering
from aqr_perception.models.aqr.projection import project
from aqr_perception.models.boxes.coder import SHAPE_CODES
from aqr_perception.models.config.presets import Preset
from aqr_perception.models.model_io import Features, Predictions, Queries, QueryWeights
from aqr_perception.models.petr.memory import CameraFrame
from aqr_perception.models.petr.petr_options import PetrOptions
from aqr_perception.models.petr.position import FeatureGuide, FrustumEncoder, QueryEncoder, RingEncoder, ring_places
from aqr_perception.models.petr.prediction_branches import BoxTasks, box_branches, class_branches, to_box_codes
from aqr_perception.models.proposals.queries import start_at_proposals
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.models.transformer.decoder import Memory, Transformer, TransformerDecoder
from aqr_perception.options import AqrOptions


class PetrHead(nn.Module):
    """Everything between feature maps and predictions; the model's `decode` calls the parts in order.

    Attributes:
        point_range: x, y, z minimum and maximum in metres that anchors and box centres span.
    """

    _azimuths: Tensor

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        config, petr = preset.decoder, preset.architecture_options(PetrOptions)
        channels, layers = config.channels, config.layers
        self.point_range, self.bev_range = preset.point_range, preset.bev_range
        self.frame_count = petr.frames
        self.frame_gap = petr.frame_gap
        self._box_convention = petr.box_convention
        self.ring = len(petr.camera_azimuths)
        self.register_buffer("_azimuths", torch.tensor(petr.camera_azimuths).deg2rad(), persistent=False)
        # The published files contain this buffer, which only the authors' training loss uses.
        self.register_buffer("code_weights", torch.ones(10))
        self.input_proj = nn.Conv2d(channels, channels, 1)
        self.cls_branches = class_branches(channels, len(preset.classes), layers, shared=petr.frames == 1)
        self.reg_branches = (
            box_branches(channels, layers)
            if petr.frames == 1
            else nn.ModuleList(BoxTasks(channels) for _ in range(layers))
        )
        if config.proposals.count:
            start_at_proposals(self.reg_branches, self.cls_branches)
        self.adapt_pos3d = RingEncoder(channels, self.ring * petr.frames)
        self.position_encoder = FrustumEncoder(channels, config.depths, petr.position_range)
        self.reference_points = nn.Embedding(config.queries, 3)
        nn.init.uniform_(self.reference_points.weight, 0.0, 1.0)
        self.query_embedding = QueryEncoder(channels)
        if petr.frames == 2:
            self.fpe = FeatureGuide(channels)
        self.transformer = Transformer(TransformerDecoder(channels, config.heads, config.feedforward, layers))

    def learned_queries(self, batch_size: int) -> Queries:
        """Return the learned queries of a batch."""
        return Queries(self.reference_points.weight.expand(batch_size, -1, -1), 0, None)

    def camera_frame(self, features: Features) -> CameraFrame | None:
        """Return the current frame's (B, V, C, h, w) features with their geometry; None without cameras."""
        if features.image is None:
            return None
        places = ring_places(features.lidar_to_image, features.image_size, self._azimuths)
        return CameraFrame(features.image, features.lidar_to_image, places, 0.0)

    def frames(self, current: CameraFrame | None, past: CameraFrame | None) -> list[CameraFrame]:
        """Return the frames that the queries attend to, the current one first; none without current cameras.

        PETRv2 needs a past frame. Without one, the current frame replaces it with an age of `frame_gap` seconds, as in
        the authors' code at the start of a drive.
        """
        if current is None:
            return []
        if self.frame_count == 1:
            return [current]
        return [current, current._replace(seconds=self.frame_gap) if past is None else past]

    def memory(self, frames: list[CameraFrame], features: Features) -> Memory:
        """Return the image cells of all frames as tokens."""
        if not frames:
            empty = self.reference_points.weight.new_zeros(features.batch_size, 0, self.input_proj.out_channels)
            return Memory(empty, empty, TokenLayout())
        tokens, positions = [], []
        for index, frame in enumerate(frames):
            rows, columns = frame.image.shape[-2:]
            cells = frame.image.flatten(3).transpose(2, 3)
            token = F.linear(cells, self.input_proj.weight.flatten(1), self.input_proj.bias)
            position = self.position_encoder.image_grid(frame.lidar_to_image, rows, columns, features.image_size)
            if self.frame_count == 2:
                position = self.fpe(position, token)
            # The numbers of the past frame's cameras follow the current frame's.
            position = position + self.adapt_pos3d.image_grid(frame.places + index * self.ring, rows, columns)
            tokens.append(token.flatten(1, 2))
            positions.append(position.flatten(1, 2))
        values = torch.cat(tokens, dim=1)
        views = sum(frame.image.shape[1] for frame in frames)
        layout = TokenLayout((0, 0), views, (frames[0].image.shape[-2], frames[0].image.shape[-1]))
        return Memory(values + torch.cat(positions, dim=1), values, layout)

    def predict(self, decoded: Tensor, queries: Queries, frames: list[CameraFrame], layers: slice) -> Predictions:
        """Return some layers' predictions from the decoder's outputs (L, B, Q, C) and the queries' initial estimates.

        The result is fp32 for every precision of the decoder: at 51 m, bf16 coordinates are 25 cm apart.
        """
        # PETRv2 predicts the motion between its two frames, PETR a velocity.
        seconds = None if self.frame_count == 1 else frames[1].seconds if frames else self.frame_gap
        with torch.autocast(decoded.device.type, enabled=False):
            outputs = decoded[layers].float()
            chosen = range(len(self.cls_branches))[layers]
            logits = torch.stack([self.cls_branches[layer](each) for layer, each in zip(chosen, outputs, strict=True)])
            raw = torch.stack([self.reg_branches[layer](each) for layer, each in zip(chosen, outputs, strict=True)])
            anchors = queries.reference_points.float()
            codes = to_box_codes(raw, anchors, self.point_range, seconds, self._box_convention)
        return queries.add_first_guess(Predictions(logits, codes), SHAPE_CODES)

    def attention_weights(
        self,
        mass: Tensor | None,
        frames: list[CameraFrame],
        queries: Queries,
        image_size: tuple[int, int],
        aqr: AqrOptions,
    ) -> QueryWeights | None:
        """Return the attention mass as query weights; None without it.

        A camera's past image counts for that camera. The past image of a camera that is missing in the current frame
        counts only for the camera modality.

        Args:
            mass: (B, Q, 1 + V [+ V of the past frame]); the first is the LiDAR's and is 0.
            frames: see `frames`.
            image_size: height and width of the images in pixels.
            aqr: options of the maps.
        """
        if mass is None:
            return None
        mass = mass[..., 1:]
        points = queries.reference_points
        lower, upper = points.new_tensor(self.point_range[:3]), points.new_tensor(self.point_range[3:])
        cameras, layout, projection = mass, TokenLayout(), mass.new_zeros(len(points), 0, 4, 4)
        if frames:
            current, *others = frames
            views, rows, columns = current.image.shape[1], *current.image.shape[-2:]
            layout, projection = TokenLayout((0, 0), views, (rows, columns)), current.lidar_to_image
            cameras = mass[..., :views]
            for past in others:
                same = (past.places[:, :, None] == current.places[:, None]).to(mass.dtype)
                cameras = cameras + mass[..., views:] @ (same / same.sum(-1, keepdim=True).clamp(min=1))
        # The maps leave out denoising queries, which start at the true objects and would reveal them.
        shown = slice(queries.denoising, None)
        cells = project(points[:, shown] * (upper - lower) + lower, self.bev_range, projection, image_size, layout)
        camera = mass.sum(-1)
        return QueryWeights(
            torch.stack((torch.zeros_like(camera), camera), dim=-1),
            cameras,
            rendering.render_bev(torch.zeros_like(camera[:, shown]), cells, layout, aqr),
            rendering.render_cameras(cameras[:, shown], cells, layout, aqr),
        )
