# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Fuzzed parameters and files: each gives plausible settings or its documented error."""

import copy
import functools
import io
import json
import math
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import yaml
from torch import nn

from aqr_perception.models.architectures import ARCHITECTURES
from aqr_perception.models.config.presets import Preset, PresetError, load_preset, preset_directory
from aqr_perception.models.config.yaml_file import YamlFileError
from aqr_perception.models.weights.checkpoint import CLASSES_ENTRY, CheckpointError, load_checkpoint
from aqr_perception.models.weights.inspection import inspect_checkpoint
from aqr_perception.nodes.parameters import node_settings, parameter_files, parameter_table
from aqr_perception.nodes.parameters.declaration import Parameter
from aqr_perception.options import OptionError
from fuzz.choices import NUMBERS, SIZES, TEXTS, Choices

_CONFIG = preset_directory().parent
_PRESETS = ("aqr_tiny", "petrv2_tiny", "bevformer_mini", "cmt_vit_small", "aqr_cmt_voxel0100_r50_800x320")


@functools.cache
def _folder() -> Path:
    """Return a folder for the files of this process, in memory where the system has such a place."""
    shared = Path("/dev/shm")
    holder = tempfile.TemporaryDirectory(prefix="fuzz_", dir=shared if shared.is_dir() else None)
    _holders.append(holder)
    return Path(holder.name)


_holders: list[tempfile.TemporaryDirectory[str]] = []


def _written(name: str, content: bytes) -> Path:
    path = _folder() / name
    path.write_bytes(content)
    return path


def _one_line(error: Exception) -> bool:
    """Check that an error is short enough to read, and return false: the input was not accepted."""
    text = str(error)
    assert text and len(text) < 3000, (len(text), text[:300])
    return False


def value(choices: Choices, usual: Any) -> Any:
    """Return a value of any type that YAML and ROS 2 have, mostly like the usual one."""
    kind = choices.unsigned(1) % 4
    if kind == 0 and isinstance(usual, list) and usual:
        changed = list(usual)
        place = choices.below(len(changed))
        changed[place] = value(choices, changed[place])
        return changed if not choices.chance() else changed[:place] if choices.chance(2) else [*changed, *changed]
    if kind <= 1:
        if isinstance(usual, bool):
            return not usual
        if isinstance(usual, int):
            return choices.pick((usual + choices.signed(1), choices.signed(4), choices.signed(8), choices.pick(SIZES)))
        if isinstance(usual, float):
            return choices.number(usual)
        if isinstance(usual, str):
            return choices.text()
    return choices.pick(
        (
            *(None, True, False, 0, 1, -1, 2**31, 2**63 - 1, -(2**63), "", [], [""], ["a", "a"], [[]], [1], {}),
            *([1.0, 2.0], [True], b"bytes", [b"a"], {"a": 1}, {1: {}}, "1", "true", "off"),
            choices.text(),
            choices.number(),
            choices.pick(NUMBERS),
            choices.pick(TEXTS),
        )
    )


@functools.cache
def _defaults() -> dict[str, tuple[Parameter, Any]]:
    """Return the parameters of a node with two cameras, with values that are valid together."""
    every = (
        *parameter_table.PARAMETERS,
        *parameter_table.camera_parameters("front"),
        *parameter_table.camera_parameters("back"),
        *parameter_table.class_parameters(),
    )
    values = {parameter.name: (parameter, parameter.default) for parameter in every}
    return values | {"cameras": (values["cameras"][0], ["front", "back"])}


def fuzz_parameters(choices: Choices) -> bool:
    """Change some parameters at the start, as files and arguments do, or while the node runs."""
    values = {name: copy.copy(default) for name, (_, default) in _defaults().items()}
    names = sorted(values)
    at_start = not choices.chance(2)
    for _ in range(choices.unsigned(1) % 5):
        parameter, default = _defaults()[names[choices.below(len(names))]]
        changed = value(choices, default)
        if at_start:
            try:
                values[parameter.name] = parameter.accept(changed)
            except OptionError as error:
                return _one_line(error)
            assert type(values[parameter.name]) is type(parameter.default)
        else:
            # rclpy has compared the type.
            changed = parameter.converted(changed)
            texts = isinstance(changed, list) and all(isinstance(item, str) for item in changed)
            if type(changed) is type(parameter.default) and (texts or not isinstance(changed, list)):
                values[parameter.name] = changed
    for camera in [name for name in values["cameras"] if name]:
        for parameter in parameter_table.camera_parameters(camera):
            values.setdefault(parameter.name, parameter.default)
    for number in range(1, len(values["lidar_topics"]) + 1):
        for parameter in parameter_table.lidar_parameters(number):
            values.setdefault(parameter.name, parameter.default)
    try:
        read = node_settings.read(values)
    except OptionError as error:
        return _one_line(error)
    numbers = [number for number in values.values() if isinstance(number, float)]
    assert all(map(math.isfinite, numbers)), {name: number for name, number in values.items() if number in numbers}
    assert read.assembler.sensors and read.detection.max_detections >= 1
    # A camera's name becomes part of a topic, and a text of a frame a name in TF.
    assert all(camera.image_topic and camera.info_topic for camera in read.assembler.cameras)
    return True


