"""Autoencoder ``belief``: what an agent makes of the entities that it does not see, by networks of its own.

Axes: R rows (agents fastest), M filled steps, N agents, D features of an agent's input without inferences,
O features of an observation, W width of the hidden states, K tokens (of a kind), P features of all tokens
that may be hidden.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import cast

import torch
from torch import nn

from limask.autoencoder.base import Place, RunAgent, TokenAutoencoder, Truth
from limask.autoencoder.beliefs import filled_in
from limask.autoencoder.losses import Scored, Standardiser
from limask.config import LimConfig
from limask.layouts import Layout, tokens
from limask.networks.gru import packed_gru
from limask.networks.spec import AgentSpec


class Belief(TokenAutoencoder):
    """Networks beside those of the agent: no gradient of Q reaches them, and theirs do not reach the agent.

    Args:
        spec: sizes of the agent and of its input.
        layout: the observation's layout, with kinds of entities.
        denoises: whether agents get inferences of what they see, too, and not only of what is out of sight.
    """

    #: Its loss sends no gradient into the agent, and agents act on it anyway.
    unused = MappingProxyType({
        "autoencoder.balance": "fixed", "autoencoder.detach_trunk": False, "autoencoder.latent": False,
        "autoencoder.use_inference": False,
    })  # fmt: skip
    needs_entities = True
    scores_all = True
    decoder: TokenDecoder

    def __init__(self, spec: AgentSpec, layout: Layout, denoises: bool = False) -> None:
        super().__init__()
        self.denoises = denoises
        self.input_size, self.obs_size = spec.input_size(layout.obs_size), layout.obs_size

    def wanted(self, is_visible: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Which tokens (R, K) bool agents get inferences of, by which are shown (R, K); the dead get none."""
        if self.denoises:
            return is_visible | tokens.is_out_of_view(is_visible, layout)
        return tokens.is_out_of_view(is_visible, layout)

    @abstractmethod
    def next_states(
        self, inputs: torch.Tensor, states: torch.Tensor, is_visible: torch.Tensor
    ) -> torch.Tensor:
        """Inputs (R, D) that show tokens as ``is_visible`` (R, K) bool says, and states (R, W) → states
        (R, W) one time step on."""

    @abstractmethod
    def states_of(self, inputs: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """States (M · N, W) over whole episodes, as step by step: inputs (M · N, D) in the order of
        ``Packing``, ``counts`` rows at each time step."""

    @abstractmethod
    def inferred_of(self, inputs: torch.Tensor, counts: list[int], rows: torch.Tensor | None) -> torch.Tensor:
        """What is inferred (R, P) in these states, of the ``rows`` (R,) that are wanted; None = all."""

    def inferred_in(self, states: torch.Tensor, is_wanted: torch.Tensor) -> torch.Tensor:
        """The same (R, P) in states (R, W), of the tokens (R, K) bool that are ``wanted``."""
        return self.decoder.infer(states, is_wanted)

    @classmethod
    def place(cls, use_inference: bool) -> Place:
        """See ``Autoencoder.place``."""
        return "trunk"

    @torch.no_grad()
    def infer_step(self, inputs: torch.Tensor, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``Autoencoder.infer_step``."""
        layout = self.decoder.layout
        is_visible = tokens.visibility(inputs[:, : self.obs_size], layout)
        states = self.next_states(inputs, states, is_visible)
        return self.inferred_in(states, self.wanted(is_visible, layout)), states

    @torch.no_grad()
    def infer_episodes(
        self, inputs: torch.Tensor, counts: list[int], rows: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See ``Autoencoder.infer_episodes``."""
        return self.inferred_of(*self._by_row(inputs, counts), rows)

    def believed(self, hidden: torch.Tensor, obs: torch.Tensor) -> torch.Tensor:
        """See ``Autoencoder.believed``."""
        layout = self.decoder.layout
        inferred = self.decoder.infer(hidden[:, -self.state_size :], tokens.is_out_of_sight(obs, layout))
        return filled_in(inferred, obs, layout, self.decoder.standardisers)

    def encode(
        self, view: torch.Tensor, counts: list[int], run_agent: RunAgent
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """See ``TokenAutoencoder.encode``: by networks of its own."""
        return None, self.states_of(*self._by_row(view, counts)).unflatten(0, view.shape[:2])

    def loss(self, hidden: torch.Tensor, truth: Truth, *, updates_statistics: bool = True) -> Scored:
        """See ``TokenAutoencoder.loss``."""
        return self.decoder.loss(hidden, truth, updates_statistics=updates_statistics)

    def _by_row(self, inputs: torch.Tensor, counts: list[int]) -> tuple[torch.Tensor, list[int]]:
        """Inputs (M, N, D and whatever follows) → (M · N, D), and episodes at each time step → rows."""
        n_agents = inputs.shape[1]
        return inputs[..., : self.input_size].flatten(0, 1), [count * n_agents for count in counts]


class BeliefAutoencoder(Belief):
    """One layer, GRU and decoder.

    Args:
        spec: sizes of the agent and of its input.
        layout: the observation's layout, with kinds of entities.
        width: W, of all three.
        denoises: see ``Belief``.
    """

    unused = MappingProxyType({**Belief.unused, "autoencoder.sightings": False})

    def __init__(self, spec: AgentSpec, layout: Layout, width: int, denoises: bool = False) -> None:
        super().__init__(spec, layout, denoises)
        self.state_size = width
        self.fc1 = nn.Linear(self.input_size, width)
        self.rnn = nn.GRUCell(width, width)
        self.decoder = BeliefDecoder(layout, width)

    @classmethod
    def build(cls, spec: AgentSpec, layout: Layout, config: LimConfig) -> BeliefAutoencoder:
        """See ``Autoencoder.build``."""
        return cls(spec, layout, config.autoencoder.width, config.autoencoder.denoise)

    def next_states(
        self, inputs: torch.Tensor, states: torch.Tensor, is_visible: torch.Tensor
    ) -> torch.Tensor:
        """See ``Belief.next_states``."""
        following: torch.Tensor = self.rnn(torch.relu_(self.fc1(inputs)), states)
        return following

    def states_of(self, inputs: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """See ``Belief.states_of``."""
        return packed_gru(self.rnn, torch.relu_(self.fc1(inputs)), counts)

    def inferred_of(self, inputs: torch.Tensor, counts: list[int], rows: torch.Tensor | None) -> torch.Tensor:
        """See ``Belief.inferred_of``."""
        states, obs = self.states_of(inputs, counts), inputs[:, : self.obs_size]
        if rows is not None:
            states, obs = states.index_select(0, rows), obs.index_select(0, rows)
        layout = self.decoder.layout
        return self.decoder.infer(states, self.wanted(tokens.visibility(obs, layout), layout))


class TokenDecoder(nn.Module, ABC):
    """Decodes all tokens that may be hidden at once.

    Args:
        layout: the observation's layout.
    """

    by_token: torch.Tensor

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout, self.groups = layout, [group for group in layout.groups if group.is_hideable]
        self.standardisers = nn.ModuleDict({g.kind: Standardiser(g.width) for g in self.groups})
        by_token = tokens.hideable_features(tokens.by_token(layout).t(), layout).t()
        self.register_buffer("by_token", by_token, persistent=False)

    def loss(self, hidden: torch.Tensor, truth: Truth, *, updates_statistics: bool = True) -> Scored:
        """See ``TokenAutoencoder.loss``."""
        hidden, obs, scored = (values.flatten(0, -2) for values in (hidden, truth.obs, truth.is_scored))
        counts = tokens.features_of(scored, self.layout, obs.dtype)
        if truth.is_known is not None:
            counts *= truth.is_known.flatten(0, -2)
        targets = self._standardised(obs, counts, updates_statistics)
        squares = (self._decode(hidden) - targets).square()
        counts = tokens.hideable_features(counts, self.layout)
        squares = squares * counts
        error = (squares.detach() @ self.by_token) / (counts @ self.by_token).clamp(min=1)
        if truth.weights is not None:
            weight = truth.weights.flatten(0, -2) @ self.by_token.t()
            squares, counts = squares * weight, counts * weight
        loss = squares.sum() / counts.sum().clamp(min=torch.finfo(counts.dtype).tiny)
        return Scored(loss, error.view(truth.is_scored.shape))

    @torch.no_grad()
    def infer(self, hidden: torch.Tensor, is_wanted: torch.Tensor) -> torch.Tensor:
        """Hidden states (R, W) → standardised features (R, P) of the tokens (R, K) bool that are wanted, and
        zeros for the others."""
        return self._decode(hidden) * (is_wanted.to(hidden.dtype) @ self.by_token.t())

    @abstractmethod
    def _decode(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states (R, W) → standardised features (R, P)."""

    def _standardised(
        self, obs: torch.Tensor, counts: torch.Tensor, updates_statistics: bool
    ) -> torch.Tensor:
        """Observations (R, O) → standardised features (R, P); those with ``counts`` (R, O) are taken in."""
        seen, counted = (tokens.split(values, self.layout) for values in (obs, counts))
        standardised = []
        for group in self.groups:
            standardiser = cast(Standardiser, self.standardisers[group.kind])
            values = seen[group.kind].flatten(0, 1)
            if updates_statistics:
                standardiser.update(values, counted[group.kind].flatten(0, 1))
            standardised.append(standardiser(values).view(len(obs), group.size))
        return torch.cat(standardised, dim=1)


class BeliefDecoder(TokenDecoder):
    """Two layers.

    Args:
        layout: the observation's layout.
        width: W, of the hidden states that are decoded, and of the layer between.
    """

    def __init__(self, layout: Layout, width: int) -> None:
        super().__init__(layout)
        self.from_hidden = nn.Linear(width, width)
        self.to_features = nn.Linear(width, layout.hideable_size)

    def _decode(self, hidden: torch.Tensor) -> torch.Tensor:
        """See ``TokenDecoder._decode``."""
        decoded: torch.Tensor = self.to_features(torch.relu_(self.from_hidden(hidden)))
        return decoded
