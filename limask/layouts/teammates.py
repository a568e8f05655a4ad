"""What teammates see, put as the agent itself would see it: the truth about units that are out of its sight.

For learning only: when acting, an agent knows its own observation and nothing else.

Axes: ``...`` any leading axes, N agents, U units of a kind (allies by agent, enemies), D features of a token,
K tokens, O features of an observation. In tables (..., N, N, …) the first N are the agents that learn of a
unit, or see, and the second their sources, or who is seen.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from limask.layouts import Frame, Layout, TokenGroup, tokens


class Known(NamedTuple):
    """What is known of the units around each agent beyond its own observation.

    Attributes:
        obs: (..., N, O) in the agent's own frame, zero where nothing is known.
        is_token: (..., N, K) bool, True = some teammate sees the unit, or is it; or the state holds it.
        is_feature: (..., N, O) bool, True = the feature is known. Of a teammate that nobody else sees, the
            features of its own token are known; what others would see of it besides is not.
    """

    obs: torch.Tensor
    is_token: torch.Tensor
    is_feature: torch.Tensor


def known_from_state(state: torch.Tensor, n_agents: int, layout: Layout) -> Known:
    """What the global state (..., S) holds of each living agent's allies and enemies, as it would see them;
    of the dead that their health is 0.

    Features of other units that the state does not hold, such as their last actions, stay open.
    """
    frame = layout.frame
    assert frame is not None and frame.in_state  # autoencoder.options.check_layout allows no other
    width = len(frame.in_state)
    n_units = n_agents + sum(g.count for g in layout.groups if g.kind == "enemy")
    units = state[..., : n_units * width].unflatten(-1, (n_units, width))
    agents, is_alive = units[..., :n_agents, :], tokens.is_shown(units)
    is_watching = is_alive[..., :n_agents].unsqueeze(-1)
    sights = sight_ranges({"own": agents.unsqueeze(-2)}, layout, frame)
    at = [frame.in_state.index(name) for name in frame.origin]
    others = tokens.teammate_slots(n_agents, state.device)
    seen = {
        "ally": (agents[..., others, :], is_alive[..., others]),
        "enemy": (
            units[..., n_agents:, :].unsqueeze(-3).expand(*agents.shape[:-1], -1, -1),
            is_alive[..., n_agents:].unsqueeze(-2),
        ),
    }
    described, known = {}, {}
    for group in layout.groups:
        shape = (*agents.shape[:-1], group.count, group.width)
        described[group.kind] = state.new_zeros(shape)
        known[group.kind] = torch.zeros(shape, dtype=torch.bool, device=state.device)
        if group.kind not in layout.kinds:
            continue
        of_kind, is_there = seen[group.kind]
        away = of_kind[..., at] - agents[..., at].unsqueeze(-2)
        if sights is not None:
            away = away / sights.unsqueeze(-2)
        names = (*frame.place, *frame.in_state)
        is_name = torch.tensor([name in names for name in group.features], device=state.device)
        columns = [names.index(name) if name in names else 0 for name in group.features]
        known[group.kind] = (is_watching & is_there).unsqueeze(-1) & is_name
        known[group.kind][..., group.features.index("health")] = is_watching
        table = torch.cat([away, of_kind], dim=-1)[..., columns]
        described[group.kind] = table * known[group.kind]
    is_token = torch.cat([part.any(dim=-1) for part in known.values()], dim=-1)
    return Known(tokens.join(described, layout), is_token, tokens.join(known, layout))


class _Table(NamedTuple):
    """What everyone sees of the units of a kind: ``tokens`` (..., N, U, D) in the viewers' frames, and
    ``is_feature`` (..., N, U, D) bool, True = the viewer knows it."""

    tokens: torch.Tensor
    is_feature: torch.Tensor


def known_from_teammates(obs: torch.Tensor, layout: Layout) -> Known:
    """What each agent's teammates know of its allies and enemies, from everybody's observations (..., N, O).

    Each unit is described by the teammate that knows most of its features. Nothing is known for the dead, nor
    from a teammate whose place the agent does not know.
    """
    frame = layout.frame
    assert frame is not None  # autoencoder.options.check_layout allows no other
    parts = tokens.split(obs, layout)
    sights = sight_ranges(parts, layout, frame)
    places, is_placed = _places(obs, parts, layout, frame, sights)
    found = {kind: (torch.zeros_like(part), torch.zeros_like(part).bool()) for kind, part in parts.items()}
    for group in layout.groups:
        if group.kind in layout.kinds and group.count:
            table = _table(group, obs, parts, layout)
            source = _source(table, is_placed)
            described, is_feature = _described(table, *source, places, sights, group, frame)
            if group.kind == "ally":
                described, is_feature = _others(described), _others(is_feature)
            found[group.kind] = (described, is_feature)
    is_token = torch.cat([is_feature.any(dim=-1) for _, is_feature in found.values()], dim=-1)
    joined = tokens.join({kind: described for kind, (described, _) in found.items()}, layout)
    return Known(joined, is_token, tokens.join({kind: known for kind, (_, known) in found.items()}, layout))


def sight_ranges(parts: dict[str, torch.Tensor], layout: Layout, frame: Frame) -> torch.Tensor | None:
    """Sight range of each agent (..., N, 1) in units of its origin, 1 for the dead; None = all alike."""
    own = layout.group("own")
    if not frame.sights or own is None:
        return None
    types = [own.features.index(f"unit_type_{i}") for i in range(len(frame.sights))]
    bits = parts["own"][..., 0, types]
    sights = bits @ torch.tensor(frame.sights, dtype=bits.dtype, device=bits.device)
    return sights.masked_fill(sights == 0, 1.0).unsqueeze(-1)


def _places(
    obs: torch.Tensor,
    parts: dict[str, torch.Tensor],
    layout: Layout,
    frame: Frame,
    sights: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each agent's teammates stand, (..., N, N, 2) in its own frame, and whether that can be known and
    both are alive, (..., N, N) bool; False of the agent itself."""
    n_agents = obs.shape[-2]
    is_alive = tokens.is_shown(obs)
    is_other = ~torch.eye(n_agents, dtype=torch.bool, device=obs.device)
    own, ally = layout.group("own"), layout.group("ally")
    if frame.origin and own is not None:
        origin = parts["own"][..., 0, [own.features.index(name) for name in frame.origin]]
        places = origin.unsqueeze(-3) - origin.unsqueeze(-2)
        if sights is not None:
            places = places / sights.unsqueeze(-2)
        return places, is_alive.unsqueeze(-1) & is_alive.unsqueeze(-2) & is_other
    if ally is None:  # a team of one
        places = obs.new_zeros(*obs.shape[:-1], n_agents, 2)
        return places, torch.zeros_like(places[..., 0], dtype=torch.bool)
    table = by_agent(parts["ally"])
    return table[..., [ally.features.index(name) for name in frame.place]], tokens.is_shown(table)


