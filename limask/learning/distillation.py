"""Masked self-distillation: with tokens hidden, an agent is to value its actions as it would if it saw them.

Axes: M filled steps, N agents, A actions.
"""

from __future__ import annotations

import torch


def distillation_loss(
    q_hidden: torch.Tensor, q_full: torch.Tensor, is_available: torch.Tensor
) -> torch.Tensor:
    """Mean squared difference of two views' values over the available actions, in units of the variance of
    the full view's values over an agent's actions.

    QMIX leaves the scale of Q_i free, and choosing needs only the gaps between actions: divided by their
    variance the loss is the same at any scale. Who has no choice, as the dead, counts nowhere.

    Args:
        q_hidden: (M, N, A) of the view with tokens hidden, which gets gradients.
        q_full: (M, N, A) of the full view, which gets none: a teacher that followed would make both views
            alike by forgetting what is hidden.
        is_available: (M, N, A) bool.
    """
    has_choice = is_available.sum(dim=-1, keepdim=True) > 1
    counts = (is_available & has_choice).to(q_full.dtype)
    target = q_full.detach()
    mean = (target * counts).sum(dim=-1, keepdim=True) / counts.sum(dim=-1, keepdim=True).clamp(min=1)
    per_agent = ((target - mean).square() * counts).sum(dim=-1) / counts.sum(dim=-1).clamp(min=1)
    variance = per_agent.sum() / has_choice.sum().clamp(min=1)
    error = ((q_hidden - target).square() * counts).sum() / counts.sum().clamp(min=1)
    return error / variance.clamp(min=torch.finfo(variance.dtype).tiny)
