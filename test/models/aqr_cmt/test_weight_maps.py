# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Weight maps equal those of the research code, are bounded, and do not depend on the order of queries."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aqr_perception.models.aqr_cmt import weight_maps
from aqr_perception.models.aqr_cmt.weight_maps import gaussian_kernel, post_process, render_bev, render_cameras

METHODS = ("gaussian", "bilinear", "direct", "distance_weighted")
GOLDEN_METHODS = {"gaussian_sigma1": ("gaussian", 1.0), "gaussian_sigma2": ("gaussian", 2.0)} | {
    method: (method, 1.0) for method in METHODS[1:]
}
INPUTS = {"weights", "pts_bev", "pts_bev_fractional", "pts_pers", "weights_signed"}
BEV, CAMERAS = ("bev", "bev_fractional", "bev_not_normalized"), "image"
KERNEL = gaussian_kernel(1.0)


@pytest.fixture(scope="module")
def functions(shared_reference: Path) -> dict[str, Tensor]:
    file = np.load(shared_reference / "golden" / "aqr_functions.npz")
    return {key[7:]: torch.from_numpy(file[key]) for key in file if key.startswith("render/")}


@pytest.fixture(scope="module")
def model_run(shared_reference: Path) -> dict[str, Tensor]:
    file = np.load(shared_reference / "golden" / "aqr_cmt_modulation_voxel0100_r50_800x320.npz")
    kinds = (
        "lidar_weights",
        "camera_weights",
        "router/logits",
        "projection",
        "weight_map",
        "unclamped",
        "tanh",
        "buffer",
    )
    return {key: torch.from_numpy(file[key]) for key in file if key.startswith(kinds)}


