"""Autoencoder ``entity``: the agent's own trunk and GRU encode what was left visible; a small decoder
reconstructs the hidden tokens. It takes part in acting with ``lim.autoencoder.use_inference`` alone.

Axes: R rows, K tokens (of a kind), D features of a token, H hidden size, P features of all tokens that may be
hidden.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

import torch
from torch import nn

from limask.autoencoder.base import Place, RunAgent, TokenAutoencoder, Truth
from limask.autoencoder.beliefs import filled_in
from limask.autoencoder.losses import Scored, Standardiser, mean_squared
from limask.config import LimConfig
from limask.layouts import Layout, token_starts, tokens
from limask.networks.entity_trunk import entity_dim
from limask.networks.spec import AgentSpec

#: Tokens after which a drifting latent target begins to be forgotten: some twenty updates' worth.
LATENT_HORIZON = 1e5


class EntityAutoencoder(TokenAutoencoder):
    """Decoder over the agent's hidden state, with one learned query for each token (as the mask tokens with
    positions of He et al. 2022).

    Args:
        layout: the observation's layout.
        hidden_dim: H, the width of the agent's hidden state.
        decoder_dim: width of the decoder.
        latent_dim: width of the embeddings that are reconstructed instead of tokens' features, or None.
    """

    unused = MappingProxyType({"autoencoder.sightings": False, "autoencoder.denoise": False})
    shares_encoder = True

    def __init__(
        self, layout: Layout, hidden_dim: int, decoder_dim: int, latent_dim: int | None = None
    ) -> None:
        super().__init__()
        self.layout, self.is_latent = layout, latent_dim is not None
        widths = {g.kind: latent_dim or g.width for g in layout.groups}
        horizon = LATENT_HORIZON if latent_dim else math.inf
        self.from_hidden = nn.Linear(hidden_dim, decoder_dim)
        self.queries = nn.Parameter(0.02 * torch.randn(layout.n_tokens, decoder_dim))
        self.to_features = nn.ModuleDict(
            {kind: nn.Linear(decoder_dim, width) for kind, width in widths.items()}
        )
        self.standardisers = nn.ModuleDict(
            {kind: Standardiser(width, horizon) for kind, width in widths.items()}
        )

    @classmethod
    def build(cls, spec: AgentSpec, layout: Layout, config: LimConfig) -> EntityAutoencoder:
        """See ``Autoencoder.build``."""
        latent_dim = entity_dim(spec) if config.autoencoder.latent else None
        return cls(layout, spec.hidden_dim, config.autoencoder.width, latent_dim)

    @classmethod
    def place(cls, use_inference: bool) -> Place:
        """See ``Autoencoder.place``."""
        return "head" if use_inference else "nowhere"

    def encode(
        self, view: torch.Tensor, counts: list[int], run_agent: RunAgent
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """See ``TokenAutoencoder.encode``: by the agent itself."""
        return run_agent(view, counts)

    def loss(self, hidden: torch.Tensor, truth: Truth, *, updates_statistics: bool = True) -> Scored:
        """See ``TokenAutoencoder.loss``."""
        seen = tokens.split(truth.obs.flatten(0, -2), self.layout)
        known = None if truth.is_known is None else tokens.split(truth.is_known.flatten(0, -2), self.layout)
        return self._score(hidden, seen, truth, known, updates_statistics)

    def loss_of_embeddings(
        self,
        hidden: torch.Tensor,
        embedded: Mapping[str, torch.Tensor],
        truth: Truth,
        *,
        updates_statistics: bool = True,
    ) -> Scored:
        """See ``TokenAutoencoder.loss_of_embeddings``."""
        return self._score(hidden, embedded, truth, None, updates_statistics)

    def _score(
        self,
        hidden: torch.Tensor,
        targets: Mapping[str, torch.Tensor],
        truth: Truth,
        known: Mapping[str, torch.Tensor] | None,
        updates_statistics: bool,
    ) -> Scored:
        """``loss`` of ``targets`` by kind, (R, K, D) for the R rows of ``hidden``, of which ``known``
        (R, K, D) count. Kinds without targets are never scored."""
        is_scored, weights = truth.is_scored, truth.weights
        query_base = self.from_hidden(hidden).flatten(0, -2)
        scored = is_scored.flatten(0, -2)
        by_token = hidden.new_zeros(scored.shape)
        errors, kept = [], []
        for group, first in zip(self.layout.groups, token_starts(self.layout), strict=True):
            if group.kind not in targets:
                continue
            # Only the scored tokens are decoded: the rest would be work for nothing.
            rows, slots = scored[:, first : first + group.count].nonzero(as_tuple=True)
            target = targets[group.kind][rows, slots]
            is_known = None if known is None else known[group.kind][rows, slots]
            standardiser = cast(Standardiser, self.standardisers[group.kind])
            if updates_statistics:
                standardiser.update(target, is_known)
            decoded = torch.relu(query_base[rows] + self.queries[first + slots])
            error = self.to_features[group.kind](decoded) - standardiser(target)
            squares = error.detach().square()
            if is_known is None:
                by_token[rows, first + slots] = squares.mean(dim=1)
                errors.append(error)
            else:
                by_token[rows, first + slots] = (squares * is_known).sum(dim=1) / is_known.sum(dim=1)
                errors.append(error[is_known])
            if weights is not None:
                kept.append(weights.flatten(0, -2)[rows, first + slots])
        loss = mean_squared(errors, None if weights is None else kept)
        return Scored(loss, by_token.view(is_scored.shape))

    @torch.no_grad()
    def infer_from_hidden(self, hidden: torch.Tensor, obs: torch.Tensor) -> torch.Tensor:
        """What the decoder makes of the tokens that are out of sight: (R, P) standardised features, zeros for
        those that the observation shows and for what the dead would see. Nothing is learned through it.

        Args:
            hidden: (R, H) hidden states.
            obs: (R, O) observations at the same steps.
        """
        query_base = self.from_hidden(hidden).unsqueeze(1)
        is_unseen = tokens.is_out_of_sight(obs, self.layout).unsqueeze(-1)
        inferred = []
        for group, first in zip(self.layout.groups, token_starts(self.layout), strict=True):
            if group.is_hideable:
                decoded = torch.relu(query_base + self.queries[first : first + group.count])
                features = self.to_features[group.kind](decoded)
                inferred.append((features * is_unseen[:, first : first + group.count]).flatten(1))
        return torch.cat(inferred, dim=1)

    def believed(self, hidden: torch.Tensor, obs: torch.Tensor) -> torch.Tensor | None:
        """See ``Autoencoder.believed``; embeddings (``latent``) are none to look at."""
        if self.is_latent:
            return None
        return filled_in(self.infer_from_hidden(hidden, obs), obs, self.layout, self.standardisers)
