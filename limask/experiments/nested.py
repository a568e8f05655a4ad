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


def merged(base: dict[str, Any], update: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``update`` laid over it, block by block, as the hosts do."""
    for key, value in update.items():
        base[key] = merged(dict(base.get(key) or {}), value) if isinstance(value, dict) else value
    return base
