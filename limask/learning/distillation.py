"""Masked self-distillation: with tokens hidden, an agent is to value its actions as it would if it saw them.

Axes: M steps, N agents, A actions.
"""

from __future__ import annotations

import torch


def distillation_loss(
    q_hidden: torch.Tensor, q_full: torch.Tensor, is_available: torch.Tensor, credit: torch.Tensor
) -> torch.Tensor:
    """Mean squared difference of two views' values over the available actions, in units of Q_tot: how far it
    would be off, to first order, if one agent valued one action by its hidden view.

    QMIX leaves the scale of Q_i free, and ∂Q_tot/∂Q_i falls as it grows: the loss is the same at any scale,
    and is to the TD loss what the difference is to the TD error. In units of the values' own variance it
    would hold them back where rewards come late: they hardly differ then, and any difference to the teacher
    is a large one. Who has no choice, as the dead, counts nowhere.

    Args:
        q_hidden: (M, N, A) of the view with tokens hidden, which gets gradients.
        q_full: (M, N, A) of the full view, which gets none: a teacher that followed would make both views
            alike by forgetting what is hidden.
        is_available: (M, N, A) bool.
        credit: (M, N) ∂Q_tot/∂Q_i.
    """
    has_choice = is_available.sum(dim=-1, keepdim=True) > 1
    counts = (is_available & has_choice).to(q_full.dtype)
    errors = (q_hidden - q_full.detach()) * credit.unsqueeze(-1)
    return (errors.square() * counts).sum() / counts.sum().clamp(min=1)
