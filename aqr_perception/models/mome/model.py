# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""MoME, the mixture of multi-modal experts (arXiv:2503.19776): CMT with another transformer.

Attribute names follow the published checkpoints' keys.
"""

from aqr_perception.models.cmt.head import render_attention, render_weights
from aqr_perception.models.config.presets import Preset
from aqr_perception.models.fusion_model import FusionModel, lidar_groups, merge_groups
from aqr_perception.models.model_io import DecodeOptions, Features, History, ModelOutput, Queries
from aqr_perception.models.mome.experts import expert_weights
from aqr_perception.models.mome.head import MoMEHead


class MoME(FusionModel):
    """Routes each query to one expert, which sees both sensors, LiDAR only or cameras only.

    The router's probabilities are the query weights; see `experts.expert_weights`. They act through the choice of the
    expert. Of `AqrOptions`, only the options of the weight maps have an effect; mode, strength and windows have none.

    Attributes:
        router_prefixes: key prefixes of the router's parameters, which ``train aqr`` trains.
    """

    router_prefixes = ("pts_bbox_head.transformer.encoder.", "pts_bbox_head.transformer.selected_cls.")

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        self.router_trained = True
        self.pts_bbox_head = MoMEHead(preset)

    def decode(
        self,
        features: Features,
        options: DecodeOptions,
        queries: Queries | None = None,
        history: History | None = None,
    ) -> ModelOutput:
        """Return predictions and query weights of one batch, always with the router's weights.

        The choice of an expert is hard, also in training, and passes no gradient. The router learns from
        `training.losses.router_loss` through the probabilities behind its weights (`ModelOutput.router`).
        """
        head, transformer, aqr = self.pts_bbox_head, self.pts_bbox_head.transformer, options.aqr
        queries = queries or head.learned_queries(features.batch_size)

        groups, outputs = lidar_groups(features), []
        for samples in groups:
            group, group_queries = features.select(samples), queries.select(samples)
            # Tokens, and the queries' position embeddings.
            tokens = head.tokens(group)
            memory, layout = tokens.memory, tokens.layout
            bev_position, image_position = head.sensor_positions(group_queries, group)
            position = bev_position + image_position

            # Routing to experts.
            windows = head.windows(group_queries, group, layout)
            probabilities = transformer.probabilities(position, memory, windows)
            # Decoding and prediction.
            decoded = transformer.decode(
                probabilities.argmax(-1),
                (position, bev_position, image_position),
                memory,
                group.lidar_to_image,
                group_queries.mask,
                options.attention_weights,
            )
            predictions = head.predict(decoded.queries, group_queries, options.layers)

            # Query weights.
            cells = head.cells(group_queries, group, layout)
            routed = render_weights(
                *expert_weights(probabilities, cells.image_visible), cells, layout, group_queries, aqr
            )
            attention = render_attention(decoded.mass, cells, layout, group_queries, aqr)
            outputs.append(ModelOutput(predictions, routed, attention))
        return merge_groups(outputs, groups)._replace(queries=queries)
