# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Image branch as CUDA graphs, one for each bucket of camera counts.

Launching a backbone's few hundred kernels one by one costs a GPU more than the arithmetic of small images. A graph
replays them in one launch, but has fixed shapes. Not measured on a GPU.
"""

from collections.abc import Callable

import torch
from torch import Tensor

BUCKETS = (1, 2, 3, 4, 6, 8, 12)
"""Numbers of cameras for which graphs are captured; others run with images of zeros up to the next one."""

Branch = Callable[[Tensor], Tensor]
_WARM_UP_RUNS = 3


def bucket(count: int) -> int | None:
    """Return the smallest bucket for a number of cameras; None beyond the largest."""
    return next((size for size in BUCKETS if size >= count), None)


def padded(images: Tensor, count: int) -> Tensor:
    """Return (1, count, 3, H, W) images: the given (1, V, 3, H, W) ones, then zeros."""
    if images.shape[1] == count:
        return images
    return torch.cat((images, images.new_zeros(1, count - images.shape[1], *images.shape[2:])), dim=1)


class GraphedBranch:
    """An image branch that is captured once for each bucket and image size.

    Args:
        branch: features (1, V, ...) of (1, V, 3, H, W) normalised images.
        capture: returns a function with the branch's results for images of one shape; None for `captured`.
    """

    def __init__(self, branch: Branch, capture: Callable[[Branch, Tensor], Branch] | None = None) -> None:
        self._branch, self._capture = branch, capture or captured
        self._graphs: dict[torch.Size, Branch] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of the images; the branch itself runs for more cameras than the largest bucket."""
        size = bucket(images.shape[1])
        if size is None:
            return self._branch(images)
        whole = padded(images, size)
        if whole.shape not in self._graphs:
            self._graphs[whole.shape] = self._capture(self._branch, whole)
        return self._graphs[whole.shape](whole)[:, : images.shape[1]]


def captured(branch: Branch, example: Tensor) -> Branch:
    """Return the branch as a CUDA graph for images of the example's shape."""
    dtype, mixed = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
    images = example.clone()

    def run() -> Tensor:
        # The cache of cast weights would be freed after the capture, while the graph still reads it.
        with torch.autocast("cuda", dtype, mixed, cache_enabled=False):
            return branch(images)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP_RUNS):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        features = run()

    def replay(new_images: Tensor) -> Tensor:
        images.copy_(new_images)
        graph.replay()
        return features.clone()

    return replay
