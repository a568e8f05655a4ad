"""Flat observation ↔ tokens, both ways.

Axes: ``...`` any leading axes (episodes B, time steps T, agents N), K tokens, O features of an observation.
"""

from __future__ import annotations

import torch

from limask.layouts import Layout


def split(obs: torch.Tensor, layout: Layout) -> dict[str, torch.Tensor]:
    """Observations (..., O) → for each kind its tokens (..., K_kind, D_kind); views, not copies."""
    parts = obs.split([group.size for group in layout.groups], dim=-1)
    return {
        group.kind: part.unflatten(-1, (group.count, group.width))
        for group, part in zip(layout.groups, parts, strict=True)
    }


def join(tokens: dict[str, torch.Tensor], layout: Layout) -> torch.Tensor:
    """Inverse of ``split``: tokens by kind → observations (..., O)."""
    return torch.cat([tokens[group.kind].flatten(-2) for group in layout.groups], dim=-1)


def visibility(obs: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Which tokens the environment really showed: ``is_visible`` (..., K) bool, True = shown.

    In SMAC and SMAX a unit that is out of sight or dead, and all that a dead agent sees, is zeros.
    """
    if not layout.zeros_mean_unseen:
        return torch.ones((*obs.shape[:-1], layout.n_tokens), dtype=torch.bool, device=obs.device)
    seen = [(tokens != 0).any(dim=-1) for tokens in split(obs, layout).values()]
    return torch.cat(seen, dim=-1)


def hideable(layout: Layout, device: torch.device | str = "cpu") -> torch.Tensor:
    """Which tokens a masker may hide: (K,) bool."""
    flags = [group.is_hideable for group in layout.groups for _ in range(group.count)]
    return torch.tensor(flags, device=device)


def hide(obs: torch.Tensor, is_hidden: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Observations (..., O) with the tokens in ``is_hidden`` (..., K; True = hidden) set to zero.

    Zeros are what SMAC shows of a unit out of sight, so the hidden view is an observation that the agent
    might really have had.
    """
    parts = is_hidden.split([group.count for group in layout.groups], dim=-1)
    features = [
        part.unsqueeze(-1).expand(*part.shape, group.width).flatten(-2)
        for group, part in zip(layout.groups, parts, strict=True)
    ]
    return obs.masked_fill(torch.cat(features, dim=-1), 0.0)


def teammate_slots(n_agents: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """The agent that each ally token shows: (N, N − 1) integers; agent i's slots skip i itself."""
    everyone = torch.arange(n_agents, device=device).expand(n_agents, n_agents)
    others = ~torch.eye(n_agents, dtype=torch.bool, device=device)
    return everyone[others].view(n_agents, n_agents - 1)
