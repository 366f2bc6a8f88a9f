# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Time and memory of cross-attention: plain, with window bias, with attention mass, and with a dense bias."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

from aqr_perception.benchmarks.alternating_timing import median_milliseconds
from aqr_perception.devices import format_name
from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.aqr.window_bias import WindowBias, build
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.models.transformer.attention import attend
from aqr_perception.options import AqrOptions

_DEPTH = 32
_CAMERAS_PER_QUERY = 1.3
"""Average number of cameras that see a query, as in nuScenes' camera ring."""


@dataclass(frozen=True)
class AttentionCase:
    """Sizes of a cross-attention layer."""

    queries: int
    bev: tuple[int, int]
    views: int
    image: tuple[int, int]
    heads: int


@dataclass(frozen=True)
class AttentionTime:
    """Time and memory of one variant.

    Attributes:
        median_ms: wall time of one layer.
        time_ratio: time relative to plain attention.
        peak_memory_mib: peak memory of a separate process; on a GPU, peak of the GPU memory.
        memory_ratio: memory relative to plain attention.
    """

    variant: str
    median_ms: float
    time_ratio: float
    peak_memory_mib: float
    memory_ratio: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def run(
    case: AttentionCase, repeats: int, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> list[AttentionTime]:
    """Measure every variant in alternation."""
    memory = {name: peak_memory(case, name, device, dtype) for name in tqdm(_VARIANTS, desc="memory", leave=False)}
    inputs = _inputs(case, device, dtype)
    medians = median_milliseconds(
        {name: partial(variant, *inputs) for name, variant in _VARIANTS.items()}, repeats, device
    )
    return [
        AttentionTime(
            name, medians[name], medians[name] / medians["plain"], memory[name], memory[name] / memory["plain"]
        )
        for name in _VARIANTS
    ]


def table(case: AttentionCase, rows: list[AttentionTime]) -> str:
    """Return the rows as a text table."""
    keys = TokenLayout(case.bev, case.views, case.image).total
    lines = [
        f"{case.queries} queries x {keys} keys x {case.heads} heads, {torch.get_num_threads()} threads",
        f"{'variant':<16}{'median ms':>12}{'ratio':>8}{'peak MiB':>12}{'ratio':>8}",
    ]
    lines += [
        f"{row.variant:<16}{row.median_ms:>12.1f}{row.time_ratio:>8.2f}{row.peak_memory_mib:>12.0f}{row.memory_ratio:>8.2f}"
        for row in rows
    ]
    return "\n".join(lines)


def _inputs(case: AttentionCase, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, WindowBias]:
    layout = TokenLayout(case.bev, case.views, case.image)
    generator = torch.Generator().manual_seed(0)

    def cells(grid: tuple[int, int], *shape: int) -> Tensor:
        return torch.stack([torch.randint(size, shape, generator=generator) for size in grid], dim=-1)

    visible = torch.rand(1, case.queries, case.views, generator=generator) < _CAMERAS_PER_QUERY / max(case.views, 1)
    placed = QueryCells(
        cells(case.bev, 1, case.queries),
        torch.ones(1, case.queries, dtype=torch.bool),
        cells(case.image, 1, case.queries, case.views),
        visible,
    )
    placed = QueryCells(*(tensor.to(device) for tensor in placed))
    lidar = torch.rand(1, case.queries, generator=generator).to(device)
    cameras = torch.rand(1, case.queries, case.views, generator=generator).to(device)

    def tokens(count: int) -> Tensor:
        drawn = torch.randn(1, count, case.heads, _DEPTH, generator=generator)
        return drawn.to(device, dtype).transpose(1, 2)

    bias = build(placed, lidar, cameras, layout, AqrOptions(mode="bias"))
    return tokens(case.queries), tokens(layout.total), tokens(layout.total), bias


def _plain(query: Tensor, key: Tensor, value: Tensor, bias: WindowBias) -> None:
    attend(query, key, value)


def _biased(query: Tensor, key: Tensor, value: Tensor, bias: WindowBias) -> None:
    attend(query, key, value, bias=bias)


def _massed(query: Tensor, key: Tensor, value: Tensor, bias: WindowBias) -> None:
    attend(query, key, value, layout=bias.layout, return_mass=True)


def _both(query: Tensor, key: Tensor, value: Tensor, bias: WindowBias) -> None:
    attend(query, key, value, layout=bias.layout, bias=bias, return_mass=True)


def _dense(query: Tensor, key: Tensor, value: Tensor, bias: WindowBias) -> None:
    # Common attention modules take one additive mask for each head.
    mask = bias.dense().to(query.dtype)[:, None].repeat(1, query.shape[1], 1, 1)
    torch.nn.functional.scaled_dot_product_attention(query, key, value, mask)


_VARIANTS: dict[str, Callable[[Tensor, Tensor, Tensor, WindowBias], None]] = {
    "plain": _plain,
    "bias": _biased,
    "mass": _massed,
    "bias and mass": _both,
    "dense bias": _dense,
}


def peak_memory(case: AttentionCase, variant: str, device: str, dtype: torch.dtype) -> float:
    """Return the peak memory in MiB of one run of a variant.

    A CPU run uses a new process, because the peak of a process never decreases.

    Raises:
        RuntimeError: the process failed; the message contains its error output.
    """
    if device != "cpu":
        inputs = _inputs(case, device, dtype)
        torch.cuda.reset_peak_memory_stats()
        with torch.inference_mode():
            _VARIANTS[variant](*inputs)
        return torch.cuda.max_memory_allocated() / 2**20
    # Not multiprocessing, which imports the caller's script again, and restarts workers that fail in it endlessly.
    settings = json.dumps({"case": asdict(case), "variant": variant, "dtype": format_name(dtype)})
    measured = subprocess.run(
        [sys.executable, "-m", "aqr_perception.benchmarks.attention_time", settings],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    if measured.returncode != 0:
        raise RuntimeError(f"measuring the memory of {variant!r} attention failed:\n{measured.stderr}")
    return float(measured.stdout)


def _peak_of_this_process(case: AttentionCase, variant: str, dtype: torch.dtype) -> float:
    inputs = _inputs(case, "cpu", dtype)
    with torch.inference_mode():
        _VARIANTS[variant](*inputs)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    print(_peak_of_this_process(AttentionCase(**request["case"]), request["variant"], getattr(torch, request["dtype"])))
