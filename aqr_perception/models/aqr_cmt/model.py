# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""AQR-CMT, CMT with the adaptive query routing of the research code, whose checkpoints it loads.

Attribute names follow the checkpoints' keys.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from aqr_perception.models.aqr_cmt.bias_generator import converted_constants, stored_window
from aqr_perception.models.aqr_cmt.head import AqrCmtHead
from aqr_perception.models.cmt.head import render_attention, render_weights
from aqr_perception.models.config.presets import Preset
from aqr_perception.models.fusion_model import FusionModel, lidar_groups, merge_groups
from aqr_perception.models.model_io import DecodeOptions, Features, History, ModelOutput, Queries, QueryWeights
from aqr_perception.models.removed_tokens import kept_tokens
from aqr_perception.options import AqrOptions

_BIAS_GENERATOR = "pts_bbox_head.attention_bias_generator."

_log = logging.getLogger(__name__)


class AqrCMT(FusionModel):
    """CMT with one LiDAR weight and one camera weight for each query, which scale features or bias attention.

    The camera weight belongs to one camera: the first in the list that sees the query. With AQR off, the model is CMT.

    Attributes:
        router_prefixes: key prefixes of the parameters that ``train aqr`` trains.
    """

    router_prefixes = ("pts_bbox_head.aqr_weight_generator.", _BIAS_GENERATOR)
    optional_router = (*router_prefixes, "pts_bbox_head.weight_renderer.")
    # The research code does not supervise the weights, and signed weights are no probabilities.
    router_supervised = False
    removes_tokens = True

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        self.router_trained = True
        self.pts_bbox_head = AqrCmtHead(preset)

    def convert_weights(self, name: str, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return weights of any variant of the bias generator in this model's shapes.

        Raises:
            CheckpointError: the file's constants are not those of a uniform window.
        """
        if not self.pts_bbox_head.options.learned_bias:
            return weights
        return converted_constants(name, weights, _BIAS_GENERATOR, self.pts_bbox_head.attention_bias_generator)

    def adopt_variant(self, name: str, weights: Mapping[str, Tensor]) -> None:
        """Take over the window of the bias from loaded weights, since their constants tell it."""
        window, trained = stored_window(weights, _BIAS_GENERATOR), self.preset.aqr.bev_window
        if window is None or window == trained or not self.pts_bbox_head.options.learned_bias:
            return
        _log.warning(
            "%s: was trained with bias windows of %d x %d cells, not the preset's %d x %d; the file's are used",
            *(name, window, window, trained, trained),
        )
        self.pts_bbox_head.attention_bias_generator.set_window(window)
        aqr = replace(self.preset.aqr, bev_window=window, image_window=window)
        self.preset = replace(self.preset, aqr=aqr)
        self.aqr_options = replace(self.aqr_options, bev_window=window, image_window=window)

    def signed_weights(self, aqr: AqrOptions) -> bool:
        """Return whether the router's weights may be negative with these options."""
        return aqr.resolved(self.preset.aqr).activation == "tanh"

    def decode(
        self,
        features: Features,
        options: DecodeOptions,
        queries: Queries | None = None,
        history: History | None = None,
    ) -> ModelOutput:
        """Return predictions and query weights of one batch."""
        head, aqr = self.pts_bbox_head, options.aqr.resolved(self.preset.aqr)
        needs_router = self.router_trained and (options.router_weights or aqr.modulates or aqr.biases)
        queries = queries or head.learned_queries(features.batch_size)

        groups, outputs = lidar_groups(features), []
        for samples in groups:
            group, group_queries = features.select(samples), queries.select(samples)
            # Tokens, and the queries' cells among them.
            tokens = head.tokens(group)
            memory, layout = tokens.memory, tokens.layout
            cells = head.published_cells(group_queries, group, layout)
            placed = cells.query_cells(layout)
            # Windows keep the code's BEV cells of 54 and 108 m; pictures show a weight at its query's true place.
            shown = head.cells(group_queries, group, layout)
            positions = head.query_positions(group_queries, group)

            # Adaptive query routing.
            routed, bias = None, None
            if needs_router:
                windows = head.router_windows(cells, layout, aqr)
                weights = head.aqr_weight_generator(positions, memory, windows, aqr.activation)
                cameras = weights[..., 1:] * placed.image_visible
                if aqr.modulates:
                    maps = head.feature_maps(weights, cells, layout, aqr, group_queries.denoising)
                    memory = head.modulated(tokens, maps, aqr).memory
                    routed = QueryWeights(weights, cameras, *maps)
                else:
                    routed = render_weights(weights, cameras, shown, layout, group_queries, aqr)
                if aqr.biases:
                    bias = head.bias(weights, cells, layout, aqr)

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
            attention = render_attention(decoded.mass, shown, layout, group_queries, aqr)
            outputs.append(ModelOutput(predictions, routed, attention))
        return merge_groups(outputs, groups)._replace(queries=queries)
