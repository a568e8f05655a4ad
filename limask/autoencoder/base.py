"""What an autoencoder is to the agent that acts with it and to the learner that trains it.

To add one, derive from ``TokenAutoencoder`` or ``AgentAutoencoder`` and name the class in
``limask.autoencoder.REGISTRY``: nothing else asks which autoencoder it has.

Axes: R rows (agents fastest), M filled steps, B episodes, T time steps, N agents, K tokens of an observation,
D features of an agent's input without inferences, O of an observation, P of the inferences, A actions,
H hidden size of the agent, W width of an autoencoder's own hidden state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import nn

from limask.autoencoder.losses import Scored
from limask.config import LimConfig
from limask.errors import LimaskError
from limask.layouts import Layout
from limask.masking import Unit
from limask.networks.spec import AgentSpec

#: Where inferences enter the agent: ``nowhere``; at the ``trunk``, P features behind the agent's own input;
#: by ``attention`` over everybody's inferred observations, N · O features there; at the ``head``, with the
#: hidden state.
Place = Literal["nowhere", "trunk", "attention", "head"]

#: Runs an agent over whole episodes: inputs (M, N, D) and the episodes at each time step → Q-values (M, N, A)
#: and hidden states (M, N, H).
RunAgent = Callable[[torch.Tensor, list[int]], tuple[torch.Tensor, torch.Tensor]]


class Truth(NamedTuple):
    """What is reconstructed.

    Attributes:
        obs: (..., O) what the agents observed, and what is known besides of the tokens to be reconstructed.
        is_scored: (..., K) bool, True = the token is reconstructed.
        is_known: (..., O) bool, features that count, at least one of each scored token; None = all. Not
            together with ``weights``.
        weights: (..., K) at least 0, of each token in the mean; None = all the same.
        is_unseen: (..., K) bool, those of the scored tokens that the agent did not see; None = it saw all.
    """

    obs: torch.Tensor
    is_scored: torch.Tensor
    is_known: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    is_unseen: torch.Tensor | None = None


class Autoencoder(nn.Module, ABC):
    """Reconstructs what a masker hides, and infers for the agent where it takes part in acting.

    One that does is a module of the agent, which asks it by the method of its place; each infers nothing
    unless it is overridden. No gradient of Q reaches it.

    Attributes:
        hides: what maskers hide from it.
        unused: options that it has no use for, by name, each with the one value that is accepted.
        needs_entities: whether the layout has to know entities.
        is_trained: whether a loss trains it.
        window: last time steps that ``infer_from_window`` reads.
        state_size: W, features of its own hidden state, which the agent carries behind its own.
    """

    hides: ClassVar[Unit]
    unused: ClassVar[Mapping[str, object]] = MappingProxyType({})
    needs_entities: ClassVar[bool] = False
    is_trained: ClassVar[bool] = True
    window: int = 0
    state_size: int = 0

    @classmethod
    @abstractmethod
    def build(cls, spec: AgentSpec, layout: Layout, config: LimConfig) -> Autoencoder:
        """The one that ``config`` describes, for agents of these sizes."""

    @classmethod
    def place(cls, use_inference: bool) -> Place:
        """Where its inferences enter the agent, by ``lim.autoencoder.use_inference``."""
        return "nowhere"

    @classmethod
    def inferred_widths(cls, layout: Layout, config: LimConfig) -> dict[str, int]:
        """Features that the agent gets of a token out of sight, by kind: D of each that may be hidden."""
        return {group.kind: group.width for group in layout.groups if group.is_hideable}

    @classmethod
    def check(cls, config: LimConfig) -> None:  # noqa: B027 - most have nothing to add
        """Refuse combinations of options beyond ``unused``.

        Raises:
            LimaskError: names the options and what to set instead.
        """

    def infer_step(
        self, inputs: torch.Tensor, states: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """At the trunk, one time step: inputs (R, D) and states (R, W) → inferences (R, P), states (R, W)."""
        return None, states

    def infer_episodes(
        self, inputs: torch.Tensor, counts: list[int], rows: torch.Tensor | None = None
    ) -> torch.Tensor | None:
        """The same over whole episodes.

        Args:
            inputs: (M, N, D and whatever follows) in the order of ``Packing``.
            counts: episodes at each time step.
            rows: (S,) the rows of all M · N that are wanted; None = all.

        Returns:
            Inferences (S, P).
        """
        return None

    def infer_from_hidden(self, hidden: torch.Tensor, obs: torch.Tensor) -> torch.Tensor | None:
        """At the head: the agent's hidden states (R, H) and observations (R, O) → inferences (R, P)."""
        return None

    def infer_from_window(
        self, inputs: torch.Tensor, taken: torch.Tensor, index: torch.Tensor
    ) -> torch.Tensor | None:
        """By attention: what every agent makes of everybody's observations, (M, N, N · O).

        Args:
            inputs: (B, T, N, D).
            taken: (B, T, N, A) one-hot actions taken.
            index: (M,) the steps asked for, in the flattened (B · T).
        """
        return None

    def believed(self, hidden: torch.Tensor, obs: torch.Tensor) -> torch.Tensor | None:
        """What the agents take to be around them, to be looked at: observations with the tokens that are out
        of sight as they are inferred, in the observation's own units.

        Args:
            hidden: (R, H + W) hidden states after the time step; see ``LimAgent.init_hidden``.
            obs: (R, O) observations at it.

        Returns:
            (R, O), or None where no features of tokens are inferred.
        """
        return None