@functools.cache
def _parameter_texts() -> tuple[bytes, ...]:
    shipped = [(_CONFIG / f"{name}.yaml").read_bytes() for name in ("perception", "nuscenes", "demo")]
    short = b"/**:\n  ros__parameters:\n    cameras: [front, back]\n    score_threshold: 0.3\n"
    nested = (
        b"robot:\n  aqr_perception:\n    ros__parameters: {model: {preset: &p aqr_tiny, checkpoint: *p}}\n---\n{}\n"
    )
    wild = b"/**/a*b/**:\n  ros__parameters: {}\n/*/**:\n  ros__parameters: {a: !!binary aGk=, <<: {c: 1}}\n"
    return (short, nested, wild, *shipped)


def fuzz_parameter_file(choices: Choices) -> bool:
    content = choices.spoilt(choices.pick(_parameter_texts()), choices.pick((60, 0)))
    if choices.chance(12):
        content += b"".join(
            choices.pick((b"/**", b"*", b"/", b"[", b"&a ", b"*a", b": ", b"\n", b"- ")) * 9 for _ in "ab"
        )
    path = _written("parameters.yaml", content)
    try:
        files = parameter_files.read(["node", "--ros-args", "--params-file", str(path)])
    except YamlFileError as error:
        assert "\n" not in str(error)
        return _one_line(error)
    (file,) = files
    node = choices.pick(("/aqr_perception", "/robot/aqr_perception", "/" + "/".join("a" * 60)))
    if not file.addresses(node):
        assert str(path) in file.ignored_by(node)
    return True


