"""Nested blocks of options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options by dotted name: ``{"lim": {"masker": "none"}}`` → ``{"lim.masker": "none"}``."""
    leaves: dict[str, Any] = {}
    for key, value in options.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return leaves


def merged(base: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """``update`` laid over ``base``, block by block, as the hosts do; both stay as they are."""
    both = dict(base)
    for key, value in update.items():
        both[key] = merged(both.get(key) or {}, value) if isinstance(value, Mapping) else value
    return both