def assert_close(maps: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(maps, expected, atol=1e-5, rtol=0)


def test_the_tests_below_cover_every_array_of_the_file(functions: dict[str, Tensor]) -> None:
    maps = {f"{method}/{kind}" for method in GOLDEN_METHODS for kind in (*BEV, CAMERAS)}
    kernels = {"gaussian_sigma1/kernel", "gaussian_sigma2/kernel"}
    assert set(functions) == INPUTS | maps | kernels | {"signed/bev", "signed/image", "signed/weights_after"}


@pytest.mark.parametrize("sigma", [1, 2])
def test_kernels_equal_the_research_codes(functions: dict[str, Tensor], sigma: int) -> None:
    expected = functions[f"gaussian_sigma{sigma}/kernel"]
    torch.testing.assert_close(gaussian_kernel(sigma), expected, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("kind", BEV)
@pytest.mark.parametrize("name", GOLDEN_METHODS)
def test_bev_maps_equal_the_research_codes(functions: dict[str, Tensor], name: str, kind: str) -> None:
    method, sigma = GOLDEN_METHODS[name]
    cells = functions["pts_bev_fractional" if kind == "bev_fractional" else "pts_bev"]
    limit = math.inf if kind == "bev_not_normalized" else 1.5
    kernel = gaussian_kernel(sigma)
    assert_close(
        render_bev(functions["weights"], cells, (14, 12), method, kernel=kernel, limit=limit),
        functions[f"{name}/{kind}"],
    )


@pytest.mark.parametrize("name", GOLDEN_METHODS)
def test_camera_maps_equal_the_research_codes_or_are_refused(functions: dict[str, Tensor], name: str) -> None:
    method, sigma = GOLDEN_METHODS[name]
    expected = functions[f"{name}/image"]
    arguments = functions["weights"], functions["pts_pers"], 2, (9, 11), method
    if expected.any():
        assert_close(render_cameras(*arguments, kernel=gaussian_kernel(sigma)), expected)
    else:
        with pytest.raises(ValueError, match=f'"{method}" has no camera maps: choose "gaussian"'):
            render_cameras(*arguments, kernel=gaussian_kernel(sigma))


def test_signed_weights_are_limited_for_the_bev_map_only(functions: dict[str, Tensor]) -> None:
    signed, limited = functions["weights_signed"], functions["signed/weights_after"]
    for weights in (signed, limited):
        bev = render_bev(weights, functions["pts_bev"], (14, 12), kernel=KERNEL)
        assert_close(bev, functions["signed/bev"])
    image = render_cameras(signed, functions["pts_pers"], 2, (9, 11), kernel=KERNEL)
    assert_close(image, functions["signed/image"])
    torch.testing.assert_close(signed.clamp(0, 1), limited, atol=0, rtol=0)


@pytest.mark.parametrize("variant", ["", "unclamped_image/", "tanh/"])
def test_maps_of_the_model_equal_the_research_codes(model_run: dict[str, Tensor], variant: str) -> None:
    lidar, camera = model_run["lidar_weights"], model_run["camera_weights"]
    if variant == "tanh/":
        lidar, camera = model_run["router/logits"].tanh().unbind(-1)
    kernel = model_run["buffer/pts_bbox_head.weight_renderer.gaussian_kernel"]
    raw = {"threshold": 0.0, "limit": math.inf} if variant == "unclamped_image/" else {}
    cells = model_run["projection/pts_pers"]
    name = f"{variant}weight_map" if raw else f"{variant}weight_map/image"
    assert_close(render_cameras(camera, cells, 6, (20, 50), kernel=kernel, **raw), model_run[name])
    if not raw:
        bev = render_bev(lidar, model_run["projection/pts_bev"], (128, 128), kernel=gaussian_kernel(1.0))
        assert_close(bev, model_run[f"{variant}weight_map/bev"])


def random_case(seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights (2, 60) in -1..2, BEV cells for a grid of (9, 14), and camera cells for 3 grids of it.

    Cells are fractional, and some are outside.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(2, 60, generator=generator, dtype=dtype) * 3 - 1
    places = torch.rand(2, 60, 2, generator=generator, dtype=dtype) * torch.tensor([13.0, 18.0]) - 2
    views = torch.randint(-1, 4, (2, 60, 1), generator=generator)
    return weights, places, torch.cat((views.to(dtype), places), dim=-1)


def render(method: str, weights: Tensor, cells: Tensor) -> Tensor:
    """Return (B, 3, 9, 14) maps without limit."""
    arguments = (KERNEL,) if method == "gaussian" else ()
    return getattr(weight_maps, method)(weights, cells, (3, 9, 14), *arguments)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_queries_does_not_matter(method: str) -> None:
    weights, _, cells = random_case(0)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(render(method, weights[:, order], cells[:, order]), render(method, weights, cells))


@pytest.mark.parametrize("method", METHODS)
def test_a_weight_of_zero_leaves_a_query_out(method: str) -> None:
    weights, _, cells = random_case(2)
    masked = torch.where(torch.arange(60) < 40, weights, 0.0)
    torch.testing.assert_close(render(method, masked, cells), render(method, weights[:, :40], cells[:, :40]))


@given(st.integers(0, 2**31), st.floats(0.0, 0.1), st.floats(0.2, 3.0), st.sampled_from(METHODS))
@settings(max_examples=60, deadline=None)
def test_values_are_zero_or_between_threshold_and_limit(seed: int, threshold: float, limit: float, method: str) -> None:
    weights, bev, image = random_case(seed)
    bounds = {"threshold": threshold, "limit": limit, "kernel": gaussian_kernel(0.5)}
    maps = [render_bev(weights, bev, (9, 14), method, **bounds)]
    if method in ("gaussian", "direct"):
        maps.append(render_cameras(weights, image, 3, (9, 14), method, **bounds).flatten(1, 2))
    for found in maps:
        assert found.max() > 0
        assert ((found == 0) | ((found >= threshold) & (found <= limit))).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "cell",
    [
        (0, -4, 5),
        (0, 12, 5),
        (0, 5, -4),
        (0, 5, 17),
        (-1, 5, 5),
        (3, 5, 5),
        (0, math.nan, 5),
        (1, 5, math.inf),
        (0, 5, 1e30),
    ],
)
def test_a_query_outside_the_grids_adds_nothing(method: str, cell: tuple[float, float, float]) -> None:
    assert not render(method, torch.ones(1, 1), torch.tensor([[cell]])).any()
    assert render(method, torch.ones(1, 1), torch.tensor([[(0, 5, 5)]])).any()


@pytest.mark.parametrize("method", METHODS)
def test_a_query_adds_to_its_own_view_and_sample_only(method: str) -> None:
    maps = render(method, torch.ones(2, 1), torch.tensor([[(0, 5, 5)], [(2, 5, 5)]]))
    assert maps.flatten(2).any(-1).tolist() == [[True, False, False], [False, False, True]]


@pytest.mark.parametrize("method", METHODS)
def test_weights_below_one_hundredth_add_nothing_in_a_crowd_either(method: str) -> None:
    crowd = torch.tensor([(0, 5, 5)]).expand(1, 100, 3)
    assert not render(method, torch.full((1, 100), 0.009), crowd).any()
    assert render(method, torch.full((1, 100), 0.011), crowd).any()


def test_a_weight_that_is_not_a_number_does_not_spread() -> None:
    maps = render("gaussian", torch.tensor([[math.nan, 0.5]]), torch.tensor([[(0, 5, 5), (0, 5, 5)]]))
    assert maps.isfinite().all() and maps.any()


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r'"cubic".*gaussian, bilinear, direct, distance_weighted'):
        render_bev(torch.ones(1, 1), torch.zeros(1, 1, 2), (4, 4), "cubic", kernel=KERNEL)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_of_the_weights_are_exact(method: str) -> None:
    weights, _, cells = random_case(3, torch.float64)
    weights = weights[:, :12].requires_grad_()
    assert torch.autograd.gradcheck(lambda given: render(method, given, cells[:, :12]), weights)


def test_gradients_stop_at_the_limit_and_below_the_threshold() -> None:
    maps = torch.tensor([0.005, 0.5, 2.0], requires_grad=True)
    post_process(maps).sum().backward()
    assert maps.grad is not None and maps.grad.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("method", METHODS)
def test_maps_are_float32_under_autocast_and_from_half_precision(method: str) -> None:
    weights, _, cells = random_case(4)
    expected = render(method, weights, cells)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(render(method, weights, cells), expected)
    assert render(method, weights.half(), cells).dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", METHODS)
def test_maps_are_the_same_on_a_gpu(method: str) -> None:
    weights, bev, image = random_case(6)
    kernel = KERNEL.cuda()
    found = render_bev(weights.cuda(), bev.cuda(), (9, 14), method, kernel=kernel)
    torch.testing.assert_close(found.cpu(), render_bev(weights, bev, (9, 14), method, kernel=KERNEL))
    if method in ("gaussian", "direct"):
        found = render_cameras(weights.cuda(), image.cuda(), 3, (9, 14), method, kernel=kernel)
        torch.testing.assert_close(found.cpu(), render_cameras(weights, image, 3, (9, 14), method, kernel=KERNEL))


@pytest.mark.parametrize("method", METHODS)
def test_integer_cells_are_the_same_as_floats(method: str) -> None:
    weights, _, cells = random_case(5)
    cells = cells.floor()
    assert torch.equal(render(method, weights, cells.long()), render(method, weights, cells))


@pytest.mark.parametrize("method", METHODS)
def test_no_queries_and_missing_sensors_give_empty_maps(method: str) -> None:
    assert not render(method, torch.zeros(2, 0), torch.zeros(2, 0, 3)).any()
    assert render_bev(torch.ones(1, 4), torch.zeros(1, 4, 2), (0, 0), method, kernel=KERNEL).shape == (1, 0, 0)
    if method in ("gaussian", "direct"):
        no_cameras = render_cameras(torch.ones(1, 4), torch.zeros(1, 4, 3), 0, (9, 14), method, kernel=KERNEL)
        assert no_cameras.shape == (1, 0, 9, 14)


@pytest.mark.parametrize(("sigma", "size"), [(0.5, 5), (1.0, 7), (1.5, 11), (2.0, 13)])
def test_kernels_are_odd_symmetric_and_sum_to_one(sigma: float, size: int) -> None:
    kernel = gaussian_kernel(sigma)
    assert kernel.shape == (size, size)
    torch.testing.assert_close(kernel.sum(), torch.tensor(1.0))
    assert torch.equal(kernel, kernel.T) and torch.equal(kernel, kernel.flip(0))
