"""Where units stand on the map: in truth, by the global state, and as an observation or a belief puts them.

Axes: ``...`` any leading axes, N agents, U units (the agents and then the enemies), S features of the state,
O of an observation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from limask.errors import LimaskError
from limask.layouts import tokens
from limask.layouts.base import Frame, Layout
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
