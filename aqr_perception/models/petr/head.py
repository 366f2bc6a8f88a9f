"""From image features to predictions: tokens of one or two frames, decoder and prediction branches.

Attribute names follow the published checkpoints' keys.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.frame import CLASSES
from aqr_perception.models.aqr import rendering
from aqr_perception.models.aqr.projection import project
from aqr_perception.models.boxes.coder import SHAPE_CODES
from aqr_perception.models.config.presets import Preset
from aqr_perception.models.head_output import HeadOutput, Predictions, Queries, QueryWeights
from aqr_perception.models.petr.memory import PastFrame
from aqr_perception.models.petr.position import FeatureGuide, FrustumEncoder, QueryEncoder, RingEncoder, ring_places
from aqr_perception.models.petr.prediction_branches import BoxTasks, box_branches, class_branches, located
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.models.transformer.decoder import Memory, Transformer, TransformerDecoder
from aqr_perception.options import AqrOptions


class PetrHead(nn.Module):
    """Queries gather evidence from the cameras' image cells; see `forward`.

    Attributes:
        point_range: x, y, z minimum and maximum in metres that anchors and box centres span.
    """

    _azimuths: Tensor

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        config, petr = preset.decoder, preset.petr
        channels, layers = config.channels, config.layers
        self.point_range = preset.point_range
        self.frames = petr.frames
        self.frame_gap = petr.frame_gap
        self.ring = len(petr.camera_azimuths)
        self.register_buffer("_azimuths", torch.tensor(petr.camera_azimuths).deg2rad(), persistent=False)
        # In the published files, but read by their authors' training loss alone.
        self.register_buffer("code_weights", torch.ones(10))
        self.input_proj = nn.Conv2d(channels, channels, 1)
        self.cls_branches = class_branches(channels, len(CLASSES), layers, shared=petr.frames == 1)
        self.reg_branches = (
            box_branches(channels, layers)
            if petr.frames == 1
            else nn.ModuleList(BoxTasks(channels) for _ in range(layers))
        )
        self.adapt_pos3d = RingEncoder(channels, self.ring * petr.frames)
        self.position_encoder = FrustumEncoder(channels, config.depths, petr.position_range)
        self.reference_points = nn.Embedding(config.queries, 3)
        nn.init.uniform_(self.reference_points.weight, 0.0, 1.0)
        self.query_embedding = QueryEncoder(channels)
        if petr.frames == 2:
            self.fpe = FeatureGuide(channels)
        self.transformer = Transformer(TransformerDecoder(channels, config.heads, config.feedforward, layers))

    def capture(self, image: Tensor, lidar_to_image: Tensor, image_size: tuple[int, int]) -> PastFrame:
        """Return a frame's (B, V, C, h, w) features with what places them, 0 seconds back."""
        return PastFrame(image, lidar_to_image, ring_places(lidar_to_image, image_size, self._azimuths), 0.0)

    def forward(
        self,
        current: PastFrame | None,
        past: PastFrame | None,
        batch: int,
        image_size: tuple[int, int],
        aqr: AqrOptions,
        *,
        attention_weights: bool = False,
        queries: Queries | None = None,
        layers: slice = slice(None),
    ) -> HeadOutput:
        """Detect objects in one batch of feature maps.

        Args:
            current: the frame's cameras; None without any: then the queries have no evidence, and what comes out is
                each anchor's prior.
            past: an earlier frame's cameras, for PETRv2; without it the current frame stands in for it, `frame_gap`
                seconds back, as the authors do at the start of a drive.
            batch: number of samples.
            image_size: height and width of the images in pixels.
            aqr: how weight maps are drawn.
            attention_weights: whether to return weights from the attention mass.
            queries: instead of the learned queries alone.
            layers: the decoder layers whose predictions are computed.
        """
        if queries is None:
            queries = Queries(self.reference_points.weight.expand(batch, -1, -1), 0, None)
        frames: list[PastFrame] = []
        if current is not None:
            frames = [current]
            if self.frames == 2:
                frames.append(current._replace(seconds=self.frame_gap) if past is None else past)
        memory = self._memory(frames, batch, image_size)
        decoded = self.transformer.decoder(
            self.query_embedding.embed(queries.reference_points),
            memory,
            None,
            queries.mask,
            attention_weights,
            content=queries.content,
        )
        seconds = None if self.frames == 1 else frames[1].seconds if frames else self.frame_gap
        predictions = self._predict(decoded.queries[layers], queries.reference_points, seconds, layers)
        predictions = queries.added_to(predictions, SHAPE_CODES)
        weights = None
        if decoded.mass is not None:
            weights = self._weights(decoded.mass[..., 1:], frames, queries, image_size, aqr)
        return HeadOutput(predictions, None, weights)

    def _memory(self, frames: list[PastFrame], batch: int, image_size: tuple[int, int]) -> Memory:
        """Return the image cells of all frames as tokens, those of the frame itself first."""
        if not frames:
            empty = self.reference_points.weight.new_zeros(batch, 0, self.input_proj.out_channels)
            return Memory(empty, empty, TokenLayout())
        tokens, positions = [], []
        for index, frame in enumerate(frames):
            rows, columns = frame.image.shape[-2:]
            cells = frame.image.flatten(3).transpose(2, 3)
            features = F.linear(cells, self.input_proj.weight.flatten(1), self.input_proj.bias)
            position = self.position_encoder.image_grid(frame.lidar_to_image, rows, columns, image_size)
            if self.frames == 2:
                position = self.fpe(position, features)
            # The past frame's cameras follow the current one's in the ring's count.
            position = position + self.adapt_pos3d.image_grid(frame.places + index * self.ring, rows, columns)
            tokens.append(features.flatten(1, 2))
            positions.append(position.flatten(1, 2))
        features = torch.cat(tokens, dim=1)
        views = sum(frame.image.shape[1] for frame in frames)
        layout = TokenLayout((0, 0), views, (frames[0].image.shape[-2], frames[0].image.shape[-1]))
        return Memory(features + torch.cat(positions, dim=1), features, layout)

    def _predict(self, decoded: Tensor, anchors: Tensor, seconds: float | None, layers: slice) -> Predictions:
        """Predict in fp32 whatever the decoder's precision: at 51 m a bf16 coordinate is 25 cm coarse.

        Args:
            decoded: (l, B, Q, C) of the chosen layers.
            anchors: (B, Q, 3) in 0..1 of the point range.
            seconds: see `located`.
        """
        with torch.autocast(decoded.device.type, enabled=False):
            decoded = decoded.float()
            chosen = range(len(self.cls_branches))[layers]
            logits = torch.stack([self.cls_branches[layer](each) for layer, each in zip(chosen, decoded, strict=True)])
            raw = torch.stack([self.reg_branches[layer](each) for layer, each in zip(chosen, decoded, strict=True)])
            return Predictions(logits, located(raw, anchors.float(), self.point_range, seconds))

    def _weights(
        self,
        mass: Tensor,
        frames: list[PastFrame],
        queries: Queries,
        image_size: tuple[int, int],
        aqr: AqrOptions,
    ) -> QueryWeights:
        """Return the query weights of (B, Q, V [+ V of the past]) attention mass by camera.

        What a camera showed a while ago counts as its own; of a camera that is gone, only for the cameras together.
        """
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
        # Denoising queries start at the true objects: they have no place in a picture of what the model finds.
        shown = slice(queries.denoising, None)
        cells = project(points[:, shown] * (upper - lower) + lower, self.point_range, projection, image_size, layout)
        camera = mass.sum(-1)
        return QueryWeights(
            torch.stack((torch.zeros_like(camera), camera), dim=-1),
            cameras,
            rendering.render_bev(torch.zeros_like(camera[:, shown]), cells, layout, aqr),
            rendering.render_cameras(cameras[:, shown], cells, layout, aqr),
        )
