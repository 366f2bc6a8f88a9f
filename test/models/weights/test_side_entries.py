# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Entries next to the weights: states of a training and its description."""

from collections import OrderedDict
from typing import Any

import torch

from aqr_perception.models.weights.side_entries import all_entries, describe_training, side_entries

CONFIG = """# enable_aqr = False in the first runs
plugin = True
model = dict(
    type='CmtDetector',
    img_backbone=dict(conv=dict(bias=False), norm_bias=True),
    pts_bbox_head=dict(
        enable_aqr=True,
        aqr_config=dict(window_sizes=[8, 5], activation='tanh'),
        attention_bias_config=dict(bias_scale=2.5, residual_weight=0.7)))
"""


def test_states_of_a_training_are_named_with_their_sizes() -> None:
    moments = torch.zeros(100)
    content = {
        "meta": {"epoch": 20},
        "state_dict": {"a": torch.ones(3)},
        "optimizer": {"state": {0: {"exp_avg": moments, "view": moments[:5]}}},
        "lr_schedulers": [{"last_epoch": 3}],
        "scaler": {"scale": torch.ones(1)},
        "ema_state_dict": {"a": torch.ones(3)},
    }
    entries = {entry.name: entry for entry in side_entries(content, ["state_dict"])}
    assert {name: entry.kind for name, entry in entries.items()} == {
        "meta": "description",
        "optimizer": "optimiser state",
        "lr_schedulers": "scheduler state",
        "scaler": "loss scaler state",
        "ema_state_dict": "averaged or raw weights",
    }
    assert entries["optimizer"].tensors == 2 and entries["optimizer"].bytes == 400, "shared memory counts once"
    assert len(all_entries(content)) == 6 and all_entries(torch.ones(1)) == []


def test_entries_beside_nested_weights_are_named_with_their_level() -> None:
    content = {"step": 5, "model": {}, "ema": {"average": {}, "updates": 5}}
    names = [entry.name for entry in side_entries(content, ["ema", "average"])]
    assert names == ["step", "model", "ema.updates"]


def test_epoch_versions_and_classes_are_found_in_meta() -> None:
    found = describe_training(
        {"meta": {"epoch": 20, "iter": 4004, "mmdet_version": "2.28", "CLASSES": ("car", "bus"), "resumed": True}}
    )
    assert found.progress == {"meta.epoch": 20, "meta.iter": 4004}
    assert found.versions == {"mmdet_version": "2.28"} and found.classes == ("car", "bus")
    dataset = describe_training({"meta": {"dataset_meta": OrderedDict(classes=["car"])}, "epoch": 3})
    assert dataset.classes == ("car",) and dataset.progress == {"epoch": 3}


def test_the_configurations_lines_on_aqr_are_found_without_running_it() -> None:
    found = describe_training({"meta": {"config": CONFIG + "\nraise SystemExit"}})
    assert found.config == "meta.config" and found.first_lines[1] == "plugin = True"
    assert found.aqr_lines == (
        "enable_aqr=True",
        "aqr_config=dict(...)",
        "window_sizes=[8, 5]",
        "activation='tanh'",
        "attention_bias_config=dict(...)",
        "bias_scale=2.5",
        "residual_weight=0.7",
    )


def test_configurations_of_nested_dictionaries_are_read() -> None:
    found = describe_training({"hyper_parameters": {"lr": 0.1, "head": {"enable_aqr": True, "object": object()}}})
    assert found.first_lines == ("lr = 0.1", "head.enable_aqr = True")
    assert found.aqr_lines == ("enable_aqr = True",)


def test_control_characters_and_long_lines_do_not_reach_the_terminal() -> None:
    found = describe_training({"meta": {"config": "a = '\x1b[2J\x07'\n" + "b" * 500}})
    assert all(line.isprintable() and len(line) <= 110 for line in found.first_lines)


def test_entries_nested_in_themselves_and_strange_content_are_survived() -> None:
    content: dict[Any, Any] = {"meta": None, "state_dict": {}, 3: "x"}
    content["config"] = content["optimizer"] = content
    assert describe_training(content).classes is None
    assert len(side_entries(content, ["state_dict"])) == 4
    assert describe_training([1, 2]).progress == {}
