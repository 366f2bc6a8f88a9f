# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""CMT, the cross-modal transformer (arXiv:2301.01283), with AQR: cameras and LiDAR in, class logits and boxes out.

Attribute names follow the published checkpoints' keys.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from aqr_perception.models.aqr import window_bias
from aqr_perception.models.aqr.gate import Gate
from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.aqr.router import Router, RouterWeights, other_kind_problem, router_kind
from aqr_perception.models.aqr.window_bias import WindowBias
from aqr_perception.models.cmt.head import CmtHead, Tokens, render_attention, render_weights
from aqr_perception.models.config.presets import Preset
from aqr_perception.models.fusion_model import FusionModel, lidar_groups, merge_groups
from aqr_perception.models.model_io import (
    NO_LAYER,
    DecodeOptions,
    Features,
    History,
    ModelOutput,
    ProposalMaps,
    Queries,
    QueryWeights,
    no_predictions,
)
from aqr_perception.models.ops.side_by_side import run_both, side_by_side
from aqr_perception.models.ops.threads import one_thread
from aqr_perception.models.proposals.gated_proposals import (
    with_gated_scores,
    with_other_evidence,
    with_scores_beside_lidar,
)
from aqr_perception.models.proposals.other_sensor import OtherSensor
from aqr_perception.models.proposals.queries import compare_sensors, place_proposals, proposal_head
from aqr_perception.models.removed_tokens import kept_tokens, lidar_left
from aqr_perception.models.transformer.decoder import Memory, ProjectedTokens
from aqr_perception.options import AqrOptions


class _Routing(NamedTuple):
    """What the router makes of one group of samples.

    Attributes:
        memory: tokens, modulated where the options say so.
        weights: the router's weights with their maps; None without a router, like everything below.
        bias: of the cross-attention.
        gate: logits of a gate.
        acting: the weights that act.
    """

    memory: Memory
    weights: QueryWeights | None = None
    bias: WindowBias | None = None
    gate: Gate | None = None
    acting: RouterWeights | None = None