class TokenAutoencoder(Autoencoder):
    """Reconstructs tokens of each agent's own observation.

    Attributes:
        shares_encoder: whether the agent itself encodes the hidden view, so that the loss sends a gradient
            into it; otherwise the autoencoder has an encoder of its own.
        scores_all: whether visible tokens are reconstructed too, hidden or not.
    """

    hides = "tokens"
    shares_encoder: ClassVar[bool] = False
    scores_all: ClassVar[bool] = False

    @abstractmethod
    def encode(
        self, view: torch.Tensor, counts: list[int], run_agent: RunAgent
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Encode the hidden view (M, N, D) of whole episodes; see ``infer_episodes`` for the order.

        Returns:
            Q-values (M, N, A) where the agent was run on the view, and hidden states (M, N, H or W).
        """

    @abstractmethod
    def loss(self, hidden: torch.Tensor, truth: Truth, *, updates_statistics: bool = True) -> Scored:
        """Mean squared error of the scored tokens' standardised features; 0 where none is scored.

        Args:
            hidden: (..., H or W) hidden states on the hidden view.
            truth: what is reconstructed.
            updates_statistics: whether the features' running means and variances take the tokens in.
        """

    def loss_of_embeddings(
        self,
        hidden: torch.Tensor,
        embedded: Mapping[str, torch.Tensor],
        truth: Truth,
        *,
        updates_statistics: bool = True,
    ) -> Scored:
        """``loss`` of tokens' embeddings (R, K, F) by kind, not their features (``lim.autoencoder.latent``).

        Raises:
            LimaskError: this autoencoder reconstructs features only.
        """
        raise LimaskError(
            f"lim.autoencoder.latent=True: {type(self).__name__} reconstructs features, not embeddings; set "
            "lim.autoencoder.latent=False"
        )


class AgentAutoencoder(Autoencoder):
    """Reconstructs whole agents: what they observed and did in the last ``window`` steps."""

    hides = "agents"

    @abstractmethod
    def loss(
        self,
        inputs: torch.Tensor,
        actions: torch.Tensor,
        index: torch.Tensor,
        is_hidden: torch.Tensor,
        is_scored: torch.Tensor,
    ) -> torch.Tensor:
        """Squared error (a token's squared distance) averaged over all tokens of the scored agents.

        Args:
            inputs: (B, T, N, D).
            actions: (B, T, N, A) one-hot actions taken.
            index: (M,) last step of each window, in the flattened (B · T).
            is_hidden: (M, N) bool, True = the agent is hidden.
            is_scored: (M, N) bool, True = the agent's tokens count; where none does the loss is 0.
        """
