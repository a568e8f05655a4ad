"""Inferences put back among what is observed.

Axes: R rows, K tokens (of a kind), D features of a token, O features of an observation, P of the tokens that
may be hidden.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from limask.autoencoder.losses import Standardiser
from limask.layouts import Layout, tokens


def filled_in(
    inferred: torch.Tensor, obs: torch.Tensor, layout: Layout, standardisers: nn.ModuleDict
) -> torch.Tensor:
    """Observations with what is inferred of the tokens that are out of sight.

    Args:
        inferred: (R, P) standardised features of the tokens that may be hidden.
        obs: (R, O) observations.
        layout: of the observations.
        standardisers: ``Standardiser`` of each kind that may be hidden.

    Returns:
        (R, O) in the observation's own units; what is seen, and all that the dead see, is as it was.
    """
    groups = [group for group in layout.groups if group.is_hideable]
    parts = tokens.split(torch.zeros_like(obs), layout)
    for group, part in zip(groups, inferred.split([group.size for group in groups], dim=-1), strict=True):
        standardiser = cast(Standardiser, standardisers[group.kind])
        parts[group.kind] = standardiser.undo(part.unflatten(-1, (group.count, group.width)))
    is_unseen = tokens.is_out_of_sight(obs, layout) & tokens.hideable(layout, obs.device)
    return torch.where(tokens.features_of(is_unseen, layout, obs.dtype) > 0, tokens.join(parts, layout), obs)
