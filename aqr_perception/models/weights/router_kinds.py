# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Kind of this project's query router in weights, told by its keys."""

from collections.abc import Iterable

ROUTER_PREFIX = "aqr."
"""Prefix of the keys of this project's query router, which published models do not have."""

_ROUTER_KINDS = {"gate": f"{ROUTER_PREFIX}trust.", "signed": f"{ROUTER_PREFIX}bias_scale"}
"""Kind of query router -> prefix of keys that only it has."""

_COMPARISON = f"{ROUTER_PREFIX}agreement."
"""Prefix of keys that only a gate has that compares the sensors' proposals."""

_COMPARISON_PARTS = {
    f"{_COMPARISON}pair.": "compares the LiDAR with all cameras at once, but this version's with each camera",
    f"{_COMPARISON}lidar_place.": "does not see the LiDAR's features around a query, but this version's does",
}
"""Prefix of keys of such a gate -> what older gates, which lack them, do instead."""

_KIND_ENTRIES = {
    "gate": "aqr.mode: gate",
    "signed": "aqr.mode: bias and aqr.bias: signed",
    "plain": "aqr.mode: both, bias or modulation",
}


def own_router_kind(keys: Iterable[str]) -> str:
    """Return the kind of this project's query router among keys, as `router.RouterKind`; empty without a router."""
    own = [key for key in keys if key.startswith(ROUTER_PREFIX)]
    if not own:
        return ""
    return next((kind for kind, part in _ROUTER_KINDS.items() if any(key.startswith(part) for key in own)), "plain")


def other_router(found: Iterable[str], needed: Iterable[str]) -> str:
    """Return why the query router of weights is of another kind than a model's; empty if it is not."""
    found, needed = set(found), set(needed)
    has, needs = own_router_kind(found), own_router_kind(needed)
    if not has or not needs:
        return ""
    if has == needs:
        compares, must_compare = (any(key.startswith(_COMPARISON) for key in keys) for keys in (found, needed))
        if compares == must_compare:
            for part, older in _COMPARISON_PARTS.items():
                has_part, needs_part = (any(key.startswith(part) for key in keys) for keys in (found, needed))
                if needs_part and not has_part:
                    return f"its query router {older}; train a router for the preset (train --train aqr)"
            return ""
        return (
            f"its query router {'compares' if compares else 'does not compare'} the proposals of both sensors, but the "
            f"preset's {'does' if must_compare else 'does not'}; train a router for the preset (train --train aqr)"
        )
    return (
        f"its query router is of the kind {has!r}, but the preset needs {needs!r}, whose weights mean something else; "
        f"to use it, set {_KIND_ENTRIES[has]} in a copy of the preset"
    )
