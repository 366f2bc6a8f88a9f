"""The tokens around a query that MoME's router looks at (arXiv:2503.19776, local attention mask).

As the published weights were trained, so with their quirks; the project's own router (`models/aqr`) has none of them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from aqr_perception.models.aqr.router import window_tokens
from aqr_perception.models.tokens import TokenLayout

_IMAGE_WINDOW = 15
_BEV_WINDOW = 5
_NEAREST = 1e-5


class Windows(NamedTuple):
    """Each query's window of the BEV grid, then its window of one camera; each is there if its sensor is.

    Attributes:
        tokens: (B, Q, W) int64, of each sample's tokens; 0 outside the window's grid.
        inside: (B, Q, W) bool.
    """

    tokens: Tensor
    inside: Tensor


def router_windows(
    points: Tensor,
    point_range: tuple[float, ...],
    lidar_to_image: Tensor,
    image_size: tuple[int, int],
    layout: TokenLayout,
) -> Windows:
    """Return the windows around (B, Q, 3) points in metres, model frame.

    Args:
        point_range: x, y, z minimum and maximum in metres.
        lidar_to_image: (B, V, 4, 4), model frame -> pixels.
        image_size: height and width of the images in pixels.
        layout: of the tokens.
    """
    points = points.detach().float()
    tokens = [points.new_zeros(*points.shape[:2], 0, dtype=torch.int64)]
    inside = [points.new_zeros(*points.shape[:2], 0, dtype=torch.bool)]
    if layout.bev_tokens:
        near, exists = window_tokens(_bev_cells(points, point_range, layout.bev), layout.bev, _BEV_WINDOW)
        tokens.append(near.unflatten(0, points.shape[:2]))
        inside.append(exists.unflatten(0, points.shape[:2]))
    if layout.views:
        # In half precision a projection would be several cells off: it is a small difference of large products.
        with torch.autocast(points.device.type, enabled=False):
            view, cell = _image_cells(points, lidar_to_image.float(), image_size, layout.image)
        near, exists = window_tokens(cell, layout.image, _IMAGE_WINDOW)
        start = layout.bev_tokens + view * layout.tokens_per_view
        tokens.append(start[..., None] + near.unflatten(0, points.shape[:2]))
        inside.append(exists.unflatten(0, points.shape[:2]))
    return Windows(torch.cat(tokens, dim=-1), torch.cat(inside, dim=-1))


def _bev_cells(points: Tensor, point_range: tuple[float, ...], grid: tuple[int, int]) -> Tensor:
    """Return (B * Q, 2) rows and columns of (B, Q, 3) points."""
    rows, columns = grid
    column = torch.floor((points[..., 0] - point_range[0]) * (columns / (point_range[3] - point_range[0])))
    row = torch.floor((points[..., 1] - point_range[1]) * (rows / (point_range[4] - point_range[1])))
    # Quirk: a point beside the grid comes back in at its other side, one row on.
    token = (row * columns + column).long().flatten()
    return torch.stack((torch.div(token, columns, rounding_mode="floor"), token.remainder(columns)), dim=-1)


def _image_cells(
    points: Tensor, lidar_to_image: Tensor, image_size: tuple[int, int], grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return the camera (B, Q) and its row and column (B * Q, 2) at which each of (B, Q, 3) points is looked up."""
    height, width = image_size
    homogeneous = torch.nn.functional.pad(points, (0, 1), value=1.0)
    projected = torch.einsum("bvij,bqj->bqvi", lidar_to_image, homogeneous)
    # Quirk: the depth is held at 10 um, so that a point behind a camera and almost on its axis counts as seen.
    pixel = projected[..., :2] / projected[..., 2:3].clamp(min=_NEAREST)
    u, v = pixel.unbind(-1)
    seen = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    # Quirk: of the cameras that see a point, only the first in the order of the list counts.
    view = seen.int().argmax(-1)
    pixel = pixel.gather(2, view[..., None, None].expand(-1, -1, 1, 2)).squeeze(2)
    # Quirk: the scale of the rows is applied to the columns, too.
    cell = torch.floor(pixel.flip(-1) * (grid[0] / height))
    # Quirk: a point that no camera sees is looked up in the upper left corner of the first camera.
    return view, torch.where(seen.any(-1)[..., None], cell, 0.0).long().flatten(0, 1)
