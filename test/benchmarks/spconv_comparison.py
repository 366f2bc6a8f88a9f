# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Race this package's sparse encoder against spconv's CPU build, alternating, in one process and with the same weights.

    python test/benchmarks/spconv_comparison.py --points sweep.bin --rounds 20

spconv is no dependency of this package. Give it an environment of its own, with this package's PyTorch:

    python -m venv spconv-env
    spconv-env/bin/pip install torch==<version> spconv==2.3.8 numpy scipy pyyaml safetensors
    PYTHONPATH=. spconv-env/bin/python test/benchmarks/spconv_comparison.py

Points are an ``.npz`` with an (N, 5) array ``points``, or a nuScenes ``.bin`` file (float32, 5 columns). Without them a
made-up sweep is used: 34,000 points on the ground and on walls.

The outputs are compared with spconv on one thread: on more, spconv 2.3.8's CPU convolutions race, and every run gives
other values at some sites.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from aqr_perception.models.points.sparse_encoder import SparseEncoder
from aqr_perception.models.points.voxels import voxelize

try:
    import spconv.pytorch as spconv
except ImportError as error:
    sys.exit(
        f"spconv cannot be imported ({error}). It is needed for this comparison only: make an environment with\n"
        f"  pip install torch=={torch.__version__.partition('+')[0]} spconv==2.3.8 numpy scipy pyyaml safetensors\n"
        "and run this script with that environment's Python and PYTHONPATH set to the repository's root."
    )

POINT_RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
CHANNELS = (16, 32, 64, 128)
PADDINGS = ((1, 1, 1), (1, 1, 1), (0, 1, 1))


def norm(channels: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(channels, eps=1e-3)


class SpconvBlock(spconv.SparseModule):
    """spconv's counterpart of `SparseBasicBlock`, with the same parameter names."""

    def __init__(self, channels: int, key: str) -> None:
        super().__init__()
        self.conv1 = spconv.SubMConv3d(channels, channels, 3, padding=1, bias=False, indice_key=key)
        self.bn1 = norm(channels)
        self.conv2 = spconv.SubMConv3d(channels, channels, 3, padding=1, bias=False, indice_key=key)
        self.bn2 = norm(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, inputs: spconv.SparseConvTensor) -> spconv.SparseConvTensor:
        hidden = self.conv1(inputs)
        hidden = self.conv2(hidden.replace_feature(self.relu(self.bn1(hidden.features))))
        return hidden.replace_feature(self.relu(self.bn2(hidden.features) + inputs.features))


class SpconvEncoder(nn.Module):
    """spconv's counterpart of `SparseEncoder`, with the same parameter names."""

    def __init__(self, grid: tuple[int, int, int]) -> None:
        super().__init__()
        self.grid = grid
        first = spconv.SubMConv3d(5, CHANNELS[0], 3, padding=1, bias=False, indice_key="sites1")
        self.conv_input = spconv.SparseSequential(first, norm(CHANNELS[0]), nn.ReLU(inplace=True))
        self.encoder_layers = spconv.SparseSequential()
        for stage, width in enumerate(CHANNELS, start=1):
            layers = [SpconvBlock(width, f"sites{stage}") for _ in range(2)]
            if stage < len(CHANNELS):
                wider, padding = CHANNELS[stage], list(PADDINGS[stage - 1])
                down = spconv.SparseConv3d(width, wider, 3, 2, padding, bias=False, indice_key=f"down{stage}")
                layers.append(spconv.SparseSequential(down, norm(wider), nn.ReLU(inplace=True)))
            self.encoder_layers.add_module(f"encoder_layer{stage}", spconv.SparseSequential(*layers))
        last = spconv.SparseConv3d(CHANNELS[-1], 128, (3, 1, 1), (2, 1, 1), bias=False, indice_key="down4")
        self.conv_out = spconv.SparseSequential(last, norm(128), nn.ReLU(inplace=True))

    def forward(self, features: Tensor, coordinates: Tensor, batch_size: int) -> Tensor:
        inputs = spconv.SparseConvTensor(features, coordinates, list(self.grid), batch_size)
        return self.conv_out(self.encoder_layers(self.conv_input(inputs))).dense().flatten(1, 2)


def made_up_sweep() -> Tensor:
    """Rings of ground points and some walls, as a 32-beam LiDAR sees them."""
    generator = torch.Generator().manual_seed(0)
    angle = torch.rand(34_000, generator=generator) * 2 * torch.pi
    distance = 3 + 45 * torch.randint(1, 33, (34_000,), generator=generator) / 32
    height = torch.full_like(distance, -1.8)
    wall = torch.sin(5 * angle) > 0.3
    height[wall] = -1.8 + 3 * torch.rand(int(wall.sum()), generator=generator)
    distance[wall] = 8 + 30 * (torch.sin(17 * angle[wall]) ** 2)
    noise = 0.02 * torch.randn(3, 34_000, generator=generator)
    points = torch.stack([distance * angle.cos(), distance * angle.sin(), height]) + noise
    return torch.cat([points, 255 * torch.rand(1, 34_000, generator=generator), torch.zeros(1, 34_000)]).T.contiguous()


def read_sweep(path: Path) -> Tensor:
    if path.suffix == ".npz":
        return torch.from_numpy(np.load(path)["points"]).float()
    return torch.from_numpy(np.fromfile(path, np.float32).reshape(-1, 5))


def same_random_weights(ours: nn.Module, theirs: nn.Module) -> None:
    torch.manual_seed(0)
    for parameter in ours.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.1, 0.8)
        else:
            nn.init.normal_(parameter, std=(1.6 / parameter[0].numel()) ** 0.5)
    theirs.load_state_dict(ours.state_dict())


