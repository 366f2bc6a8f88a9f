"""Adaptive query router: predicts the weight of each sensor for each query from the tokens around it.

It follows MoME's adaptive query router (arXiv:2503.19776) with three differences: it uses every camera that sees a
query, it returns weights instead of one choice, and it gathers the tokens of the windows instead of masking all keys.
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.options import AqrOptions

HEADS = 4
"""Attention heads of the router."""

_BLOCK = {"cpu": 32, "cuda": 2048}
"""Windows per gather: their tokens fit into a processor's cache, or keep a GPU busy."""


class RouterWeights(NamedTuple):
    """Weights of the sensors for each query.

    Attributes:
        modality: (B, Q, 2) in 0..1: weights of the LiDAR (0 outside the BEV grid) and of the cameras (0 if no camera
            sees the query).
        cameras: (B, Q, V) in 0..1, weight of each camera, at most the cameras' weight in ``modality``; 0 if the camera
            does not see the query.
    """

    modality: Tensor
    cameras: Tensor


class _Windows(NamedTuple):
    """Windows of one kind.

    Attributes:
        query: (P,) int64, the window's query, numbered over the batch.
        tokens: (P, W) int64, the window's tokens, numbered over the batch.
        inside: (P, W) bool, whether the token is inside the grid.
    """

    query: Tensor
    tokens: Tensor
    inside: Tensor


class Router(nn.Module):
    """One post-norm attention layer over each query's windows, followed by sigmoid weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.feedforward = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.ReLU(), nn.Linear(2 * channels, channels)
        )
        self.modality = nn.Linear(channels, 2)
        self.evidence = nn.Sequential(nn.Linear(2 * channels, channels), nn.ReLU(), nn.Linear(channels, 2))
        # An untrained router trusts all sensors: both factors of a camera's weight start near 0.95.
        for last in (self.modality, cast(nn.Linear, self.evidence[-1])):
            nn.init.normal_(last.weight, std=0.01)
            nn.init.constant_(last.bias, 3.0)

    def forward(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        cells: QueryCells,
        layout: TokenLayout,
        options: AqrOptions,
    ) -> RouterWeights:
        """Return the weights of (B, Q, C) queries.

        Args:
            query: (B, Q, C) position embeddings of the queries, which have no content yet.
            keys, values: (B, K, C) tokens with and without position embedding.
            cells: cells of the queries.
            layout: layout of the tokens.
            options: window sizes.
        """
        batch, count, _ = query.shape
        bev = _bev_windows(cells, layout, options.router_bev_window)
        image = _image_windows(cells, layout, options.router_image_window)
        tokens = (keys.flatten(0, 1), values.flatten(0, 1))
        projected = self._folded_queries(query)

        lidar_attended, lidar_lse = self._attend(projected, *tokens, bev)
        camera_attended, camera_lse = self._attend(projected, *tokens, image)
        attended = _merge_windows(
            torch.cat((lidar_attended, camera_attended)),
            torch.cat((lidar_lse, camera_lse)),
            torch.cat((bev.query, image.query)),
            batch * count,
        )

        state = self.norms[0](query.flatten(0, 1) + self.output(attended))
        state = self.norms[1](state + self.feedforward(state))
        lidar_evidence = self.evidence(torch.cat((state[bev.query], lidar_attended), dim=-1))[:, 0]
        camera_evidence = self.evidence(torch.cat((state[image.query], camera_attended), dim=-1))[:, 1]
        modality = self.modality(state).float()

        lidar = modality.new_zeros(batch * count)
        lidar = lidar.index_put((bev.query,), (modality[bev.query, 0] + lidar_evidence.float() - 3.0).sigmoid())
        visible = cells.image_visible
        camera = torch.where(visible.any(-1).flatten(), modality[:, 1].sigmoid(), 0.0)
        evidence = modality.new_zeros(visible.shape).masked_scatter(visible, camera_evidence.float().sigmoid())
        modality = torch.stack((lidar, camera), dim=-1).view(batch, count, 2)
        return RouterWeights(modality, evidence * modality[..., 1:])

    def _folded_queries(self, query: Tensor) -> Tensor:
        """Return (B * Q, heads, C) queries whose products with tokens, instead of with projected ones, are the scores.

        q . (K k) = (K^T q) . k, and a weighted sum of projections is the projection of the weighted sum: projecting a
        few hundred queries and sums replaces that of tens of thousands of tokens. The keys' bias adds the same to all
        scores of a query, and the softmax cancels it.
        """
        projected = self.query(query).flatten(0, 1).unflatten(-1, (HEADS, -1))
        to_key = self.key.weight.view(HEADS, -1, query.shape[-1])
        return torch.einsum("qhd,hdc->qhc", projected * projected.shape[-1] ** -0.5, to_key)

    def _attend(self, projected: Tensor, keys: Tensor, values: Tensor, windows: _Windows) -> tuple[Tensor, Tensor]:
        """Return each window's attended value (P, C) and log-sum-exp of its scores (P, heads)."""
        sums, log_sum_exp = [], []
        block = _BLOCK.get(keys.device.type, _BLOCK["cpu"])
        for query, tokens, inside in zip(*(part.split(block) for part in windows), strict=True):
            scores = (projected[query] @ keys[tokens].transpose(1, 2)).float()  # (P, heads, W)
            scores = scores.masked_fill(~inside[:, None], float("-inf"))
            log_sum_exp.append(scores.logsumexp(-1))
            sums.append(scores.softmax(-1).to(values.dtype) @ values[tokens])
        to_value = self.value.weight.view(HEADS, -1, keys.shape[-1])
        attended = torch.einsum("phc,hdc->phd", torch.cat(sums), to_value).flatten(1)
        return attended + self.value.bias, torch.cat(log_sum_exp)