class CMT(FusionModel):
    """The fusion detector; without an image or a point branch in the preset, it is LiDAR-only or camera-only.

    `router_trained` is false for presets of published models, which have no router.
    """

    removes_tokens = True
    routes_alone = True

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        self.router_trained = preset.aqr.mode != "off"
        self.pts_bbox_head = CmtHead(preset)
        counts = preset.decoder.proposals
        self._compares = bool(counts.bev and counts.image)
        compared = len(preset.classes) if self._compares else 0
        bev_channels = 0 if preset.points is None else 2 * preset.points.neck_channels
        self.aqr = Router(preset.decoder.channels, router_kind(preset.aqr), compared, bev_channels)
        self.proposals = proposal_head(preset)
        if self._compares:
            self.other_sensor = OtherSensor(preset)

    def aqr_problem(self, aqr: AqrOptions) -> str | None:
        """Return why the model's router cannot act as the options say; None if it can."""
        needed = aqr.resolved(self.preset.aqr)
        if not self.router_trained or not needed.acts:
            return None
        return other_kind_problem(self.preset.name, self.aqr.kind, needed)

    def convert_weights(self, name: str, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return weights with the logit of queries beside the LiDAR's proposals: 0 where they were trained without."""
        if not self._compares or "other_sensor.lidar.weight" not in weights:
            return weights
        return {"other_sensor.beside_lidar": torch.zeros(1), **weights}

    def decode(
        self,
        features: Features,
        options: DecodeOptions,
        queries: Queries | None = None,
        history: History | None = None,
    ) -> ModelOutput:
        """Return predictions and query weights of one batch; without a trained router, AQR is off."""
        head, aqr = self.pts_bbox_head, options.aqr.resolved(self.preset.aqr)
        needs_router = self.router_trained and (options.router_weights or aqr.acts)

        # Queries start at proposals or learned reference points, while the features become tokens.
        proposals = self.propose(features)
        asked = queries or head.learned_queries(features.batch_size)
        groups, outputs = lidar_groups(features), []

        def placed() -> Queries:
            with self._few_threads(features):
                return self._placed(asked, proposals, features, compare=needs_router and self.aqr.compares)

        def tokens_by_group() -> list[Tokens]:
            return [head.tokens(features.select(samples)) for samples in groups]

        with self._side_by_side(features):
            all_queries, tokens_of = run_both(placed, tokens_by_group)

        for samples, tokens in zip(groups, tokens_of, strict=True):
            group, group_queries = features.select(samples), all_queries.select(samples)
            with self._side_by_side(features), self._few_threads(features):
                # The queries' cells among the tokens, and what the router thinks of the evidence there.
                cells = head.cells(group_queries, group, tokens.layout)
                positions = head.query_positions(group_queries, group)
                routing, projected = _Routing(tokens.memory), None
                if needs_router:
                    route = partial(self._route, positions, tokens, cells, group_queries, aqr, options.fixed_router)
                    routing, projected = run_both(route, partial(self._projected, tokens, group, options))
                if options.layers == NO_LAYER:  # the weights alone
                    nothing = no_predictions(positions, len(self.classes))
                    outputs.append(ModelOutput(nothing, routing.weights, None, gate=routing.gate))
                    continue
                by_lidar = lidar_left(group, cells, tokens.layout.bev)
                group_queries = self._gated(
                    group_queries, routing.acting, cells, by_lidar, aqr, fixed=options.fixed_router
                )

            # Decoding and prediction.
            decoded = head.transformer.decoder(
                positions,
                kept_tokens(routing.memory, group, routing.bias),
                routing.bias,
                group_queries.mask,
                options.attention_weights,
                content=group_queries.content,
                projected=projected,
            )
            with self._few_threads(features):
                predictions = head.predict(decoded.queries, group_queries, options.layers)
                attention = render_attention(decoded.mass, cells, tokens.layout, group_queries, aqr)
            outputs.append(ModelOutput(predictions, routing.weights, attention, gate=routing.gate))
        return merge_groups(outputs, groups)._replace(queries=all_queries, proposals=proposals)

    def _few_threads(self, features: Features) -> AbstractContextManager[None]:
        """Return the context of what is small in a small model's frame on a CPU: all but convolutions and attention."""
        return one_thread(self._is_small_on_cpu(features))

    def _side_by_side(self, features: Features) -> AbstractContextManager[None]:
        """Return the context in which tasks of a small model's frame on a CPU run side by side."""
        return side_by_side(self._is_small_on_cpu(features))

    def _projected(self, tokens: Tokens, features: Features, options: DecodeOptions) -> list[ProjectedTokens] | None:
        """Return the decoder's keys and values, where it needs them, they are small and the router changes none."""
        removes = features.removed_bev is not None or features.removed_image is not None
        changes = removes or options.aqr.resolved(self.preset.aqr).modulates
        if options.layers == NO_LAYER or changes or not self._is_small_on_cpu(features):
            return None
        return self.pts_bbox_head.transformer.decoder.project(tokens.memory)

    def _is_small_on_cpu(self, features: Features) -> bool:
        return self.is_small(features.batch_size) and features.lidar_to_image.device.type == "cpu"

    def _route(
        self, positions: Tensor, tokens: Tokens, cells: QueryCells, queries: Queries, aqr: AqrOptions, fixed: bool
    ) -> _Routing:
        """Return the router's weights of queries at position embeddings (B, Q, C), and how they act.

        Args:
            fixed: the weights act without gradient.
        """
        memory, layout = tokens.memory, tokens.layout
        weights = self.aqr(
            positions, memory.keys, memory.values, cells, layout, aqr, queries.denoising, queries.agreement
        )
        routed = render_weights(weights.modality, weights.cameras, cells, layout, queries, aqr)
        acting, scale = weights, self.aqr.scale
        if fixed:
            acting, scale = weights.detached(), None if scale is None else scale.detach()
        if aqr.modulates:
            memory = tokens.modulated(routed.detached() if fixed else routed, cells, queries, aqr).memory
        return _Routing(
            memory, routed, window_bias.acting_bias(cells, acting, scale, layout, aqr), weights.gate, acting
        )

    def _placed(self, queries: Queries, maps: ProposalMaps | None, features: Features, *, compare: bool) -> Queries:
        """Return queries at the proposals, with what the other sensor shows there, and with the sensors' agreement."""
        queries = place_proposals(queries, self.proposals, maps, features)
        if self.proposals is None or maps is None or not self._compares:
            return queries
        queries = self.other_sensor(queries, self.proposals, maps, features)
        return compare_sensors(queries, self.proposals, maps, features) if compare else queries

    def _gated(
        self,
        queries: Queries,
        weights: RouterWeights | None,
        cells: QueryCells,
        by_lidar: Tensor,
        aqr: AqrOptions,
        *,
        fixed: bool,
    ) -> Queries:
        """Return queries with the other sensor's evidence and with the proposals' scores, as far as a gate trusts them.

        Args:
            weights: the router's; without a gate that acts, all sensors are trusted.
            by_lidar: (B, Q) bool, whether the LiDAR sees the query.
            fixed: the scales get no gradient.
        """
        acting = None if weights is None or weights.log_weights is None or not aqr.gates else weights
        queries = with_other_evidence(queries, cells, acting, aqr.strength)
        if self._compares:
            logit = self.other_sensor.beside_lidar
            queries = with_scores_beside_lidar(queries, by_lidar, acting, aqr.strength, logit)
        scales = self.aqr.score_scales
        if acting is None or scales is None:
            return queries
        return with_gated_scores(queries, cells, acting, aqr.strength * (scales.detach() if fixed else scales))
