"""Flat observation ↔ tokens, both ways.

Axes: ``...`` any leading axes (episodes B, time steps T, agents N), K tokens, O features of an observation.
"""

from __future__ import annotations

import functools

import torch

from limask.layouts import Layout, token_starts


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

    In SMAC and SMAX a unit that is out of sight or dead, and all that a dead agent sees, is zeros; elsewhere
    it may be something else (``TokenGroup.unseen``).
    """
    if not layout.has_entities:
        return torch.ones((*obs.shape[:-1], layout.n_tokens), dtype=torch.bool, device=obs.device)
    obs = above_unseen(obs, layout)
    return torch.cat([is_shown(tokens) for tokens in split(obs, layout).values()], dim=-1)


def is_shown(tokens: torch.Tensor) -> torch.Tensor:
    """Which tokens (..., K, D) are anything but zeros: (..., K) bool."""
    # The norm is the fastest of torch's reductions that tell zeros from anything else.
    return torch.linalg.vector_norm(tokens, dim=-1) != 0


def hideable(layout: Layout, device: torch.device | str = "cpu") -> torch.Tensor:
    """Which tokens a masker may hide: (K,) bool."""
    flags = [group.is_hideable for group in layout.groups for _ in range(group.count)]
    return torch.tensor(flags, device=device)


def hide(obs: torch.Tensor, is_hidden: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Observations (..., O) with the tokens in ``is_hidden`` (..., K; True = hidden) set to zero, or whatever
    the environment shows of an entity out of sight: the hidden view is an observation that the agent might
    really have had."""
    is_gone = is_hidden.index_select(-1, _token_of_feature(layout, obs.device))
    if not layout.unseen:
        return obs.masked_fill(is_gone, 0.0)
    return torch.where(is_gone, _unseen(layout, obs.device).to(obs.dtype), obs)


def above_unseen(obs: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Observations (..., O) less what one shows that sees nothing: an unseen token becomes zeros."""
    return obs - _unseen(layout, obs.device).to(obs.dtype) if layout.unseen else obs


@functools.cache
def _unseen(layout: Layout, device: torch.device) -> torch.Tensor:
    return torch.tensor(layout.unseen, device=device)


@functools.cache
def _token_of_feature(layout: Layout, device: torch.device) -> torch.Tensor:
    """The token that each feature of an observation belongs to: (O,) integers."""
    starts = token_starts(layout)
    tokens = [
        start + k for group, start in zip(layout.groups, starts, strict=True) for k in range(group.count)
    ]
    widths = [group.width for group in layout.groups for _ in range(group.count)]
    return torch.tensor(tokens).repeat_interleave(torch.tensor(widths)).to(device)


def teammate_slots(n_agents: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """The agent that each ally token shows: (N, N − 1) integers; agent i's slots skip i itself."""
    everyone = torch.arange(n_agents, device=device).expand(n_agents, n_agents)
    others = ~torch.eye(n_agents, dtype=torch.bool, device=device)
    return everyone[others].view(n_agents, n_agents - 1)
