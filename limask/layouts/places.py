"""Where units stand: on the map, in truth and as an observation or a belief puts them; or, where the truth is
not known, around who observes.

Axes: ``...`` any leading axes, N agents, U units (the agents and then the enemies), S features of the state,
O of an observation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from limask.errors import LimaskError
from limask.layouts import tokens
from limask.layouts.base import Frame, Layout, TokenGroup
from limask.layouts.teammates import by_agent, sight_ranges


class Units(NamedTuple):
    """Units on the map.

    Attributes:
        place: (..., U, 2) in map units; means nothing where the unit is not there.
        health: (..., U) as a share of full health.
        is_there: (..., U) bool, True = alive in truth, or put there by an observation.
    """

    place: torch.Tensor
    health: torch.Tensor
    is_there: torch.Tensor


class Places:
    """Reads places off states and observations.

    Args:
        layout: of the observations.
        n_agents: N.
        map_size: length of the map's sides, in map units.

    Raises:
        LimaskError: the layout does not say where units stand.
    """

    frame: Frame

    def __init__(self, layout: Layout, n_agents: int, map_size: float) -> None:
        if layout.frame is None or not layout.frame.origin or not layout.frame.in_state:
            raise LimaskError(
                f"layout {layout.name!r} says not where units stand on the map: expected one whose "
                "observations and states hold positions, as those of env=smax"
            )
        self.layout, self.frame, self.n_agents, self.map_size = layout, layout.frame, n_agents, map_size
        enemies = layout.group("enemy")
        self.n_units = n_agents + (0 if enemies is None else enemies.count)

    def truth(self, state: torch.Tensor) -> Units:
        """All units by the states (..., S)."""
        units = self._in_state(state)
        place = units[..., [self.frame.in_state.index(name) for name in self.frame.origin]]
        health = units[..., self.frame.in_state.index("health")]
        return Units(place * self.map_size, health, tokens.is_shown(units))

    def sights(self, state: torch.Tensor) -> torch.Tensor:
        """Sight ranges (..., N) of the agents in map units, by the states (..., S); those of the dead mean
        nothing."""
        agents = self._in_state(state)[..., : self.n_agents, :]
        sights = sight_ranges({"own": agents.unsqueeze(-2)}, self.layout, self.frame)
        return (torch.ones_like(agents[..., 0]) if sights is None else sights.squeeze(-1)) * self.map_size

    def seen(self, obs: torch.Tensor, state: torch.Tensor) -> Units:
        """Units (..., N, U) as each agent's observation (..., N, O) puts them, around the place where the
        agent really stands by the states (..., S); to the dead nothing is there."""
        parts, frame = tokens.split(obs, self.layout), self.frame
        by_unit = []
        for kind in ("ally", "enemy"):
            group = self.layout.group(kind)
            if group is not None:
                columns = [group.features.index(name) for name in ("health", *frame.place)]
                part = by_agent(parts[kind]) if kind == "ally" else parts[kind]
                by_unit.append(torch.cat([part[..., columns], tokens.is_shown(part).unsqueeze(-1)], dim=-1))
        table = torch.cat(by_unit, dim=-2)  # (..., N, U, health and place and whether it is shown)
        own, oneself = self.layout.group("own"), torch.arange(self.n_agents)
        assert own is not None
        table[..., oneself, oneself, 0] = parts["own"][..., 0, own.features.index("health")]
        table[..., oneself, oneself, 3] = tokens.is_shown(obs).to(obs.dtype)
        stands_at = self.truth(state).place[..., : self.n_agents, :].unsqueeze(-2)
        away = table[..., 1:3] * self.sights(state)[..., None, None]
        return Units(stands_at + away, table[..., 0], table[..., 3] > 0)

    def _in_state(self, state: torch.Tensor) -> torch.Tensor:
        """States (..., S) → features of each unit (..., U, D)."""
        width = len(self.frame.in_state)
        return state[..., : self.n_units * width].unflatten(-1, (self.n_units, width))


#: Features with a token's place, by layout: along the axes to the right and upwards, with their signs.
_AROUND = {
    **dict.fromkeys(("smac", "smacv2", "smaclite"), {"relative_x": 1.0, "relative_y": 1.0}),
    "lbf": {"column": 1.0, "row": -1.0},
}


class Around:
    """Reads places off observations where no state tells the truth: relative to who observes, who stands at
    (0, 0), in sight ranges (StarCraft) or cells (LBF).

    Units are the agents and then all others. Where the layout does not know which teammate a token shows,
    they have the numbers of its slots.

    Args:
        layout: of the observations.
        n_agents: N.
        reach: how far an agent sees.

    Raises:
        LimaskError: the layout does not say where units stand.
    """

    def __init__(self, layout: Layout, n_agents: int, reach: float) -> None:
        if layout.name not in _AROUND:
            raise LimaskError(
                f"layout {layout.name!r} says not where units stand: expected SMAX, StarCraft II (SMAC or "
                "SMACv2), SMAClite or LBF"
            )
        self.layout, self.n_agents, self.reach = layout, n_agents, reach
        self.axes = _AROUND[layout.name]

    def truth(self, state: torch.Tensor) -> None:
        """Nothing is known of it."""

    def sights(self, state: torch.Tensor) -> torch.Tensor:
        """Sight ranges (..., N) of the agents, by the shape of the states (..., S)."""
        return torch.full((*state.shape[:-1], self.n_agents), self.reach)

    def seen(self, obs: torch.Tensor, state: torch.Tensor) -> Units:
        """Units (..., N, U) as each agent's observation (..., N, O) puts them; to the dead nothing is
        there."""
        counts = [group.count for group in self.layout.groups]
        is_visible = tokens.visibility(obs, self.layout).split(counts, dim=-1)
        parts = tokens.split(obs, self.layout)
        own, origin = self.layout.group("own"), obs.new_zeros(1)
        if own is not None:  # counted from the same corner as others, and absent where those are relative
            origin = self._features(own, parts["own"], [*self.axes], 0.0)
        # Of the team, and of all others; either may have nobody in it.
        tables = {
            True: obs.new_zeros(*obs.shape[:-1], self.n_agents, 4),
            False: obs.new_zeros(*obs.shape[:-1], 0, 4),
        }
        for group, is_there in zip(self.layout.groups, is_visible, strict=True):
            if group.is_hideable:
                place = self._features(group, parts[group.kind], [*self.axes], 0.0) - origin
                table = torch.cat([place, self._strength(group, parts), is_there.unsqueeze(-1)], dim=-1)
                is_team = group.kind in ("ally", "player")
                tables[is_team] = by_agent(table) if is_team else table
        team, oneself = tables[True], torch.arange(self.n_agents)
        team[..., oneself, oneself, 2] = 1.0 if own is None else self._strength(own, parts)[..., 0, 0]
        team[..., oneself, oneself, 3] = tokens.is_shown(obs).to(obs.dtype)
        table = torch.cat([team, tables[False]], dim=-2)
        signs = torch.tensor(list(self.axes.values()))
        return Units(table[..., :2] * signs, table[..., 2], table[..., 3] > 0)

    def _strength(self, group: TokenGroup, parts: dict[str, torch.Tensor]) -> torch.Tensor:
        """Health of tokens (..., K, 1), or 1 of a level above 0; 1 where nothing tells."""
        name = "level" if "level" in group.features else "health"
        return self._features(group, parts[group.kind], [name], 1.0).clamp(0.0, 1.0)

    def _features(
        self, group: TokenGroup, part: torch.Tensor, names: list[str], missing: float
    ) -> torch.Tensor:
        """Features of tokens (..., K, D) by their names (..., K, ·); ``missing`` where there are none."""
        if not set(names) <= set(group.features):
            return part.new_full((*part.shape[:-1], len(names)), missing)
        return part[..., [group.features.index(name) for name in names]]
