"""Observation layouts: which slice of the flat observation is which entity.

A layout is derived from the run's ``env_args`` alone; no environment is started.
"""

from __future__ import annotations

from collections.abc import Callable

from limask.config import LimConfig
from limask.layouts.base import Frame, Layout, TokenGroup, token_starts
from limask.layouts.declared import declared_layout, flat_layout
from limask.layouts.foraging import is_foraging, lbf_layout, lbf_sight
from limask.layouts.starcraft import (
    SMAC_FLAGS,
    SMAC_MAP,
    map_params,
    smac_layout,
    smac_layout_of,
    smaclite_layout,
    smacv2_layout,
    smax_layout,
)
from limask.protocols import Block

#: Layouts known from ``env_args`` alone; ``flat`` needs the size of the observation instead.
REGISTRY: dict[str, Callable[[Block], Layout]] = {
    "smax": smax_layout,
    "smac": smac_layout,
    "smacv2": smacv2_layout,
    "smaclite": smaclite_layout,
    "lbf": lbf_layout,
}

#: Host's name of an environment → layout.
_LAYOUT_OF_ENV = {
    "smax": "smax",
    "sc2": "smac",
    "sc2v2": "smacv2",
    "sc2_v2": "smacv2",
    "smaclite": "smaclite",
}


def layout_name(config: LimConfig, env: str, env_args: Block) -> str:
    """The layout that ``config`` chooses for the environment that the host calls ``env``."""
    if not isinstance(config.layout, str):
        return "declared"
    if config.layout != "auto":
        return config.layout
    # Of the many environments that hosts reach through gymnasium, this one has entities in its observation.
    if env == "gymma" and is_foraging(str(env_args.get("key"))):
        return "flat" if env_args.get("grid_observation") else "lbf"
    return _LAYOUT_OF_ENV.get(env, "flat")


def known_layout(config: LimConfig, env: str, env_args: Block) -> Layout | None:
    """The run's layout where the options determine it, None for ``flat``.

    Raises:
        LimaskError: an unknown map, or a mistake in a declared layout.
    """
    if not isinstance(config.layout, str):
        return declared_layout(config.layout)
    name = layout_name(config, env, env_args)
    return REGISTRY[name](env_args) if name in REGISTRY else None


def flat_note(config: LimConfig, env: str, env_args: Block) -> str:
    """A line for the log of a run whose environment has no layout of its own; empty for the others."""
    if config.layout != "auto" or layout_name(config, env, env_args) != "flat":
        return ""
    what = env_args.get("key") or env_args.get("map_name")
    return (
        f"layout: flat (limask knows no entities in observations of env={env}{f', {what}' if what else ''}): "
        f"every {config.group_width} features are a token; lim.layout={{entities: […]}} declares them"
    )


__all__ = [
    "REGISTRY",
    "SMAC_FLAGS",
    "SMAC_MAP",
    "Frame",
    "Layout",
    "TokenGroup",
    "declared_layout",
    "flat_layout",
    "flat_note",
    "known_layout",
    "layout_name",
    "map_params",
    "lbf_layout",
    "lbf_sight",
    "smac_layout",
    "smac_layout_of",
    "smaclite_layout",
    "smacv2_layout",
    "smax_layout",
    "token_starts",
]
