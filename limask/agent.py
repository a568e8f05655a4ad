"""The agent: trunk, GRU, Q head; one time step for acting, whole episodes for learning.

Axes: R rows (episodes × agents, or filled steps × agents, agents fastest), M filled steps, N agents, D input
features, H hidden size, A actions.
"""

from __future__ import annotations

import torch
from torch import nn

from limask.autoencoder import TeamAutoencoder
from limask.config import LimConfig
from limask.gru import packed_gru
from limask.layouts import Layout
from limask.trunks import AgentSpec, EntityHead, EntityTrunk, FcHead, FcTrunk, TeamTrunk


class LimAgent(nn.Module):
    """Trunk, GRU (or a feed-forward layer) and head, shared by all agents.

    The submodules carry the names of the hosts' RNN agent, so that its checkpoints load into trunk ``fc``.
    ``autoencoder`` is the one that takes part in acting, or None; the controller appends what it infers to
    the inputs.
    """

    autoencoder: TeamAutoencoder | None

    def __init__(self, spec: AgentSpec, config: LimConfig, layout: Layout) -> None:
        super().__init__()
        self.spec, self.config, self.layout = spec, config, layout
        hidden_dim = spec.hidden_dim
        self.fc1: nn.Module
        self.rnn: nn.Module
        self.fc2: nn.Module
        # Without entities, one linear layer over all feature groups is what the entity trunk would compute.
        is_entity = config.trunk == "entity" and bool(layout.kinds)
        self.fc1 = (
            EntityTrunk(spec, layout) if is_entity else FcTrunk(spec.input_size(layout.obs_size), hidden_dim)
        )
        self.rnn = (
            nn.GRUCell(hidden_dim, hidden_dim) if spec.is_recurrent else nn.Linear(hidden_dim, hidden_dim)
        )
        self.fc2 = EntityHead(spec, layout) if is_entity else FcHead(hidden_dim, spec.n_actions)
        self.autoencoder = None
        if config.autoencoder == "team":
            sizes = (spec.n_agents, spec.n_actions, spec.input_size(layout.obs_size), layout.obs_size)
            self.autoencoder = TeamAutoencoder(*sizes, config.window)
            self.fc1 = TeamTrunk(spec, layout.obs_size)

    def init_hidden(self) -> torch.Tensor:
        """Zeros (1, H) on the device of the agent."""
        return next(self.parameters()).new_zeros(1, self.spec.hidden_dim)

    def forward(self, inputs: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One time step: inputs (R, D) and hidden states (…, H) → Q-values (R, A), hidden states (R, H)."""
        encoded = self.fc1(inputs)
        x = torch.relu_(encoded.features)
        if isinstance(self.rnn, nn.GRUCell):
            hidden = self.rnn(x, hidden.reshape(-1, self.spec.hidden_dim))
        else:
            hidden = torch.relu(self.rnn(x))
        return self.fc2(hidden, encoded.entities), hidden

    def sequence(self, inputs: torch.Tensor, counts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Whole episodes from zero hidden states, with the same numbers as step by step.

        Args:
            inputs: (M, N, D), the filled steps of B episodes in the order of ``Packing``.
            counts: episodes at each time step.

        Returns:
            Q-values (M, N, A) and hidden states (M, N, H).
        """
        n_rows, n_agents, _ = inputs.shape
        encoded = self.fc1(inputs.flatten(0, 1))
        x = torch.relu_(encoded.features)
        if isinstance(self.rnn, nn.GRUCell):
            hidden = packed_gru(self.rnn, x, [count * n_agents for count in counts])
        else:
            hidden = torch.relu(self.rnn(x))
        q = self.fc2(hidden, encoded.entities)
        return q.view(n_rows, n_agents, -1), hidden.view(n_rows, n_agents, -1)
