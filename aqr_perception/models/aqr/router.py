"""The adaptive query router: looks at the tokens around each query and says what each sensor's evidence is worth.

After MoME's adaptive query router (arXiv:2503.19776), with every camera that sees a query counted, weights instead of
one choice, and the windows' tokens gathered instead of masks over all keys.
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.options import AqrOptions

_BLOCK = {"cpu": 32, "cuda": 2048}
"""Windows gathered at a time: their tokens fit a processor's cache, and keep a GPU busy."""


class RouterWeights(NamedTuple):
    """What the evidence is worth.

    Attributes:
        modality: (B, Q, 2) in 0..1: LiDAR, 0 outside the BEV grid; camera, 0 where no camera sees the query.
        cameras: (B, Q, V) in 0..1, at most the camera modality's weight; 0 where the camera does not see the query.
    """

    modality: Tensor
    cameras: Tensor


class _Windows(NamedTuple):
    """Windows of one kind: whose they are (P,), their tokens (P, W), both flat over the batch, and which exist."""

    query: Tensor
    tokens: Tensor
    inside: Tensor


class Router(nn.Module):
    """One post-norm attention layer over each query's windows, then sigmoid weights."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
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
        # An untrained router trusts every sensor: both factors of a camera's weight start near 0.95.
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
            query: position embeddings; the queries have no content yet.
            keys, values: (B, K, C) tokens, with and without position.
            cells: of the queries.
            layout: of the tokens.
            options: its window sizes are used.
        """
        batch, count, channels = query.shape
        bev = _bev_windows(cells, layout, options.router_bev_window)
        image = _image_windows(cells, layout, options.router_image_window)
        by_head = (-1, self.heads, channels // self.heads)
        asked = self.query(query).view(by_head)
        key, value = self.key(keys).view(by_head), self.value(values).view(by_head)

        lidar_seen, lidar_mass = self._attend(asked, key, value, bev)
        camera_seen, camera_mass = self._attend(asked, key, value, image)
        owner = torch.cat((bev.query, image.query))
        seen = _joint(torch.cat((lidar_seen, camera_seen)), torch.cat((lidar_mass, camera_mass)), owner, batch * count)

        state = self.norms[0](query.flatten(0, 1) + self.output(seen))
        state = self.norms[1](state + self.feedforward(state))
        lidar_evidence = self.evidence(torch.cat((state[bev.query], lidar_seen), dim=-1))[:, 0]
        camera_evidence = self.evidence(torch.cat((state[image.query], camera_seen), dim=-1))[:, 1]
        modality = self.modality(state).float()

        lidar = modality.new_zeros(batch * count)
        lidar = lidar.index_put((bev.query,), (modality[bev.query, 0] + lidar_evidence.float() - 3.0).sigmoid())
        visible = cells.image_visible
        camera = torch.where(visible.any(-1).flatten(), modality[:, 1].sigmoid(), 0.0)
        own = modality.new_zeros(visible.shape).masked_scatter(visible, camera_evidence.float().sigmoid())
        modality = torch.stack((lidar, camera), dim=-1).view(batch, count, 2)
        return RouterWeights(modality, own * modality[..., 1:])

    def _attend(self, asked: Tensor, key: Tensor, value: Tensor, windows: _Windows) -> tuple[Tensor, Tensor]:
        """Return each window's attended value (P, C) and log-sum-exp of its scores (P, heads)."""
        seen, mass = [], []
        block = _BLOCK.get(key.device.type, _BLOCK["cpu"])
        for query, tokens, inside in zip(*(part.split(block) for part in windows), strict=True):
            # (P, W, heads, d) products: with one query a window there is nothing that a matrix product would share.
            scores = (asked[query][:, None] * key[tokens]).sum(-1).float() * key.shape[-1] ** -0.5
            scores = scores.masked_fill(~inside[..., None], float("-inf"))
            mass.append(scores.logsumexp(1))
            attention = scores.softmax(1).to(value.dtype)
            seen.append((attention[..., None] * value[tokens]).sum(1).flatten(1))
        return torch.cat(seen), torch.cat(mass)


def _joint(seen: Tensor, mass: Tensor, owner: Tensor, count: int) -> Tensor:
    """Return (count, C): attention over all windows of a query, put together from its windows'; zero without any."""
    heads = mass.shape[1]
    by_owner = owner[:, None].expand(-1, heads)
    most = mass.new_full((count, heads), float("-inf")).scatter_reduce(0, by_owner, mass.detach(), "amax")
    share = (mass - most[owner]).exp()
    total = share.new_zeros(count, heads).index_add(0, owner, share)
    share = (share / total[owner])[..., None].to(seen.dtype)
    weighted = (seen.unflatten(1, (heads, -1)) * share).flatten(1)
    return seen.new_zeros(count, seen.shape[1]).index_add(0, owner, weighted)


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
    """Return (P, W) tokens of the windows around (P, 2) cells, and which of them lie inside the grid."""
    steps = torch.arange(window, device=cell.device) - window // 2
    row, column = (cell[:, None] + torch.cartesian_prod(steps, steps)).unbind(-1)
    inside = (row >= 0) & (row < grid[0]) & (column >= 0) & (column < grid[1])
    return torch.where(inside, row * grid[1] + column, 0), inside
