# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Buckets of CUDA graphs, with functions in place of graphs, which need a GPU."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from aqr_perception.models.image.graphed_branch import BUCKETS, GraphedBranch, bucket, captured, padded


def branch(images: Tensor) -> Tensor:
    return images.mean((3, 4)) * 2


class Capture:
    """Stands in for CUDA: a 'graph' takes only images of its shape."""

    def __init__(self) -> None:
        self.shapes: list[torch.Size] = []

    def __call__(self, run: Callable[[Tensor], Tensor], example: Tensor) -> Callable[[Tensor], Tensor]:
        self.shapes.append(example.shape)

        def replay(images: Tensor) -> Tensor:
            assert images.shape == example.shape
            return run(images)

        return replay


def test_each_number_of_cameras_has_the_smallest_bucket_that_holds_it() -> None:
    for count in range(1, BUCKETS[-1] + 1):
        size = bucket(count)
        assert size is not None and size >= count and not any(count <= other < size for other in BUCKETS)
    assert bucket(BUCKETS[-1] + 1) is None


def test_padding_adds_zeros_after_the_images() -> None:
    images = torch.ones(1, 2, 3, 4, 4)
    assert padded(images, 2) is images
    whole = padded(images, 4)
    assert torch.equal(whole[:, :2], images) and whole.shape[1] == 4 and not whole[:, 2:].any()


def test_results_equal_the_branchs_and_each_bucket_is_captured_once() -> None:
    capture = Capture()
    graphed = GraphedBranch(branch, capture)
    for count in (6, 5, 6, 3, 13):
        images = torch.rand(1, count, 3, 4, 6, generator=torch.Generator().manual_seed(count))
        torch.testing.assert_close(graphed(images), branch(images), rtol=0, atol=0)
    assert [shape[1] for shape in capture.shapes] == [6, 3]


def test_another_image_size_is_another_graph() -> None:
    capture = Capture()
    graphed = GraphedBranch(branch, capture)
    for size in ((4, 6), (8, 6)):
        graphed(torch.rand(1, 2, 3, *size))
    assert len(capture.shapes) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_graph_replays_new_images() -> None:
    first, second = torch.rand(2, 1, 2, 3, 8, 8, device="cuda")
    with torch.inference_mode():
        graph = captured(branch, first)
        kept = graph(first)
        torch.testing.assert_close(graph(second), branch(second))
        torch.testing.assert_close(kept, branch(first))
