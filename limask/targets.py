"""Targets of temporal-difference learning."""

from __future__ import annotations

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
    one_step = rewards + discount * q_next
    if td_lambda == 0:
        return one_step
    later = one_step[:, -1]
    targets = [later]
    for t in range(one_step.shape[1] - 2, -1, -1):
        share = td_lambda * is_step[:, t + 1]
        later = one_step[:, t] + discount[:, t] * share * (later - q_next[:, t])
        targets.append(later)
    return torch.stack(targets[::-1], dim=1)
