"""The agent: trunk, GRU, Q head.

Axes: R rows (episodes × agents, or episodes × time steps × agents, agents fastest), B episodes, T time
steps, N agents, K tokens, D input features, H hidden size, A actions.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import nn

from limask import tokens
from limask.config import LimConfig
from limask.gru import packed_gru
from limask.layouts import Layout, TokenGroup


@dataclasses.dataclass(frozen=True)
class AgentSpec:
    """Sizes of the agent and of its input, which is [observation | last action | agent id].

    Attributes:
        n_agents: N.
        n_actions: A.
        hidden_dim: H.
        has_last_action: whether the one-hot last action follows the observation.
        has_agent_id: whether the one-hot agent id follows that.
        is_recurrent: whether a GRU (or a feed-forward layer) stands between trunk and head.
    """

    n_agents: int
    n_actions: int
    hidden_dim: int
    has_last_action: bool
    has_agent_id: bool
    is_recurrent: bool

    def input_size(self, obs_size: int) -> int:
        """D for observations of ``obs_size`` features."""
        return obs_size + self.has_last_action * self.n_actions + self.has_agent_id * self.n_agents


class Encoded(NamedTuple):
    """A trunk's output: ``features`` (R, H) before the activation, and for the entities that actions aim at
    their embeddings ``targets`` (R, n_targets, F), or None."""

    features: torch.Tensor
    targets: torch.Tensor | None


class FcTrunk(nn.Linear):
    """One linear layer over the whole input, as in the hosts' RNN agent."""

    def forward(self, inputs: torch.Tensor) -> Encoded:  # type: ignore[override]
        """Inputs (R, D) → features (R, H)."""
        return Encoded(super().forward(inputs), None)


class FcHead(nn.Linear):
    """One linear layer, as in the hosts' RNN agent."""

    def forward(self, hidden: torch.Tensor, targets: torch.Tensor | None) -> torch.Tensor:  # type: ignore[override]
        """Hidden states (R, H) → Q-values (R, A)."""
        return super().forward(hidden)


import os
VARIANT = os.environ.get("LIM_VARIANT", "deepset")
F_DIM = int(os.environ.get("LIM_F", "64"))


class EntityTrunk(nn.Module):
    """prototype"""

    def __init__(self, spec: AgentSpec, layout: Layout) -> None:
        super().__init__()
        self.spec, self.layout = spec, layout
        target = layout.group("enemy")
        self.n_plain = target.first_action if target else spec.n_actions
        self.entities = [g for g in layout.groups if g.kind in ("ally", "enemy") and g.count]
        self.own = [g for g in layout.groups if g.kind not in ("ally", "enemy")]
        own_size = sum(g.size for g in self.own)
        if spec.has_last_action:
            own_size += self.n_plain
        if spec.has_agent_id:
            own_size += spec.n_agents
        H = spec.hidden_dim
        self.from_own = nn.Linear(own_size, H)
        self.embed = nn.ModuleDict()
        self.pool = nn.ModuleDict()
        for g in self.entities:
            width = g.width + 2
            self.embed[g.kind] = nn.Linear(width, F_DIM, bias=False)
            if VARIANT == "hpn":
                self.pool[g.kind] = nn.Linear(width * (F_DIM + 1), H, bias=False)
            else:
                self.pool[g.kind] = nn.Linear(F_DIM, H, bias=False)

    def forward(self, inputs):
        spec = self.spec
        obs, rest = inputs[:, : self.layout.obs_size], inputs[:, self.layout.obs_size :]
        parts = tokens.split(obs, self.layout)
        own = [parts[g.kind].flatten(1) for g in self.own]
        aimed = None
        if spec.has_last_action:
            last, rest = rest[:, : spec.n_actions], rest[:, spec.n_actions :]
            own.append(last[:, : self.n_plain])
            aimed = last[:, self.n_plain :]
        if spec.has_agent_id:
            own.append(rest)
        x = self.from_own(torch.cat(own, dim=-1))
        targets = None
        for g in self.entities:
            e = parts[g.kind]
            seen = (e != 0).any(dim=-1, keepdim=True).float()
            a = aimed.unsqueeze(-1) * seen if (g.kind == "enemy" and aimed is not None) else torch.zeros_like(seen)
            e = torch.cat([e, seen, a], dim=-1)
            phi = torch.relu(self.embed[g.kind](e))
            if VARIANT == "hpn":
                phi1 = torch.cat([phi, seen], dim=-1)
                p = torch.bmm(e.transpose(1, 2), phi1).flatten(1)
                x = x + self.pool[g.kind](p)
            else:
                x = x + self.pool[g.kind](phi.sum(dim=1))
            if g.kind == "enemy":
                targets = phi
        return Encoded(x, targets)


class EntityHead(nn.Module):
    def __init__(self, spec, layout):
        super().__init__()
        target = layout.group("enemy")
        self.n_plain = target.first_action if target else spec.n_actions
        self.plain = nn.Linear(spec.hidden_dim, self.n_plain)
        if target:
            self.key = nn.Linear(spec.hidden_dim, F_DIM)
            self.bias = nn.Linear(spec.hidden_dim, 1)

    def forward(self, hidden, targets):
        q = self.plain(hidden)
        if targets is None:
            return q
        att = torch.bmm(targets, self.key(hidden).unsqueeze(-1)).squeeze(-1) + self.bias(hidden)
        return torch.cat([q, att], dim=-1)


class LimAgent(nn.Module):
    def __init__(self, spec: AgentSpec, config: LimConfig, layout: Layout) -> None:
        super().__init__()
        self.spec, self.config, self.layout = spec, config, layout
        hidden_dim = spec.hidden_dim
        self.fc1: nn.Module
        self.rnn: nn.Module
        self.fc2: nn.Module
        entity = config.trunk == "entity" and bool(layout.kinds)
        self.fc1 = EntityTrunk(spec, layout) if entity else FcTrunk(spec.input_size(layout.obs_size), hidden_dim)
        self.rnn = nn.GRUCell(hidden_dim, hidden_dim) if spec.is_recurrent else nn.Linear(hidden_dim, hidden_dim)
        self.fc2 = EntityHead(spec, layout) if entity else FcHead(hidden_dim, spec.n_actions)

    def init_hidden(self) -> torch.Tensor:
        """Zeros (1, H) on the device of the agent."""
        return next(self.parameters()).new_zeros(1, self.spec.hidden_dim)

    def forward(self, inputs: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One time step: inputs (R, D), hidden states (R, H) in any shape → Q-values (R, A), hidden (R, H)."""
        encoded = self.fc1(inputs)
        x = torch.relu(encoded.features)
        if isinstance(self.rnn, nn.GRUCell):
            hidden = self.rnn(x, hidden.reshape(-1, self.spec.hidden_dim))
        else:
            hidden = torch.relu(self.rnn(x))
        return self.fc2(hidden, encoded.targets), hidden

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
        x = torch.relu(encoded.features)
        if isinstance(self.rnn, nn.GRUCell):
            hidden = packed_gru(self.rnn, x, [count * n_agents for count in counts])
        else:
            hidden = torch.relu(self.rnn(x))
        q = self.fc2(hidden, encoded.targets)
        return q.view(n_rows, n_agents, -1), hidden.view(n_rows, n_agents, -1)
