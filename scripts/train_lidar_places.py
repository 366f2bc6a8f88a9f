#!/usr/bin/env python3
# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Train a gate's network for single places of the LiDAR, which tells ghosts from objects, on simulated frames.

The network's inputs come from frozen branches and are computed once for each frame, so that many passes over them take
less than a minute. Only `aqr.agreement.lidar_place` changes.
"""

import argparse
import logging
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from aqr_perception.data.corruption import sensor_failures
from aqr_perception.data.corruption.random_corruption import corrupt
from aqr_perception.data.health import FrameWithHealth
from aqr_perception.data.sources.simulated import FIRST_TRAINING_SEED, TRAINING_WORLD, SimulatedDataset
from aqr_perception.detector import Detector
from aqr_perception.evaluation.headroom.oracle import lidar_health_at
from aqr_perception.frame import LabelledFrame
from aqr_perception.models.aqr.agreement import LidarPlaces
from aqr_perception.models.model_io import LAST_LAYER, DecodeOptions
from aqr_perception.models.weights.checkpoint import save_checkpoint
from aqr_perception.options import AqrOptions
from aqr_perception.training.losses.router_loss import relative_health

GHOSTS, CLEAN = 0.35, 0.4
"""Shares of frames with ghosts and of intact ones; the others have the failures of training."""
HELD_OUT = 0.15
BATCH, LEARNING_RATE, DROPOUT = 16, 2e-3, 0.2


class Places(NamedTuple):
    """One frame's LiDAR proposals: inputs of the network (P, E), the rest of their logits (P,), and targets (P,)."""

    shown: Tensor
    others: Tensor
    target: Tensor


def failing(labelled: LabelledFrame, rng: np.random.Generator) -> FrameWithHealth:
    """Return a frame with ghosts, an intact one, or one with another failure of training."""
    kind = rng.random()
    if kind < GHOSTS:
        return sensor_failures.with_ghosts(labelled, int(rng.integers(2, max(6, len(labelled.truth) // 2 + 2))), rng)
    return FrameWithHealth(labelled) if kind < GHOSTS + CLEAN else corrupt(labelled, rng)


def read_places(seeds: list[int], model: str, checkpoint: str, data_root: Path) -> list[Places]:
    """Return the places of frames with points; in a process of its own."""
    torch.set_num_threads(1)
    detector = Detector(model, checkpoint, "cpu", "fp32")
    preset = detector.model.preset
    frames = SimulatedDataset(
        seeds, cache=data_root, world=TRAINING_WORLD, sweeps=preset.sweeps, sweep_interval=preset.sweep_interval
    )
    network, seen = detector.model.get_submodule("aqr.agreement.lidar_place"), []
    network.register_forward_hook(lambda _, inputs, output: seen.append((*inputs, output)))
    options = DecodeOptions(AqrOptions.of_model("off"), router_weights=True, layers=LAST_LAYER)
    places = []
    for index, seed in enumerate(seeds):
        sample = failing(frames[index], np.random.default_rng(seed))
        points = sample.labelled.frame.points
        if points is None or not len(points):
            continue
        seen.clear()
        with torch.inference_mode():
            output = detector.decode(detector.extract(sample.labelled.frame).maps, options)
            assert output.gate is not None and output.queries is not None
            shown, at_lidar, logits = (part[0] for part in seen[0])
            metres = detector.model.pts_bbox_head.points(output.queries)[0]  # type: ignore[operator, union-attr]
        health = torch.from_numpy(lidar_health_at(sample.health, metres[at_lidar].numpy()))
        target = relative_health(health, torch.tensor(sample.health.lidar.max()))
        others = (output.gate.lidar[0] - logits)[at_lidar]
        places.append(Places(shown[at_lidar].clone(), others.clone(), target))
    return places


def area_under_curve(weight: Tensor, healthy: Tensor) -> float:
    """Return how often a healthy place has a larger weight than a broken one."""
    pair = weight[healthy].numpy(), weight[~healthy].numpy()
    return float(mannwhitneyu(*pair).statistic) / (len(pair[0]) * len(pair[1]))


def fit(network: LidarPlaces, places: list[Places], passes: int) -> None:
    """Train the network, and print loss and area under the curve of the frames held out; keep the best pass."""
    held_out = max(1, int(HELD_OUT * len(places)))
    validation, training = places[:held_out], places[held_out:]
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=0.02)
    steps = passes * (len(training) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    best, kept = float("inf"), {}
    for number in tqdm(range(passes), desc="fit"):
        network.train()
        order = torch.randperm(len(training)).tolist()
        for start in range(0, len(order) - BATCH + 1, BATCH):
            loss(network, [training[index] for index in order[start : start + BATCH]], DROPOUT)[0].backward()
            optimiser.step()
            optimiser.zero_grad()
            schedule.step()
        network.eval()
        with torch.no_grad():
            value, weight, target = loss(network, validation, 0.0)
        if float(value) < best:
            best, kept = float(value), {key: part.clone() for key, part in network.state_dict().items()}
        auc = area_under_curve(weight, target >= 0.5)
        tqdm.write(f"pass {number + 1}: loss of the frames held out {float(value):.4f}, area under the curve {auc:.3f}")
    network.load_state_dict(kept)


def loss(network: LidarPlaces, places: list[Places], dropout: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss of frames, the own weights of their places, and their targets."""
    shown, others, target = (torch.stack(part) for part in zip(*places, strict=True))
    at_lidar = torch.ones(shown.shape[:2], dtype=torch.bool)
    logits = network(F.dropout(shown, dropout), at_lidar) + others
    value = F.binary_cross_entropy_with_logits(logits, target.clamp(0, 1))
    return value, logits.sigmoid().flatten(), target.flatten()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("checkpoint", help="weights with a gate that compares the sensors")
    parser.add_argument("output", type=Path, help="weights to write")
    parser.add_argument("--model", default="aqr_tiny", help="preset")
    parser.add_argument("--data-root", type=Path, required=True, help="folder of drawn frames; missing ones are drawn")
    parser.add_argument("--frames", type=int, default=2000, help="training frames")
    parser.add_argument("--passes", type=int, default=16, help="passes over the frames")
    parser.add_argument("--workers", type=int, default=2, help="processes that compute the inputs")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.manual_seed(0)
    seeds = list(range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + options.frames))
    parts = [seeds[start : start + 20] for start in range(0, len(seeds), 20)]
    read = partial(read_places, model=options.model, checkpoint=options.checkpoint, data_root=options.data_root)
    with ProcessPoolExecutor(options.workers) as pool:
        found = list(tqdm(pool.map(read, parts), total=len(parts), desc="20 frames"))
    places = [place for part in found for place in part]
    detector = Detector(options.model, options.checkpoint, "cpu", "fp32")
    network = detector.model.get_submodule("aqr.agreement.lidar_place")
    assert isinstance(network, LidarPlaces)
    fit(network, places, options.passes)
    save_checkpoint(detector.model, options.output)
    print(options.output)


if __name__ == "__main__":
    main()
