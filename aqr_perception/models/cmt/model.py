# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""CMT, the cross-modal transformer (arXiv:2301.01283), with AQR: cameras and LiDAR in, class logits and boxes out.

Attribute names follow the published checkpoints' keys.
"""

from aqr_perception.models.aqr import window_bias
from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.aqr.router import Router, RouterWeights, other_kind_problem, router_kind
from aqr_perception.models.cmt.head import CmtHead, render_attention, render_weights
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
    no_predictions,
)
from aqr_perception.models.proposals.gated_proposals import with_gated_scores, with_other_evidence
from aqr_perception.models.proposals.other_sensor import OtherSensor
from aqr_perception.models.proposals.queries import compare_sensors, place_proposals, proposal_head
from aqr_perception.models.removed_tokens import kept_tokens
from aqr_perception.options import AqrOptions


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
        self.aqr = Router(preset.decoder.channels, router_kind(preset.aqr), compared)
        self.proposals = proposal_head(preset)
        if self._compares:
            self.other_sensor = OtherSensor(preset)

    def aqr_problem(self, aqr: AqrOptions) -> str | None:
        """Return why the model's router cannot act as the options say; None if it can."""
        needed = aqr.resolved(self.preset.aqr)
        if not self.router_trained or not needed.acts:
            return None
        return other_kind_problem(self.preset.name, self.aqr.kind, needed)

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

        # Queries start at proposals or learned reference points.
        proposals = self.propose(features)
        queries = queries or head.learned_queries(features.batch_size)
        queries = self._placed(queries, proposals, features, compare=needs_router and self.aqr.compares)

        groups, outputs = lidar_groups(features), []
        for samples in groups:
            group, group_queries = features.select(samples), queries.select(samples)
            # Tokens, and the queries' cells among them.
            tokens = head.tokens(group)
            memory, layout = tokens.memory, tokens.layout
            cells = head.cells(group_queries, group, layout)
            positions = head.query_positions(group_queries, group)

            # Adaptive query routing.
            routed, bias, gate, acting = None, None, None, None
            if needs_router:
                first = group_queries.denoising
                weights = self.aqr(
                    positions, memory.keys, memory.values, cells, layout, aqr, first, group_queries.agreement
                )
                routed = render_weights(weights.modality, weights.cameras, cells, layout, group_queries, aqr)
                gate = weights.gate
                acting, scale = weights, self.aqr.scale
                if options.fixed_router:
                    acting, scale = weights.detached(), None if scale is None else scale.detach()
                if aqr.modulates:
                    drawn = routed.detached() if options.fixed_router else routed
                    memory = tokens.modulated(drawn, cells, group_queries, aqr).memory
                bias = window_bias.acting_bias(cells, acting, scale, layout, aqr)
            if options.layers == NO_LAYER:  # the weights alone
                outputs.append(ModelOutput(no_predictions(positions, len(self.classes)), routed, None, gate=gate))
                continue
            group_queries = self._gated(group_queries, acting, cells, aqr, fixed=options.fixed_router)

            # Decoding and prediction.
            decoded = head.transformer.decoder(
                positions,
                kept_tokens(memory, group, bias),
                bias,
                group_queries.mask,
                options.attention_weights,
                content=group_queries.content,
            )
            predictions = head.predict(decoded.queries, group_queries, options.layers)
            attention = render_attention(decoded.mass, cells, layout, group_queries, aqr)
            outputs.append(ModelOutput(predictions, routed, attention, gate=gate))
        return merge_groups(outputs, groups)._replace(queries=queries, proposals=proposals)

    def _placed(self, queries: Queries, maps: ProposalMaps | None, features: Features, *, compare: bool) -> Queries:
        """Return queries at the proposals, with what the other sensor shows there, and with the sensors' agreement."""
        queries = place_proposals(queries, self.proposals, maps, features)
        if self.proposals is None or maps is None or not self._compares:
            return queries
        queries = self.other_sensor(queries, self.proposals, maps, features)
        return compare_sensors(queries, self.proposals, maps, features) if compare else queries

    def _gated(
        self, queries: Queries, weights: RouterWeights | None, cells: QueryCells, aqr: AqrOptions, *, fixed: bool
    ) -> Queries:
        """Return queries with the other sensor's evidence and with the proposals' scores, as far as a gate trusts them.

        Args:
            weights: the router's; without a gate that acts, all sensors are trusted.
            fixed: the scales get no gradient.
        """
        acting = None if weights is None or weights.log_weights is None or not aqr.gates else weights
        queries = with_other_evidence(queries, cells, acting, aqr.strength)
        scales = self.aqr.score_scales
        if acting is None or scales is None:
            return queries
        return with_gated_scores(queries, cells, acting, aqr.strength * (scales.detach() if fixed else scales))
