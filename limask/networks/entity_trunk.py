"""Trunk ``entity`` and its head.

Every entity is embedded with weights shared by its kind, embeddings are pooled by a sum, and the Q-value of
"attack k" comes from entity k's own embedding, so that permuting enemies permutes their attack Q-values and
changes nothing else (Hao et al., HPN, 2023; their output layer, whose weights are generated from the entity,
is the product taken here).

Axes: R rows (agents fastest: row r belongs to agent r mod N), N agents, K tokens of a kind, D input features,
H hidden size, F width of an entity's embedding, A actions.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import nn

from limask.layouts import Layout, TokenGroup, tokens
from limask.networks.spec import AgentSpec
from limask.networks.transfer import Team
from limask.networks.trunks import Encoded, GatedLinear, Inferred


def entity_dim(spec: AgentSpec) -> int:
    """F: half the hidden size keeps the trunk's update within one and a half times that of ``fc``."""
    return max(1, spec.hidden_dim // 2)


class Gathered(NamedTuple):
    """What an entity trunk encodes: the agents' ``own`` features (R, ·); and of the ``rows`` (S,) that show
    anything (None = of all, S = R) the ``tokens`` of all kinds side by side (S, K, ·), and by kind what is
    ``inferred`` of them (S, K, ·), zeros where nothing is, and the ``totals`` of that (S, ·)."""

    own: torch.Tensor
    rows: torch.Tensor | None
    tokens: torch.Tensor
    inferred: dict[str, torch.Tensor]
    totals: dict[str, torch.Tensor]


class EntityTrunk(nn.Module):
    """Own features through one linear layer; entities embedded, summed by kind, and added.

    A token that shows nothing (a unit out of sight, dead, or hidden by a masker) adds nothing. The last
    action takes part without naming a slot: actions that aim at nobody join the agent's own features, and
    each possible target carries whether it was aimed at.

    Tokens of all kinds are laid side by side: their features, their kind's constant ("is shown"), and
    whether the last action aimed at them.

    Args:
        spec: sizes.
        layout: of the observation.
        inferred: features that are inferred of each token, by kind, where inferences stand behind the agent's
            own input: what is inferred of a token joins its embedding, by a linear layer that begins at zero.
            None = nothing is.
    """

    own_columns: torch.Tensor
    token_columns: torch.Tensor
    aimed_columns: torch.Tensor
    unseen: torch.Tensor | None

    #: Rows that show nothing are left out: nearly all of the trunk's work is for entities.
    skips_empty = True

    def __init__(self, spec: AgentSpec, layout: Layout, inferred: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.n_agents, self.inferred = spec.n_agents, inferred
        self.n_ids = spec.n_agents * spec.has_agent_id
        self.obs_size, self.input_size = layout.obs_size, spec.input_size(layout.obs_size)
        self.groups = [group for group in layout.groups if group.kind in layout.kinds]
        self.counts = [group.count for group in self.groups]
        self.n_features = max(group.width for group in self.groups)
        columns = _Columns(spec, layout)
        own = torch.tensor(columns.of_agent())
        self.register_buffer("own_columns", own, persistent=False)
        token_columns = columns.of_tokens(self.n_features)
        self.first, self.n_columns = int(token_columns[0]), len(token_columns)
        #: Whether the tokens lie side by side in an observation as they do here.
        self.is_slice = token_columns.tolist() == list(range(self.first, self.first + self.n_columns))
        self.register_buffer("token_columns", token_columns, persistent=False)
        self.register_buffer("aimed_columns", columns.of_aims(), persistent=False)
        self.register_buffer("unseen", self._unseen() if layout.unseen else None, persistent=False)
        width = entity_dim(spec)
        # No bias: a token that is not there must stay zero. Its constant is the column "is shown".
        self.embed = nn.ModuleDict(
            {group.kind: nn.Linear(self.n_features + 2, width, bias=False) for group in self.groups}
        )
        if inferred is not None:
            self.embed_inferred = nn.ModuleDict(
                {group.kind: GatedLinear(inferred[group.kind], width) for group in self.groups}
            )
        self.mix = nn.Linear(len(own) + len(self.groups) * width, spec.hidden_dim)
        with torch.no_grad():  # start as separate layers for the agent itself and for each kind would
            self.mix.weight[:, : len(own)].uniform_(-(len(own) ** -0.5), len(own) ** -0.5)
            self.mix.weight[:, len(own) :].uniform_(-(width**-0.5), width**-0.5)

    def _unseen(self) -> torch.Tensor:
        """What the features of tokens out of sight are: (K, n_features)."""
        rows = [
            group.unseen + (0.0,) * (self.n_features - len(group.unseen))
            for group in self.groups
            for _ in range(group.count)
        ]
        return torch.tensor(rows)

    def forward(self, inputs: torch.Tensor) -> Encoded:
        """Inputs (R, D), and (R, P) inferences behind them where it takes them → features (R, H) and
        entities' embeddings (R, K, F)."""
        inputs, inferred = inputs[:, : self.input_size], inputs[:, self.input_size :]
        return self.encode(self.gather(inputs, inferred if self.inferred else None))

    def gather(
        self, inputs: torch.Tensor, inferred: torch.Tensor | None = None, rows: torch.Tensor | None = None
    ) -> Gathered:
        """What to encode: the same for every trunk of these sizes.

        Args:
            inputs: (R, D).
            inferred: (S, P), None = nothing.
            rows: (S,) those that show anything or of which anything is inferred; None = take all of them.
        """
        obs, rest = inputs[:, : self.obs_size], inputs[:, self.obs_size :]
        # The last column is for tokens that no action aims at.
        by_team = nn.functional.pad(rest, (0, 1)).view(inputs.shape[0] // self.n_agents, -1)
        is_aimed = by_team.index_select(1, self.aimed_columns).view(inputs.shape[0], -1)
        if rows is not None:
            obs, is_aimed = obs.index_select(0, rows), is_aimed.index_select(0, rows)
        if self.is_slice:
            features = obs[:, self.first : self.first + self.n_columns]
        else:
            features = nn.functional.pad(obs, (0, 1)).index_select(1, self.token_columns)
        features = features.unflatten(1, (-1, self.n_features))
        if self.unseen is not None:
            features = features - self.unseen
        is_shown = tokens.is_shown(features).to(features.dtype)
        token = torch.cat([features, torch.stack([is_shown, is_shown * is_aimed], dim=2)], dim=2)
        by_kind = {}
        if inferred is not None:
            assert self.inferred is not None
            widths = [self.inferred[group.kind] for group in self.groups]
            sizes = [n * width for n, width in zip(self.counts, widths, strict=True)]
            parts = zip(self.groups, widths, inferred.split(sizes, dim=1), strict=True)
            # Torch's sums and small products over slices take several times as long as a copy of these.
            by_kind = {
                group.kind: part.contiguous().view(-1, group.count, width) for group, width, part in parts
            }
        totals = {kind: part.sum(dim=1) for kind, part in by_kind.items()}
        return Gathered(inputs.index_select(1, self.own_columns), rows, token, by_kind, totals)

    def encode(self, gathered: Gathered) -> Encoded:
        """See ``forward``; what is there of the ``rows`` only is so in the result."""
        entities, pooled, inferred = {}, [], {}
        for group, part in zip(self.groups, gathered.tokens.split(self.counts, dim=1), strict=True):
            kind = group.kind
            embed = cast(nn.Linear, self.embed[kind]).weight
            # Laid out anew, its gradient is tokensᵀ · g: gᵀ · tokens takes 2 to 8 times as long.
            entities[kind] = torch.relu_(part @ embed.t().contiguous())
            total = entities[kind].sum(dim=1)
            if kind in gathered.inferred:
                weight = cast(nn.Linear, self.embed_inferred[kind]).weight
                inferred[kind] = Inferred(gathered.inferred[kind], weight)
                total = torch.addmm(total, gathered.totals[kind], weight.t())
            pooled.append(total)
        if gathered.rows is None:
            return Encoded(self.mix(torch.cat([gathered.own, *pooled], dim=1)), entities, inferred)
        n_own = gathered.own.shape[1]
        features = nn.functional.linear(gathered.own, self.mix.weight[:, :n_own], self.mix.bias)
        shown = torch.cat(pooled, dim=1) @ self.mix.weight[:, n_own:].t()
        return Encoded(
            features.index_put((gathered.rows,), shown, accumulate=True), entities, inferred, gathered.rows
        )

    def fitted(self, weights: Mapping[str, torch.Tensor], before: Team) -> dict[str, torch.Tensor]:
        """See ``SizeFree.fitted``.

        Agents that know their number add a trained vector for it: each of a team of another size adds the
        mean of these. Of m times as many entities of a kind the sum is scaled by 1/√m, or it would be larger
        than any that the layers behind it have seen.
        """
        mix = weights["mix.weight"]
        n_ids = before.n_agents if self.n_ids else 0
        n_entities = sum(embed.out_features for embed in self._embeds())
        own, ids, entities = mix.tensor_split(
            (mix.shape[1] - n_entities - n_ids, mix.shape[1] - n_entities), 1
        )
        if self.n_ids not in (0, n_ids):
            ids = ids.mean(dim=1, keepdim=True).expand(-1, self.n_ids)
        parts = entities.split([embed.out_features for embed in self._embeds()], dim=1)
        scaled = [
            part * (before.counts[group.kind] / max(1, group.count)) ** 0.5
            for group, part in zip(self.groups, parts, strict=True)
        ]
        return {"mix.weight": torch.cat([own, ids, *scaled], dim=1)}

    def _embeds(self) -> list[nn.Linear]:
        """One for each kind, in order."""
        return [cast(nn.Linear, self.embed[group.kind]) for group in self.groups]


class _Columns:
    """Where the entity trunk finds its inputs in [observation | last action | agent id]."""

    def __init__(self, spec: AgentSpec, layout: Layout) -> None:
        self.spec, self.layout = spec, layout
        self.last_action = layout.obs_size
        self.agent_id = layout.obs_size + spec.has_last_action * spec.n_actions
        self.end = spec.input_size(layout.obs_size)
        starts = itertools.accumulate((group.size for group in layout.groups), initial=0)
        self.starts = list(zip(layout.groups, starts, strict=False))

    def of_agent(self) -> list[int]:
        """Columns of the agent itself: its own features, last action if it aims at nobody, and id."""
        columns: list[int] = []
        for group, start in self.starts:
            if group.kind not in self.layout.kinds:
                columns += range(start, start + group.size)
        if self.spec.has_last_action:
            columns += range(self.last_action, self.last_action + n_plain_actions(self.spec, self.layout))
        return [*columns, *range(self.agent_id, self.end)]

    def of_tokens(self, n_features: int) -> torch.Tensor:
        """Columns (K · n_features,) of the tokens in an observation that a zero follows."""
        columns: list[int] = []
        for group, start in self.starts:
            if group.kind in self.layout.kinds:
                for first in range(start, start + group.size, group.width):
                    padding = [self.layout.obs_size] * (n_features - group.width)
                    columns += [*range(first, first + group.width), *padding]
        return torch.tensor(columns)

    def of_aims(self) -> torch.Tensor:
        """Columns (N · K,) that are one where an agent's last action aimed at the token, among what follows
        the observations of all agents of a team, and a zero each."""
        n_columns = self.end + 1 - self.last_action
        columns = [
            agent * n_columns + self._aimed(group, k, agent) - self.last_action
            for agent in range(self.spec.n_agents)
            for group in self.layout.groups
            if group.kind in self.layout.kinds
            for k in range(group.count)
        ]
        return torch.tensor(columns)

    def _aimed(self, group: TokenGroup, k: int, agent: int) -> int:
        """Column that is one where the agent's last action aimed at the group's token k."""
        is_healer = agent in self.layout.healers
        is_target = group.kind == "ally" if is_healer else group.first_action is not None
        # A healer's actions name agents of its team, itself among them; no token shows it to itself.
        action = n_plain_actions(self.spec, self.layout) + k + (is_healer and k >= agent)
        if not self.spec.has_last_action or not is_target or action >= self.spec.n_actions:
            return self.end
        return self.last_action + action


class EntityHead(nn.Module):
    """Plain actions through one linear layer; the value of the action at entity k is ``e_k · W h + b · h``,
    with biases and weights for each kind of target."""

    is_heal: torch.Tensor
    slots: torch.Tensor

    def __init__(self, spec: AgentSpec, layout: Layout) -> None:
        super().__init__()
        self.spec, self.layout = spec, layout
        self.n_plain = n_plain_actions(spec, layout)
        self.targets = [] if layout.target is None else [layout.target.kind]
        self.targets += ["ally"] if self.targets and layout.healers else []
        # Row by agent, column by the agent that a target action names: which are heals, and of which token.
        everyone = torch.arange(min(spec.n_agents, spec.n_actions - self.n_plain))
        healer = torch.arange(spec.n_agents).unsqueeze(1)
        is_heal = torch.isin(healer, torch.tensor(layout.healers)) & (everyone != healer)
        self.register_buffer("is_heal", is_heal, persistent=False)
        self.register_buffer("slots", (everyone - (everyone > healer).long()) * is_heal, persistent=False)
        aim = entity_dim(spec) + 1
        self.sizes = [self.n_plain] + [aim] * len(self.targets)
        self.linear = nn.Linear(spec.hidden_dim, sum(self.sizes))

    def forward(self, hidden: torch.Tensor, encoded: Encoded) -> torch.Tensor:
        """Hidden states (R, H) and what the trunk made of the same rows → Q-values (R, A)."""
        values = self.linear(hidden)
        if not self.targets:
            return values  # itself, not a view: hosts write into a policy's logits
        q_plain, *aims = values.split(self.sizes, dim=1)
        q_aimed, *q_heal = (_aim_at(kind, aim, encoded) for kind, aim in zip(self.targets, aims, strict=True))
        if q_heal:
            n_teams = q_aimed.shape[0] // self.spec.n_agents
            healed = q_heal[0].gather(1, self.slots.repeat(n_teams, 1))
            is_heal = self.is_heal.repeat(n_teams, 1)
            by_agent = torch.where(is_heal, healed, q_aimed[:, : healed.shape[1]])
            q_aimed = torch.cat([by_agent, q_aimed[:, healed.shape[1] :]], dim=1)
        return torch.cat([q_plain, q_aimed], dim=1)


def _aim_at(kind: str, aim: torch.Tensor, encoded: Encoded) -> torch.Tensor:
    """Weights followed by a shared value (R, F + 1), and what is encoded of a kind → values (R, K)."""
    weights, shared = aim[:, :-1], aim[:, -1:]
    if encoded.rows is not None:
        weights = weights.index_select(0, encoded.rows)
    # Not as a product of matrices: its backward pass takes several times as long for ones as thin as these.
    values = torch.linalg.vecdot(encoded.entities[kind], weights.unsqueeze(1))
    if (inferred := encoded.inferred.get(kind)) is not None:
        by_feature = weights @ inferred.weight  # a · (V u) = (a · V) u
        values = values + torch.linalg.vecdot(inferred.features, by_feature.unsqueeze(1))
    if encoded.rows is None:
        return values + shared
    return shared.repeat(1, values.shape[1]).index_put((encoded.rows,), values, accumulate=True)


def n_plain_actions(spec: AgentSpec, layout: Layout) -> int:
    """Actions that aim at nobody; they come first."""
    target = layout.target
    return spec.n_actions if target is None or target.first_action is None else target.first_action