def alternate(runs: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each run in each round; the order within a round alternates too."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(rounds + 2):
        for name in runs if index % 2 else reversed(runs):
            start = time.perf_counter()
            runs[name]()
            if index >= 2:  # warm-up
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=Path, help="sweep to use, .npz or .bin")
    parser.add_argument("--voxel", type=float, default=0.1, help="voxel edge in metres (default: %(default)s)")
    parser.add_argument("--grid", type=int, default=1024, help="cells along x and y (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="timed runs of each (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(default: %(default)s)")
    arguments = parser.parse_args()

    torch.set_grad_enabled(False)
    cells = arguments.grid
    points = made_up_sweep() if arguments.points is None else read_sweep(arguments.points)
    voxels = voxelize([points], (arguments.voxel, arguments.voxel, 0.2), POINT_RANGE, (cells, cells, 40))
    inside = (voxels.coordinates[:, 2:] < cells).all(dim=1)  # spconv does not check
    features, coordinates = voxels.features[inside].contiguous(), voxels.coordinates[inside].int().contiguous()

    ours, theirs = SparseEncoder(grid=(41, cells, cells)).eval(), SpconvEncoder((41, cells, cells)).eval()
    same_random_weights(ours, theirs)
    runs = {"aqr_perception": lambda: ours(voxels), "spconv": lambda: theirs(features, coordinates, 1)}

    torch.set_num_threads(1)
    exact = runs["spconv"]()
    torch.set_num_threads(arguments.threads)
    scale = exact.abs().max().item()
    print(f"{len(features)} voxels, {arguments.threads} threads; largest differences from spconv on one thread,")
    print(f"of values up to {scale:.3g}:", end=" ")
    print(", ".join(f"{name} {(run() - exact).abs().max().item():.2g}" for name, run in runs.items()))

    seconds = alternate(runs, arguments.rounds)
    for name, values in seconds.items():
        print(f"{name:>15}: median {1e3 * median(values):7.1f} ms, fastest {1e3 * min(values):7.1f} ms")
    ratios = [mine / its for mine, its in zip(seconds["aqr_perception"], seconds["spconv"], strict=True)]
    of_medians = median(seconds["aqr_perception"]) / median(seconds["spconv"])
    print(
        f"ratio (below 1: aqr_perception is faster): of medians {of_medians:.2f}, median of rounds {median(ratios):.2f}"
    )


if __name__ == "__main__":
    main()
