"""Autoencoder ``belief``: what an agent makes of the entities that it does not see, by networks of its own.

Axes: R rows (agents fastest), M filled steps, N agents, D features of an agent's input without inferences,
O features of an observation, H hidden size, P features of all tokens that may be hidden.
"""

from __future__ import annotations

import torch
from torch import nn

from limask.autoencoder.entity import EntityAutoencoder
from limask.entity_trunk import EntityTrunk
from limask.gru import packed_gru
from limask.layouts import Layout
from limask.trunks import AgentSpec


class BeliefAutoencoder(nn.Module):
    """Entity trunk, GRU and decoder beside those of the agent, and as wide: no gradient of Q reaches them,
    and theirs do not reach the agent.

    Args:
        spec: sizes of the agent and of its input.
        layout: the observation's layout, with kinds of entities.
        decoder_dim: width of the decoder.
    """

    def __init__(self, spec: AgentSpec, layout: Layout, decoder_dim: int) -> None:
        super().__init__()
        self.input_size, self.obs_size = spec.input_size(layout.obs_size), layout.obs_size
        self.trunk = EntityTrunk(spec, layout)
        self.rnn = nn.GRUCell(spec.hidden_dim, spec.hidden_dim)
        self.decoder = EntityAutoencoder(layout, spec.hidden_dim, decoder_dim)

    @torch.no_grad()
    def step(self, inputs: torch.Tensor, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One time step: inputs (R, D) and states (R, H) → inferences (R, P) and states (R, H)."""
        states = self.rnn(torch.relu_(self.trunk(inputs).features), states)
        return self.decoder.infer(states, inputs[:, : self.obs_size]), states

    def sequence(self, inputs: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """States (M, N, H) over whole episodes of inputs (M, N, D and whatever follows), as step by step.

        ``counts`` are the episodes at each time step, in the order of ``Packing``.
        """
        n_agents = inputs.shape[1]
        x = torch.relu_(self.trunk(inputs[..., : self.input_size].flatten(0, 1)).features)
        return packed_gru(self.rnn, x, [count * n_agents for count in counts]).unflatten(0, (-1, n_agents))

    @torch.no_grad()
    def inferences(self, inputs: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """Inferences (M, N, P) over whole episodes; see ``sequence``."""
        states, obs = self.sequence(inputs, counts), inputs[..., : self.obs_size]
        return self.decoder.infer(states.flatten(0, 1), obs.flatten(0, 1)).unflatten(0, states.shape[:2])