def _table(group: TokenGroup, obs: torch.Tensor, parts: dict[str, torch.Tensor], layout: Layout) -> _Table:
    """Everybody's tokens of a kind; a living agent sees itself, by the features of its own token."""
    if group.kind != "ally":
        seen = parts[group.kind]
        return _Table(seen, tokens.is_shown(seen).unsqueeze(-1).expand_as(seen))
    frame, own = layout.frame, layout.group("own")
    assert frame is not None
    seen = by_agent(parts["ally"])
    myself = torch.eye(obs.shape[-2], dtype=torch.bool, device=obs.device)
    is_seen = tokens.is_shown(seen) | (tokens.is_shown(obs).unsqueeze(-1) & myself)
    is_feature = is_seen.unsqueeze(-1).expand_as(seen).clone()
    for d, name in enumerate(group.features):
        if name in frame.place or name == frame.distance:
            continue  # nobody is at a distance from itself: zeros
        if own is not None and name in own.features:
            of_itself = parts["own"][..., 0, own.features.index(name)].unsqueeze(-1)
            seen[..., d] = torch.where(myself, of_itself, seen[..., d])
        else:
            is_feature[..., d] &= ~myself
    return _Table(seen, is_feature)


def _source(table: _Table, is_placed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each agent and unit the teammate that describes it, (..., N, U), and whether there is one."""
    worth = table.is_feature.sum(dim=-1, dtype=torch.int32)
    best = (worth.unsqueeze(-3) * is_placed.unsqueeze(-1)).max(dim=-2)
    return best.indices, best.values > 0


def _described(
    table: _Table,
    source: torch.Tensor,
    has_source: torch.Tensor,
    places: torch.Tensor,
    sights: torch.Tensor | None,
    group: TokenGroup,
    frame: Frame,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sources' tokens in the frames of the agents that learn of them, and which features are known, both
    (..., N, U, D)."""
    index = source.unsqueeze(-2).unsqueeze(-1)

    def of_source(values: torch.Tensor) -> torch.Tensor:
        """(..., N, U, X) of the sources → (..., N, U, X) of the agents that learn of them."""
        return torch.take_along_dim(values.unsqueeze(-4), index, dim=-3).squeeze(-3)

    described, is_feature = of_source(table.tokens), of_source(table.is_feature) & has_source.unsqueeze(-1)
    where = [group.features.index(name) for name in frame.place]
    away = described[..., where]
    if sights is not None:
        ratio = sights.unsqueeze(-3) / sights.unsqueeze(-2)  # (..., N, N, 1): the source's over the agent's
        away = away * torch.take_along_dim(ratio, source.unsqueeze(-1), dim=-2)
    away = away + torch.take_along_dim(places, source.unsqueeze(-1), dim=-2)
    described = described.index_copy(-1, torch.tensor(where, device=described.device), away)
    if frame.distance is not None:
        distance = torch.linalg.vector_norm(away, dim=-1, keepdim=True)
        at = torch.tensor([group.features.index(frame.distance)], device=described.device)
        described = described.index_copy(-1, at, distance)
    for name in frame.within_sight:
        if name in group.features:
            described[..., group.features.index(name)] = 0.0
    return described * is_feature, is_feature


def by_agent(allies: torch.Tensor) -> torch.Tensor:
    """Ally tokens (..., N, N − 1, D) → by the agents that they show (..., N, N, D), zeros of oneself."""
    n_agents = allies.shape[-3]
    table = allies.new_zeros(*allies.shape[:-2], n_agents, allies.shape[-1])
    slots = tokens.teammate_slots(n_agents, allies.device).unsqueeze(-1).expand(allies.shape)
    return table.scatter(-2, slots, allies)


def _others(table: torch.Tensor) -> torch.Tensor:
    """(..., N, N, D) → without what each agent learns of itself, (..., N, N − 1, D)."""
    n_agents = table.shape[-2]
    slots = tokens.teammate_slots(n_agents, table.device).unsqueeze(-1)
    return torch.take_along_dim(table, slots.expand(*table.shape[:-2], -1, 1), dim=-2)
