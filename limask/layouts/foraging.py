"""Layout of Level-Based Foraging (LBF, package ``lbforaging``)."""

from __future__ import annotations

import re

from limask.errors import LimaskError
from limask.layouts.base import Layout, TokenGroup
from limask.protocols import Block

#: ``Foraging-2s-8x8-3p-2f-coop-v3``: sight 2 (missing: the whole field), an 8 × 8 field, 3 players, 2 foods.
_NAME = re.compile(r"(?:.*:)?Foraging(?:-(\d+)s)?-(\d+)x(\d+)-(\d+)p-(\d+)f(?:-coop|-ind|-pen)*-v\d+")


def is_foraging(key: str) -> bool:
    """Whether a gymnasium id names LBF with observations of entities (not its grids)."""
    return _NAME.fullmatch(key) is not None


def lbf_sight(env_args: Block) -> int:
    """Cells that a player sees far in each direction: the whole field's, where nothing limits it."""
    return _task(env_args)[0]


def _task(env_args: Block) -> tuple[int, int, int, int]:
    """Sight, length of the field's longer side, players, foods."""
    key = str(env_args.get("key"))
    found = _NAME.fullmatch(key)
    if found is None or env_args.get("grid_observation"):
        raise LimaskError(
            f"env_args.key={key!r} with lim.layout='lbf': expected an LBF task with observations of "
            "entities, such as lbforaging:Foraging-2s-8x8-2p-2f-coop-v3; set lim.layout=flat"
        )
    sight, rows, columns, players, foods = (int(part) if part else None for part in found.groups())
    size = max(env_args.get("field_size", (rows, columns)))
    sight = env_args.get("sight", sight)
    players, foods = env_args.get("players", players), env_args.get("max_num_food", foods)
    return size if sight is None else min(sight, size), size, players, foods


def lbf_layout(env_args: Block) -> Layout:
    """Foods, then the agent itself, then the other players: row, column and level of each.

    What is not in sight is row and column −1 and level 0. Places count from the corner of what the agent
    sees. Foods fill their slots in the order of the field, and players in sight theirs in the team's order:
    only where the whole field is in sight does a slot always show the same teammate, and its kind is
    ``ally``; otherwise it is ``player``.

    Args:
        env_args: ``key`` names the task; the arguments of the environment in it (``players``,
            ``max_num_food``, ``sight``, ``field_size``, ``observe_agent_levels``) go before the name.
    """
    sight, size, players, foods = _task(env_args)
    sees_all = sight >= size
    place: tuple[str, ...] = ("row", "column")
    other = (*place, "level") if env_args.get("observe_agent_levels", True) else place
    groups = (
        TokenGroup("food", foods, (*place, "level"), unseen=(-1.0, -1.0, 0.0)),
        TokenGroup("own", 1, other, is_hideable=False),
        TokenGroup(
            "ally" if sees_all else "player", players - 1, other, unseen=(-1.0, -1.0, 0.0)[: len(other)]
        ),
    )
    return Layout("lbf", tuple(group for group in groups if group.count))
