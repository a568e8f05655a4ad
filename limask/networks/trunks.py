"""Trunks: what stands before the agent's GRU; and the head of the hosts' RNN agent.

``fc`` is the hosts' RNN agent. Others take in what an autoencoder infers. ``entity`` has a file of its own.

Axes: R rows (agents fastest: row r belongs to agent r mod N), N agents, K tokens of a kind, D input features,
H hidden size, F width of an entity's embedding, O features of an observation, P features of inferences,
A actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import nn

from limask.errors import LimaskError
from limask.layouts import Layout
from limask.networks.spec import AgentSpec

#: Features of an observation from which on linear trunks leave out those that show nothing.
WIDE = 256


def n_inferred(layout: Layout, widths: Mapping[str, int]) -> int:
    """P, of tokens of these ``widths`` by kind."""
    return sum(group.count * widths[group.kind] for group in layout.groups if group.is_hideable)


class Inferred(NamedTuple):
    """What is inferred of a kind's tokens, ``features`` (R, K, ·), zeros where nothing is; ``weight`` (F, ·)
    embeds them. The embeddings themselves are never made: pools need their sum, heads a product."""

    features: torch.Tensor
    weight: torch.Tensor


class Encoded(NamedTuple):
    """A trunk's output: ``features`` (R, H) before the activation, and what a head may need by kind: the
    ``entities``' embeddings (S, K, F), and what is ``inferred`` of them, of the ``rows`` (S,) that show
    anything; None = of all, S = R."""

    features: torch.Tensor
    entities: dict[str, torch.Tensor]
    inferred: Mapping[str, Inferred] = MappingProxyType({})
    rows: torch.Tensor | None = None


class FcGathered(NamedTuple):
    """What a linear trunk encodes: the ``rest`` (R, ·) of the inputs beside the observations; and of the
    ``rows`` (S,) that show anything ``obs`` (S, O) and what is ``inferred`` (S, P), None = nothing."""

    rest: torch.Tensor
    obs: torch.Tensor
    rows: torch.Tensor
    inferred: torch.Tensor | None


class FcTrunk(nn.Linear):
    """One linear layer over the whole input, as in the hosts' RNN agent.

    Args:
        spec: sizes.
        obs_size: O.
    """

    def __init__(self, spec: AgentSpec, obs_size: int) -> None:
        super().__init__(spec.input_size(obs_size), spec.hidden_dim)
        self.obs_size = obs_size
        #: Whether rows that show nothing are left out: of narrow observations there is little to save.
        self.skips_empty = obs_size >= WIDE

    def forward(self, inputs: torch.Tensor) -> Encoded:  # type: ignore[override]
        """Inputs (R, D) → features (R, H)."""
        return Encoded(super().forward(inputs), {})

    def gather(
        self, inputs: torch.Tensor, inferred: torch.Tensor | None = None, rows: torch.Tensor | None = None
    ) -> torch.Tensor | FcGathered:
        """See ``EntityTrunk.gather``."""
        if rows is None:
            return inputs if inferred is None else torch.cat([inputs, inferred], dim=1)
        obs, rest = inputs[:, : self.obs_size], inputs[:, self.obs_size :]
        return FcGathered(rest, obs.index_select(0, rows), rows, inferred)

    def encode(self, gathered: torch.Tensor | FcGathered) -> Encoded:
        """See ``forward``."""
        if isinstance(gathered, torch.Tensor):
            return self(gathered)
        of_obs, of_rest = self.weight[:, : self.obs_size], self.weight[:, self.obs_size :]
        features = nn.functional.linear(gathered.rest, of_rest, self.bias)
        return Encoded(features.index_put((gathered.rows,), gathered.obs @ of_obs.t(), accumulate=True), {})


class FcHead(nn.Linear):
    """One linear layer, as in the hosts' RNN agent."""

    def forward(self, hidden: torch.Tensor, encoded: Encoded) -> torch.Tensor:  # type: ignore[override]
        """Hidden states (R, H) → Q-values (R, A)."""
        return super().forward(hidden)