@functools.cache
def _preset_values(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((preset_directory() / f"{name}.yaml").read_text())
    return values


def _changed_preset(choices: Choices) -> bytes:
    """Return a preset's text with some entries changed, removed or added."""
    values = copy.deepcopy(_preset_values(choices.pick(_PRESETS)))
    for _ in range(1 + choices.unsigned(1) % 3):
        place, key = values, choices.pick(sorted(values))
        while isinstance(place[key], dict) and place[key] and not choices.chance(8):
            place = place[key]
            key = choices.pick(sorted(place, key=str))
        kind = choices.unsigned(1) % 8
        if kind == 6:
            del place[key]
            if not values:
                break
        elif kind == 7:
            place[choices.pick((*_ENTRIES, choices.text()))] = value(
                choices, choices.pick((1, 0.5, [1, 2], "a", 10**400))
            )
        else:
            place[key] = value(choices, place[key])
    return yaml.safe_dump(values).encode()


_ENTRIES = (
    *("architecture", "classes", "learning_rate_factors", "sweeps", "decoder", "points", "image", "aqr", "petr"),
    *("bevformer", "heads", "channels", "layers", "queries", "depths", "head_kernel", "nms", "proposals", "max_points"),
    *("max_voxels", "width", "vit", "mean", "std", "strength", "residual", "options", "name", "model_frame"),
)


def _preset(choices: Choices) -> Preset:
    """Return a preset whose file may be wrong; raise PresetError if it is refused."""
    content = _changed_preset(choices)
    if choices.chance():
        content = choices.spoilt(content)
    path = _written("preset.yaml", content)
    return load_preset(str(path))


def fuzz_preset(choices: Choices) -> bool:
    try:
        preset = _preset(choices)
    except PresetError as error:
        assert "preset.yaml" in str(error)
        return _one_line(error)
    numbers = [*preset.point_range, *preset.bev_range]
    assert all(map(math.isfinite, numbers)), numbers
    assert preset.bev_range[0] < preset.bev_range[2] and preset.bev_range[1] < preset.bev_range[3], preset.bev_range
    assert preset.sweeps >= 1 and preset.decoder.queries >= 1 and preset.decoder.channels >= 1
    return True


def fuzz_model(choices: Choices) -> bool:
    """Build the model of a preset that is accepted, without memory for its tensors."""
    try:
        preset = _preset(choices)
    except PresetError as error:
        return _one_line(error)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ARCHITECTURES[preset.architecture].model_class()(preset)
    assert sum(parameter.numel() for parameter in model.parameters()) < 2**32
    return True


class _Small(nn.Module):
    """A model of few weights, as the checkpoints below have them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)


def _saved(content: object, **options: Any) -> bytes:
    target = io.BytesIO()
    torch.save(content, target, **options)
    return target.getvalue()


@functools.cache
def _checkpoints() -> tuple[bytes, ...]:
    """Return files of weights of every format; the first ones fit the small model."""
    torch.manual_seed(0)
    state = _Small().state_dict()
    endless = {"conv.weight": torch.ones(1).expand(2**20, 2**20), "norm.running_var": torch.ones(1).expand(2**40)}
    other = {
        "meta": {"epoch": 3, "best": np.float64(0.5), "CLASSES": ("car", "bus"), "config": "aqr = dict(window=7)"},
        "state_dict": {f"module.{key}": tensor.half() for key, tensor in state.items()},
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(4)}}},
        "ema_state_dict": state,
    }
    tied = {"a": state["conv.weight"], "b.c": state["conv.weight"][1:], "norm.bias": torch.zeros(0)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8)
    kinds = {str(kind).removeprefix("torch."): torch.ones(2, 3).to(kind) for kind in _KINDS}
    return (
        safetensors.torch.save(state, metadata={CLASSES_ENTRY: '["car"]', "format": "pt"}),
        _saved(state),
        _saved(state, _use_new_zipfile_serialization=False),
        _saved(other),
        _saved(other, _use_new_zipfile_serialization=False),
        safetensors.torch.save(kinds),
        _saved(kinds),
        _saved(endless),
        _saved(tied),
        _saved({"state_dict": {"a.b": torch.eye(3).to_sparse(), "a.c": quantised}}),
        _saved([1, 2.5, "text", None, {1: {2: {3: state}}}]),
    )


_KINDS = (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int64, torch.bool, torch.complex64)
_KINDS += (torch.float8_e4m3fn,)


def _spoilt_header(choices: Choices, data: bytes) -> bytes:
    """Return safetensors with changes in the header's entries, whose length is right."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    for _ in range(1 + choices.unsigned(1) % 3):
        name = choices.pick(sorted(header))
        entry = header[name]
        if name == "__metadata__" or choices.chance(6):
            header[choices.pick((name, choices.text()))] = choices.pick(
                (entry, {}, [], None, {"a": "b"}, {CLASSES_ENTRY: "[1]"})
            )
        elif isinstance(entry, dict) and entry:
            key = choices.pick(sorted(entry))
            if isinstance(entry[key], list):
                entry[key] = [choices.pick((item, choices.size(), choices.signed(8), -1, 1.5)) for item in entry[key]]
                entry[key] += [choices.size()] * (choices.unsigned(1) % 3 == 2)
            else:
                entry[key] = choices.pick(
                    ("F32", "F64", "F16", "BF16", "I8", "U8", "BOOL", "F8_E4M3", "F4", "C64", "", None)
                )
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) + choices.pick((0, 0, 0, 1, choices.size()))) + text + data[8 + length :]


def _spoilt_archive(choices: Choices, data: bytes) -> bytes:
    """Return a zip archive with changed members, whose sums are right."""
    target = io.BytesIO()
    form = choices.pick((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(target, "w", form) as archive:
        for member in source.namelist():
            content = source.read(member)
            if member.endswith("data.pkl") or choices.chance(6):
                content = choices.spoilt(content)
            if choices.chance(12):
                member = choices.pick((member + "0", "archive/data/9", choices.text() or "a"))
            if not choices.chance(16):
                archive.writestr(member, content * choices.pick((1, 1, 1, 1, 20_000)) if choices.chance() else content)
    return target.getvalue()


def checkpoint(choices: Choices) -> bytes:
    """Return a file of weights whose header, pickle, archive or data may be wrong."""
    data = choices.pick(_checkpoints())
    kind = choices.below(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two members of one name
        if kind == 1:
            return (
                _spoilt_archive(choices, data)
                if data.startswith(b"PK")
                else _spoilt_header(choices, data)
                if data[8:9] == b"{"
                else choices.spoilt(data)
            )
    return choices.spoilt(data, choices.pick((900, 0)))


def fuzz_checkpoint(choices: Choices) -> bool:
    path = _written(choices.pick(("a.pth", "a.safetensors")), checkpoint(choices))
    model = _small()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            load_checkpoint(model, path)
        except CheckpointError as error:
            assert str(error).startswith(str(path))
            return _one_line(error)
    assert all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())
    return True


def fuzz_inspection(choices: Choices) -> bool:
    path = _written("a.pth", checkpoint(choices))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            report: Mapping[str, Any] = inspect_checkpoint(path).as_dict()
        except CheckpointError as error:
            assert str(error).startswith(str(path))
            return _one_line(error)
    json.dumps(report)
    assert (report["weights"] is None) == (report["problem"] is not None)
    return report["weights"] is not None


@functools.cache
def _small() -> _Small:
    return _Small()
