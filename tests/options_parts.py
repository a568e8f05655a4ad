"""Options for tests that build parts of limask by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limask.config import LimConfig
from limask.config.nested import merged

#: The plainest autoencoder: it reconstructs, beside the agent and from the start, what the agent was shown.
PLAIN: dict[str, Any] = {
    "autoencoder": {
        "name": "entity",
        "targets": "own",
        "warmup": 0,
        "width": 64,
        "lr": 0.0005,
        "share": 0.25,
    },
    "targets": {"td_lambda": 0.0},
}


def config(block: Mapping[str, Any]) -> LimConfig:
    """Options laid over ``PLAIN``."""
    return LimConfig.from_block(merged(PLAIN, block))
