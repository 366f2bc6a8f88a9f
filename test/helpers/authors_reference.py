# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Checkpoint keys and formula weights of the published models, as their authors' outputs were computed with.

The files are not part of the package. Tests that use them need the fixture `shared_reference`, which skips without.
"""

import importlib.util
import json

from torch import Tensor

from helpers.places import REFERENCE


def key_shapes(model: str, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Return the shapes of a published checkpoint's keys, of those with a prefix."""
    keys = json.loads((REFERENCE / "checkpoints" / f"{model}.keys.json").read_text())
    return {key: tuple(shape) for key, (shape, _) in keys.items() if key.startswith(prefix)}


def formula_state(model: str, prefix: str = "") -> dict[str, Tensor]:
    """Return the weights with which the authors' outputs were computed."""
    spec = importlib.util.spec_from_file_location("formula_weights", REFERENCE / "formula_weights.py")
    assert spec and spec.loader
    formula_weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(formula_weights)
    state: dict[str, Tensor] = formula_weights.formula_state_dict(key_shapes(model, prefix))
    return state