def _merge_windows(attended: Tensor, log_sum_exp: Tensor, query: Tensor, count: int) -> Tensor:
    """Merge attention over single windows into attention over all windows of a query.

    Args:
        attended: (P, C) attended value of each window.
        log_sum_exp: (P, heads) of each window's scores.
        query: (P,) the window's query.
        count: number of queries.

    Returns:
        (count, C), zero for queries without a window.
    """
    heads = log_sum_exp.shape[1]
    index = query[:, None].expand(-1, heads)
    largest = log_sum_exp.new_full((count, heads), float("-inf"))
    largest = largest.scatter_reduce(0, index, log_sum_exp.detach(), "amax")
    share = (log_sum_exp - largest[query]).exp()
    total = share.new_zeros(count, heads).index_add(0, query, share)
    share = (share / total[query])[..., None].to(attended.dtype)
    weighted = (attended.unflatten(1, (heads, -1)) * share).flatten(1)
    return attended.new_zeros(count, attended.shape[1]).index_add(0, query, weighted)


def _bev_windows(cells: QueryCells, layout: TokenLayout, window: int) -> _Windows:
    sample, query = cells.bev_inside.nonzero(as_tuple=True)
    tokens, inside = window_tokens(cells.bev[sample, query], layout.bev, window)
    return _Windows(sample * cells.bev.shape[1] + query, sample[:, None] * layout.total + tokens, inside)


def _image_windows(cells: QueryCells, layout: TokenLayout, window: int) -> _Windows:
    sample, query, view = cells.image_visible.nonzero(as_tuple=True)
    tokens, inside = window_tokens(cells.image[sample, query, view], layout.image, window)
    start = sample * layout.total + layout.bev_tokens + view * layout.tokens_per_view
    return _Windows(sample * cells.bev.shape[1] + query, start[:, None] + tokens, inside)


def window_tokens(cell: Tensor, grid: tuple[int, int], window: int) -> tuple[Tensor, Tensor]:
    """Return the (P, W) tokens of square windows around (P, 2) cells, and whether they are inside the grid."""
    steps = torch.arange(window, device=cell.device) - window // 2
    row, column = (cell[:, None] + torch.cartesian_prod(steps, steps)).unbind(-1)
    inside = (row >= 0) & (row < grid[0]) & (column >= 0) & (column < grid[1])
    return torch.where(inside, row * grid[1] + column, 0), inside
