"""Nested blocks of options."""

from __future__ import annotations

from collections.abc import Mapping

from limask.protocols import Block, State


def flat(options: Block, prefix: str = "") -> State:
    """Options by dotted name: ``{"lim": {"trunk": "fc"}}`` → ``{"lim.trunk": "fc"}``."""
    leaves: State = {}
    for key, value in options.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return leaves


def nested(options: Block) -> State:
    """Inverse of ``flat``."""
    blocks: State = {}
    for name, value in options.items():
        *path, key = name.split(".")
        block = blocks
        for part in path:
            block = block.setdefault(part, {})
        block[key] = value
    return blocks


def merged(base: Block, update: Block) -> State:
    """``update`` laid over ``base``, block by block, as the hosts do; both stay as they are."""
    both = dict(base)
    for key, value in update.items():
        own = both.get(key)
        is_block = isinstance(value, Mapping)
        both[key] = merged(own if isinstance(own, Mapping) else {}, value) if is_block else value
    return both
