"""Autoencoder ``entity``: the agent's own trunk and GRU encode what was left visible; a small decoder,
never used when acting, reconstructs the hidden tokens."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import nn

from limask import tokens
from limask.autoencoder.losses import Standardiser, mean_squared
from limask.layouts import Layout, token_starts


class Scored(NamedTuple):
    """``loss``, a scalar, and each scored token's mean squared ``error`` (..., K), zero for the others."""

    loss: torch.Tensor
    error: torch.Tensor


class EntityAutoencoder(nn.Module):
    """Decoder over the agent's hidden state, with one learned query for each token (as the mask tokens with
    positions of He et al. 2022).

    Args:
        layout: the observation's layout.
        hidden_dim: H, the width of the agent's hidden state.
        decoder_dim: width of the decoder.
    """

    def __init__(self, layout: Layout, hidden_dim: int, decoder_dim: int) -> None:
        super().__init__()
        self.layout = layout
        self.from_hidden = nn.Linear(hidden_dim, decoder_dim)
        self.queries = nn.Parameter(0.02 * torch.randn(layout.n_tokens, decoder_dim))
        self.to_features = nn.ModuleDict({g.kind: nn.Linear(decoder_dim, g.width) for g in layout.groups})
        self.standardisers = nn.ModuleDict({g.kind: Standardiser(g.width) for g in layout.groups})

    def loss(
        self,
        hidden: torch.Tensor,
        obs: torch.Tensor,
        is_scored: torch.Tensor,
        weights: torch.Tensor | None = None,
    ) -> Scored:
        """Mean squared error of the scored tokens' standardised features; 0 where none is scored.

        Args:
            hidden: (..., H) hidden states of the agents on the hidden view.
            obs: (..., O) what was really observed.
            is_scored: (..., K) bool, True = the token is reconstructed.
            weights: (..., K) at least 0, of each token in the mean; None = all the same.
        """
        query_base = self.from_hidden(hidden).flatten(0, -2)
        seen = tokens.split(obs.flatten(0, -2), self.layout)
        scored = is_scored.flatten(0, -2)
        by_token = obs.new_zeros(scored.shape)
        errors, kept = [], []
        for group, first in zip(self.layout.groups, token_starts(self.layout), strict=True):
            # Only the scored tokens are decoded: the rest would be work for nothing.
            rows, slots = scored[:, first : first + group.count].nonzero(as_tuple=True)
            target = seen[group.kind][rows, slots]
            standardiser = cast(Standardiser, self.standardisers[group.kind])
            standardiser.update(target)
            decoded = torch.relu(query_base[rows] + self.queries[first + slots])
            error = self.to_features[group.kind](decoded) - standardiser(target)
            by_token[rows, first + slots] = error.detach().square().mean(dim=1)
            errors.append(error)
            if weights is not None:
                kept.append(weights.flatten(0, -2)[rows, first + slots])
        loss = mean_squared(errors, None if weights is None else kept)
        return Scored(loss, by_token.view(is_scored.shape))
