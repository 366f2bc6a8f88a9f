# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Parts of AQR-CMT under the published key `pts_bbox_head`: CMT's parts with the research code's router.

Attribute names follow the checkpoints' keys.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from aqr_perception.models.aqr.published_windows import PublishedCells, Windows, published_cells, router_windows
from aqr_perception.models.aqr.window_bias import WindowBias
from aqr_perception.models.aqr_cmt.aqr_cmt_options import AqrCmtOptions
from aqr_perception.models.aqr_cmt.bias_generator import BiasGenerator, scaled_bias
from aqr_perception.models.aqr_cmt.feature_modulation import ModulationOptions, adaptive, channel_wise, element_wise
from aqr_perception.models.aqr_cmt.weight_generator import WeightGenerator
from aqr_perception.models.aqr_cmt.weight_maps import gaussian_kernel, render_bev, render_cameras
from aqr_perception.models.cmt.head import CmtHead, Tokens
from aqr_perception.models.config.presets import Preset
from aqr_perception.models.model_io import Features, Queries
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.options import AqrOptions

_CODE_RANGE = (-54.0, -54.0, 0.0, 54.0, 54.0, 0.0)
"""Range in metres that the research code writes out for BEV cells, whatever the preset's range and voxels are."""


_MODULATIONS = {"element_wise": element_wise, "channel_wise": channel_wise, "adaptive": adaptive}


class FeatureMaps(NamedTuple):
    """Weight maps that scale the features: (B, H, W) of the LiDAR and (B, V, h, w) of the cameras."""

    bev: Tensor
    cameras: Tensor


class _WeightRenderer(nn.Module):
    """The Gaussian of the weight maps."""

    gaussian_kernel: Tensor

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.register_buffer("gaussian_kernel", gaussian_kernel(sigma))


class AqrCmtHead(CmtHead):
    """CMT's parts, the router, and the two effects of its weights: modulation and bias."""

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        self.options = preset.architecture_options(AqrCmtOptions)
        self.aqr_weight_generator = WeightGenerator(preset.decoder.channels)
        # Weights without modulation have the renderer's constant, too.
        self.weight_renderer = _WeightRenderer(self.options.sigma)
        if self.options.learned_bias:
            assert preset.points is not None and preset.image is not None  # both needed by the architecture
            columns = (preset.points.bev_cells[0], preset.image.size[0] // preset.image.stride)
            self.attention_bias_generator = BiasGenerator(preset.aqr.bev_window, self.options.bias_scale, columns)

    def published_cells(self, queries: Queries, features: Features, layout: TokenLayout) -> PublishedCells:
        """Return the queries' cells as the research code computes them."""
        points = self.points(queries)
        return published_cells(points, _CODE_RANGE, features.lidar_to_image, features.image_size, layout)

    def router_windows(self, cells: PublishedCells, layout: TokenLayout, aqr: AqrOptions) -> Windows | None:
        """Return the tokens that the router attends to; None for all."""
        if aqr.router_attention == "global":
            return None
        return router_windows(cells, layout, aqr.router_bev_window, aqr.router_image_window)

    def feature_maps(
        self, weights: Tensor, cells: PublishedCells, layout: TokenLayout, aqr: AqrOptions, first: int
    ) -> FeatureMaps:
        """Return the maps that scale the features, from (B, Q, 2) weights of LiDAR and cameras.

        Args:
            weights: of all queries.
            cells: of all queries.
            layout: layout of the tokens.
            aqr: limit of the maps.
            first: first query to render. Denoising queries are left out, because they start at the true objects.
        """
        lidar, camera = weights[:, first:].unbind(-1)
        in_view = torch.cat((cells.view[..., None], cells.image), dim=-1)[:, first:]
        kernel, method = self.weight_renderer.gaussian_kernel, self.options.render_method
        least, limit = self.options.min_weight, aqr.map_limit
        bev = render_bev(lidar, cells.bev[:, first:], layout.bev, method, kernel=kernel, threshold=least, limit=limit)
        if not self.options.limit_camera_maps:
            least, limit = 0.0, math.inf
        place = (in_view, layout.views, layout.image)
        return FeatureMaps(bev, render_cameras(camera, *place, method, kernel=kernel, threshold=least, limit=limit))

    def modulated(self, tokens: Tokens, maps: FeatureMaps, aqr: AqrOptions) -> Tokens:
        """Return the tokens with features scaled by the maps; ``aqr.strength`` blends with the unscaled features."""
        layout, features = tokens.layout, tokens.features.transpose(1, 2)
        bev = features[..., : layout.bev_tokens].unflatten(-1, layout.bev)
        views = features[..., layout.bev_tokens :].unflatten(-1, (layout.views, *layout.image)).transpose(1, 2)
        modulate, options = _MODULATIONS[self.options.modulation], ModulationOptions(residual=aqr.residual)
        scaled = torch.cat(
            (
                modulate(bev, maps.bev, options).flatten(2),
                modulate(views, maps.cameras, options).transpose(1, 2).flatten(2),
            ),
            dim=-1,
        )
        if aqr.strength != 1:
            scaled = torch.lerp(features, scaled, aqr.strength)
        return tokens._replace(features=scaled.transpose(1, 2))

    def bias(self, weights: Tensor, cells: PublishedCells, layout: TokenLayout, aqr: AqrOptions) -> WindowBias:
        """Return the attention bias of (B, Q, 2) weights of LiDAR and cameras."""
        learned = self.options.learned_bias
        scale = self.attention_bias_generator.scale if learned else self.options.bias_scale
        return scaled_bias(weights, scale, cells, layout, aqr)