class TeamTrunk(nn.Module):
    """For agents that infer what their teammates observe: half of the features encode the agent's own input,
    the other half is what one attention head reads, for that, from everybody's observations, own and inferred
    (Kang et al., 2025: 64 and 64).

    Raises:
        LimaskError: the hidden size has no halves.
    """

    #: Its inputs are what all agents observe.
    skips_empty = False

    def __init__(self, spec: AgentSpec, obs_size: int) -> None:
        super().__init__()
        half, odd = divmod(spec.hidden_dim, 2)
        if odd:
            raise LimaskError(
                f"hidden_dim={spec.hidden_dim} with lim.autoencoder.name='team': expected an even number, "
                "half "
                "of it for the own observation and half for the team's"
            )
        self.input_size, self.obs_size = spec.input_size(obs_size), obs_size
        self.own = nn.Linear(self.input_size, half)
        self.attention = nn.MultiheadAttention(half, 1, kdim=obs_size, vdim=obs_size, batch_first=True)

    def forward(self, inputs: torch.Tensor) -> Encoded:
        """Inputs (R, D + N · O), everybody's observations behind the agent's own input → features (R, H)."""
        own = self.own(inputs[:, : self.input_size])
        team = inputs[:, self.input_size :].unflatten(1, (-1, self.obs_size))
        context, _ = self.attention(torch.relu(own).unsqueeze(1), team, team, need_weights=False)
        return Encoded(torch.cat([own, context.squeeze(1)], dim=1), {})

    def gather(
        self, inputs: torch.Tensor, inferred: torch.Tensor | None = None, rows: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The inputs as they are, with what is inferred: nothing else is, and no row is left out."""
        return inputs

    def encode(self, gathered: torch.Tensor) -> Encoded:
        """See ``forward``."""
        return self(gathered)


class GatedLinear(nn.Linear):
    """A linear layer without bias through which inferences enter an agent. It begins at zero, draws no random
    numbers, and stays at zero until its gate is opened."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out, bias=False)

    def reset_parameters(self) -> None:
        """See ``nn.Linear``."""
        nn.init.zeros_(self.weight)

    def open(self, is_open: bool) -> None:
        """Whether Q-learning trains it."""
        self.weight.requires_grad_(is_open)


class Joined(nn.Module):
    """Inferences beside an agent's features, which begin as if there were none.

    Args:
        size: P, features of the inferences.
        hidden_dim: H.
    """

    def __init__(self, size: int, hidden_dim: int) -> None:
        super().__init__()
        self.from_inferred = GatedLinear(size, hidden_dim)

    def forward(self, features: torch.Tensor, inferred: torch.Tensor) -> torch.Tensor:
        """Features (R, H) and inferences (R, P) → features (R, H)."""
        joined: torch.Tensor = features + self.from_inferred(inferred)
        return joined


class BeliefTrunk(FcTrunk):
    """Trunk ``fc`` that also takes in the inferences behind the agent's own input.

    Args:
        spec: sizes.
        layout: of the observation.
        size: P, features of the inferences.
    """

    def __init__(self, spec: AgentSpec, layout: Layout, size: int) -> None:
        super().__init__(spec, layout.obs_size)
        self.input_size = self.in_features
        self.join = Joined(size, spec.hidden_dim)

    def forward(self, inputs: torch.Tensor) -> Encoded:  # type: ignore[override]
        """Inputs (R, D + P) → features (R, H)."""
        encoded = super().forward(inputs[:, : self.input_size])
        return Encoded(self.join(encoded.features, inputs[:, self.input_size :]), {})

    def encode(self, gathered: torch.Tensor | FcGathered) -> Encoded:
        """See ``forward``."""
        encoded = super().encode(gathered)
        if isinstance(gathered, torch.Tensor) or gathered.inferred is None:
            return encoded
        joined = self.join.from_inferred(gathered.inferred)
        return encoded._replace(
            features=encoded.features.index_put((gathered.rows,), joined, accumulate=True)
        )
