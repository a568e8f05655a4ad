"""Flat observation ↔ tokens, both ways.

Axes: ``...`` any leading axes (episodes B, time steps T, agents N), K tokens, O features of an observation,
P of those of its tokens that may be hidden.
"""

from __future__ import annotations

import functools

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

    In SMAC and SMAX a unit that is out of sight or dead, and all that a dead agent sees, is zeros; elsewhere
    it may be something else (``TokenGroup.unseen``).
    """
    if not layout.has_entities:
        return torch.ones((*obs.shape[:-1], layout.n_tokens), dtype=torch.bool, device=obs.device)
    # Sums of sizes are zero for zeros alone, and one product makes all of them.
    return above_unseen(obs, layout).abs() @ by_token(layout, obs.device, obs.dtype) > 0


def is_out_of_sight(obs: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Which tokens (..., K) bool are not shown to an agent that is there to see them. To the dead nothing is
    out of sight: they are told from the living, who show themselves, where the layout has such tokens."""
    return is_out_of_view(visibility(obs, layout), layout)


def is_out_of_view(is_visible: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The same by which tokens (..., K) bool are shown."""
    if all(group.is_hideable for group in layout.groups):
        return ~is_visible
    return ~is_visible & is_visible.any(dim=-1, keepdim=True)


def is_shown(tokens: torch.Tensor) -> torch.Tensor:
    """Which tokens (..., K, D) are anything but zeros: (..., K) bool."""
    # The norm is the fastest of torch's reductions that tell zeros from anything else.
    return torch.linalg.vector_norm(tokens, dim=-1) != 0


def hideable(layout: Layout, device: torch.device | str = "cpu") -> torch.Tensor:
    """Which tokens a masker may hide: (K,) bool."""
    flags = [group.is_hideable for group in layout.groups for _ in range(group.count)]
    return torch.tensor(flags, device=device)


def hideable_features(values: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Of values of all features (..., O) those of the tokens that a masker may hide, (..., P)."""
    parts = values.split([group.size for group in layout.groups], dim=-1)
    kept = [part for group, part in zip(layout.groups, parts, strict=True) if group.is_hideable]
    return torch.cat(kept, dim=-1)


def hide(obs: torch.Tensor, is_hidden: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Observations (..., O) with the tokens in ``is_hidden`` (..., K; True = hidden) set to zero, or whatever
    the environment shows of an entity out of sight: the hidden view is an observation that the agent might
    really have had."""
    kept = features_of(~is_hidden, layout, obs.dtype)
    if not layout.unseen:
        return obs * kept
    return torch.where(kept > 0, obs, _unseen(layout, obs.device).to(obs.dtype))


def features_of(is_token: torch.Tensor, layout: Layout, dtype: torch.dtype) -> torch.Tensor:
    """Flags of tokens (..., K) bool → 1 for each of their features and 0 for the others, (..., O)."""
    return is_token.to(dtype) @ by_token(layout, is_token.device, dtype).t()


def above_unseen(obs: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Observations (..., O) less what one shows that sees nothing: an unseen token becomes zeros."""
    return obs - _unseen(layout, obs.device).to(obs.dtype) if layout.unseen else obs


@functools.cache
def _unseen(layout: Layout, device: torch.device) -> torch.Tensor:
    return torch.tensor(layout.unseen, device=device)


@functools.cache
def by_token(
    layout: Layout, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """One where a feature of an observation belongs to a token: (O, K)."""
    widths = [group.width for group in layout.groups for _ in range(group.count)]
    with torch.inference_mode(False):  # it may be made while acting, and is kept for learning
        return torch.block_diag(*(torch.ones(width, 1) for width in widths)).to(device, dtype)


def teammate_slots(n_agents: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """The agent that each ally token shows: (N, N − 1) integers; agent i's slots skip i itself."""
    everyone = torch.arange(n_agents, device=device).expand(n_agents, n_agents)
    others = ~torch.eye(n_agents, dtype=torch.bool, device=device)
    return everyone[others].view(n_agents, n_agents - 1)
