"""Trunks and heads: what stands before and after the agent's GRU.

``fc`` is the hosts' RNN agent. ``entity`` embeds every ally and enemy with weights shared by its kind, pools
them by a sum, and gives the Q-value of "attack k" from entity k's own embedding, so that permuting enemies
permutes their attack Q-values and changes nothing else (Hao et al., HPN, 2023; their output layer, whose
weights are generated from the entity, is the product taken here).

Axes: R rows (agents fastest: row r belongs to agent r mod N), N agents, K tokens of a kind, D input features,
H hidden size, F width of an entity's embedding, A actions.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import nn

from limask import tokens
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
    """A trunk's output: ``features`` (R, H) before the activation, and by kind the ``entities``' embeddings
    (R, K, F), which a head may need."""

    features: torch.Tensor
    entities: dict[str, torch.Tensor]


class FcTrunk(nn.Linear):
    """One linear layer over the whole input, as in the hosts' RNN agent."""

    def forward(self, inputs: torch.Tensor) -> Encoded:  # type: ignore[override]
        """Inputs (R, D) → features (R, H)."""
        return Encoded(super().forward(inputs), {})


class FcHead(nn.Linear):
    """One linear layer, as in the hosts' RNN agent."""

    def forward(self, hidden: torch.Tensor, entities: dict[str, torch.Tensor]) -> torch.Tensor:  # type: ignore[override]
        """Hidden states (R, H) → Q-values (R, A)."""
        return super().forward(hidden)


def entity_dim(spec: AgentSpec) -> int:
    """F: half the hidden size keeps the trunk's update within one and a half times that of ``fc``."""
    return max(1, spec.hidden_dim // 2)


class EntityTrunk(nn.Module):
    """Own features through one linear layer; allies and enemies embedded, summed by kind, and added.

    A token of zeros (a unit out of sight, dead, or hidden by a masker) adds nothing. The last action takes
    part without naming a slot: actions that aim at nobody join the agent's own features, and each possible
    target carries whether it was aimed at.
    """

    def __init__(self, spec: AgentSpec, layout: Layout) -> None:
        super().__init__()
        self.spec, self.layout = spec, layout
        self.n_plain = n_plain_actions(spec, layout)
        self.entities = [group for group in layout.groups if group.kind in layout.kinds]
        self.own = [group for group in layout.groups if group.kind not in layout.kinds]
        own_size = sum(group.size for group in self.own)
        own_size += spec.has_last_action * self.n_plain + spec.has_agent_id * spec.n_agents
        self.from_own = nn.Linear(own_size, spec.hidden_dim)
        width = entity_dim(spec)
        # No bias: a token that is not there must stay zero. Its constant is the flag "is shown".
        self.embed = nn.ModuleDict(
            {g.kind: nn.Linear(g.width + 1 + self._is_target(g), width, bias=False) for g in self.entities}
        )
        self.from_sum = nn.ModuleDict(
            {g.kind: nn.Linear(width, spec.hidden_dim, bias=False) for g in self.entities}
        )

    def forward(self, inputs: torch.Tensor) -> Encoded:
        """Inputs (R, D) → features (R, H) and entities' embeddings (R, K, F)."""
        spec, layout = self.spec, self.layout
        n_last = spec.has_last_action * spec.n_actions
        obs, last_action, agent_id = inputs.split(
            [layout.obs_size, n_last, inputs.shape[1] - layout.obs_size - n_last], dim=1
        )
        parts = tokens.split(obs, layout)
        own = [parts[group.kind].flatten(1) for group in self.own]
        features = self.from_own(torch.cat([*own, last_action[:, : self.n_plain], agent_id], dim=1))
        embedded = {}
        for group in self.entities:
            token = parts[group.kind]
            is_shown = (token != 0).any(dim=-1, keepdim=True).to(token.dtype)
            described = [token, is_shown]
            if self._is_target(group):
                aimed = self._aimed_at(group, last_action[:, self.n_plain :])
                described.append(aimed.unsqueeze(-1) * is_shown)
            embedding = torch.relu(self.embed[group.kind](torch.cat(described, dim=-1)))
            features = features + self.from_sum[group.kind](embedding.sum(dim=1))
            embedded[group.kind] = embedding
        return Encoded(features, embedded)

    def _is_target(self, group: TokenGroup) -> bool:
        is_healed = group.kind == "ally" and bool(self.layout.healers)
        return self.spec.has_last_action and (group.first_action is not None or is_healed)

    def _aimed_at(self, group: TokenGroup, targeted: torch.Tensor) -> torch.Tensor:
        """Which of the group's tokens the last action aimed at: (R, K), from ``targeted`` (R, A − plain)."""
        if not self.layout.healers:
            return targeted
        is_healer = rows_of(self.layout.healers, self.spec.n_agents, targeted)
        if group.first_action is not None:
            return targeted.masked_fill(is_healer, 0.0)
        aimed = targeted[:, : group.count].masked_fill(~is_healer, 0.0)
        return nn.functional.pad(aimed, (0, group.count - aimed.shape[1]))


class EntityHead(nn.Module):
    """Plain actions through one linear layer; the action at entity k is a product with its embedding."""

    def __init__(self, spec: AgentSpec, layout: Layout) -> None:
        super().__init__()
        self.spec, self.layout = spec, layout
        self.plain = nn.Linear(spec.hidden_dim, n_plain_actions(spec, layout))
        self.attack = _Aim(spec)
        self.heal = _Aim(spec) if layout.healers else None

    def forward(self, hidden: torch.Tensor, entities: dict[str, torch.Tensor]) -> torch.Tensor:
        """Hidden states (R, H) and embeddings (R, K, F) → Q-values (R, A)."""
        q_plain = self.plain(hidden)
        if "enemy" not in entities:
            return q_plain
        q_aimed = self.attack(hidden, entities["enemy"])
        if self.heal is not None:
            q_heal = self.heal(hidden, entities["ally"])[:, : q_aimed.shape[1]]
            is_healer = rows_of(self.layout.healers, self.spec.n_agents, q_aimed)
            n_healed = q_heal.shape[1]
            healed = torch.where(is_healer, q_heal, q_aimed[:, :n_healed])
            q_aimed = torch.cat([healed, q_aimed[:, n_healed:]], dim=1)
        return torch.cat([q_plain, q_aimed], dim=1)


class _Aim(nn.Module):
    """Q-value of acting on each entity: ``e_k · W h + b · h``, with biases."""

    def __init__(self, spec: AgentSpec) -> None:
        super().__init__()
        self.weights_of = nn.Linear(spec.hidden_dim, entity_dim(spec))
        self.shared = nn.Linear(spec.hidden_dim, 1)

    def forward(self, hidden: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
        """Hidden states (R, H) and embeddings (R, K, F) → Q-values (R, K)."""
        product = torch.bmm(embedded, self.weights_of(hidden).unsqueeze(-1)).squeeze(-1)
        return product + self.shared(hidden)


def n_plain_actions(spec: AgentSpec, layout: Layout) -> int:
    """Actions that aim at nobody; they come first."""
    target = layout.group("enemy")
    return spec.n_actions if target is None or target.first_action is None else target.first_action


def rows_of(agents: tuple[int, ...], n_agents: int, like: torch.Tensor) -> torch.Tensor:
    """Which rows belong to ``agents``: (R, 1) bool for the R rows of ``like``."""
    is_one = torch.zeros(n_agents, dtype=torch.bool, device=like.device)
    is_one[list(agents)] = True
    return is_one.repeat(like.shape[0] // n_agents).unsqueeze(1)
