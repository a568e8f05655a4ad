"""Autoencoder ``belief``: what an agent makes of the entities that it does not see, by networks of its own.

Axes: R rows (agents fastest), M filled steps, N agents, D features of an agent's input without inferences,
O features of an observation, W width of the hidden states, K tokens (of a kind), P features of all tokens
that may be hidden.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from limask import tokens
from limask.autoencoder.losses import Scored, Standardiser
from limask.gru import packed_gru
from limask.layouts import Layout, token_starts
from limask.trunks import AgentSpec


class BeliefAutoencoder(nn.Module):
    """One layer, GRU and decoder beside those of the agent: no gradient of Q reaches them, and theirs do not
    reach the agent.

    Args:
        spec: sizes of the agent and of its input.
        layout: the observation's layout, with kinds of entities.
        width: W, of all three.
    """

    def __init__(self, spec: AgentSpec, layout: Layout, width: int) -> None:
        super().__init__()
        self.input_size, self.obs_size, self.width = spec.input_size(layout.obs_size), layout.obs_size, width
        self.fc1 = nn.Linear(self.input_size, width)
        self.rnn = nn.GRUCell(width, width)
        self.decoder = BeliefDecoder(layout, width)

    @torch.no_grad()
    def step(self, inputs: torch.Tensor, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One time step: inputs (R, D) and states (R, W) → inferences (R, P) and states (R, W)."""
        states = self.rnn(torch.relu_(self.fc1(inputs)), states)
        return self.decoder.infer(states, inputs[:, : self.obs_size]), states

    def sequence(self, inputs: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """States (M, N, W) over whole episodes of inputs (M, N, D and whatever follows), as step by step.

        ``counts`` are the episodes at each time step, in the order of ``Packing``.
        """
        n_agents = inputs.shape[1]
        x = torch.relu_(self.fc1(inputs[..., : self.input_size].flatten(0, 1)))
        return packed_gru(self.rnn, x, [count * n_agents for count in counts]).unflatten(0, (-1, n_agents))

    @torch.no_grad()
    def inferences(self, inputs: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """Inferences (M, N, P) over whole episodes; see ``sequence``."""
        states, obs = self.sequence(inputs, counts), inputs[..., : self.obs_size]
        return self.decoder.infer(states.flatten(0, 1), obs.flatten(0, 1)).unflatten(0, states.shape[:2])


class BeliefDecoder(nn.Module):
    """All tokens that may be hidden at once, by two layers.

    Args:
        layout: the observation's layout.
        width: W, of the hidden states that are decoded, and of the layer between.
    """

    def __init__(self, layout: Layout, width: int) -> None:
        super().__init__()
        self.layout = layout
        starts = zip(layout.groups, token_starts(layout), strict=True)
        self.groups = [(group, first) for group, first in starts if group.is_hideable]
        self.from_hidden = nn.Linear(width, width)
        self.to_features = nn.Linear(width, layout.hideable_size)
        self.standardisers = nn.ModuleDict({g.kind: Standardiser(g.width) for g, _ in self.groups})

    def loss(
        self,
        hidden: torch.Tensor,
        obs: torch.Tensor,
        is_scored: torch.Tensor,
        weights: torch.Tensor | None = None,
        is_known: torch.Tensor | None = None,
    ) -> Scored:
        """As ``EntityAutoencoder.loss``."""
        seen = tokens.split(obs.flatten(0, -2), self.layout)
        known = None if is_known is None else tokens.split(is_known.flatten(0, -2), self.layout)
        scored = is_scored.flatten(0, -2).unsqueeze(-1)
        by_token = hidden.new_zeros(scored.shape[:-1])
        total, n_counted = hidden.new_zeros(()), hidden.new_zeros(())
        for (group, first), decoded in zip(self.groups, self._decode(hidden.flatten(0, -2)), strict=True):
            of, target = slice(first, first + group.count), seen[group.kind]
            counts = scored[:, of].expand_as(target) if known is None else scored[:, of] & known[group.kind]
            standardiser = cast(Standardiser, self.standardisers[group.kind])
            standardiser.update(target.flatten(0, 1), counts.flatten(0, 1))
            squares = (decoded - standardiser(target)).square() * counts
            n_known = counts.sum(dim=-1)
            by_token[:, of] = squares.detach().sum(dim=-1) / n_known.clamp(min=1)
            if weights is not None:
                weight = weights.flatten(0, -2)[:, of]
                squares, n_known = squares * weight.unsqueeze(-1), n_known * weight
            total, n_counted = total + squares.sum(), n_counted + n_known.sum()
        loss = total / n_counted.clamp(min=torch.finfo(total.dtype).tiny)
        return Scored(loss, by_token.view(is_scored.shape))

    @torch.no_grad()
    def infer(self, hidden: torch.Tensor, obs: torch.Tensor) -> torch.Tensor:
        """As ``EntityAutoencoder.infer``: (R, P), zeros for the tokens that the observation shows."""
        seen = tokens.split(tokens.above_unseen(obs, self.layout), self.layout)
        inferred = [
            decoded.masked_fill_(tokens.is_shown(seen[group.kind]).unsqueeze(-1), 0.0).flatten(1)
            for (group, _), decoded in zip(self.groups, self._decode(hidden), strict=True)
        ]
        return torch.cat(inferred, dim=1)

    def _decode(self, hidden: torch.Tensor) -> list[torch.Tensor]:
        """Hidden states (R, W) → for each kind standardised features (R, K, D)."""
        decoded = self.to_features(torch.relu_(self.from_hidden(hidden)))
        parts = decoded.split([group.size for group, _ in self.groups], dim=1)
        pairs = zip(self.groups, parts, strict=True)
        return [part.unflatten(1, (group.count, group.width)) for (group, _), part in pairs]
