"""Targets of temporal-difference learning."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def lambda_returns(
    rewards: torch.Tensor,
    terminated: torch.Tensor,
    q_next: torch.Tensor,
    is_step: torch.Tensor,
    gamma: float,
    td_lambda: float,
) -> torch.Tensor:
    """TD(λ) targets (Sutton & Barto, 2nd ed., §12.1) over the steps of each episode.

    ``G_t = r_t + γ (1 − terminated_t) [(1 − λ) Q_{t+1} + λ G_{t+1}]``; the last step of an episode, and every
    step where λ = 0, bootstraps from ``q_next`` alone.

    Args:
        rewards: (B, T, 1 or M), B episodes, T transitions, M values of each state.
        terminated: (B, T, 1), 1 where the episode ended in that step.
        q_next: (B, T, M), value of the next state.
        is_step: (B, T, 1), 1 where the episode has a transition.
        gamma: discount factor.
        td_lambda: λ.

    Returns:
        Targets (B, T, M); those of steps that an episode does not have mean nothing.
    """
    discount = gamma * (1 - terminated)
    targets = rewards + discount * q_next
    if td_lambda == 0:
        return targets
    # G_t = (one-step target − share · Q_{t+1}) + share · G_{t+1}: one operation for each step.
    share = td_lambda * discount[:, :-1] * is_step[:, 1:]
    targets[:, :-1] -= share * q_next[:, :-1]
    for t in range(targets.shape[1] - 2, -1, -1):
        targets[:, t].addcmul_(share[:, t], targets[:, t + 1])
    return targets


@torch.no_grad()
def move_towards(target: Iterable[torch.Tensor], online: Iterable[torch.Tensor], tau: float) -> None:
    """Soft update of target parameters, in place: ``target + τ (online − target)``."""
    torch._foreach_lerp_(list(target), list(online), tau)
