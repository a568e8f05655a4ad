"""One SGD step's episodes, and what the learner that makes it can say of them.

Axes: B episodes, T time steps, M filled steps, N agents, K tokens, A actions, D features of an agent's input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import torch

from limask.masking import Signal
from limask.networks.packing import Packing
from limask.protocols import EpisodeBatch


class Hints(NamedTuple):
    """What the learner knows of the episodes beyond their observations; see ``masking.MaskView``.

    ``t_env`` environment steps; ``td_error`` (B, T, N), ``saliency`` and ``dependence`` (B, T, N, K), each
    None where nobody asks for it.
    """

    t_env: int = 0
    td_error: torch.Tensor | None = None
    saliency: torch.Tensor | None = None
    dependence: torch.Tensor | None = None


class Update(ABC):
    """Episodes of an SGD step.

    Attributes:
        batch: the host's ``EpisodeBatch``.
        packing: of its filled steps.
        inputs: (M, N, D) agents' inputs, in the order of ``packing``.
        truth: (M, N, O) what the agents really observed, where faults or masks changed the inputs, or None.
        masks: (B', T, N, K) bool, what is hidden from the inputs of the first B' episodes or is to be hidden
            from the autoencoder; None = nobody has drawn masks yet.
        t_env: environment steps made so far.
    """

    batch: EpisodeBatch
    packing: Packing
    inputs: torch.Tensor
    t_env: int
    truth: torch.Tensor | None = None
    masks: torch.Tensor | None = None

    @abstractmethod
    def first(self, n_episodes: int) -> Update:
        """The same of the first episodes; a sample comes in random order."""

    @abstractmethod
    def signal(self, name: Signal) -> torch.Tensor:
        """What the learner says of the episodes; see ``Hints``."""

    @abstractmethod
    def check(self, name: str, loss: torch.Tensor) -> None:
        """Stop training before a loss of this name spoils the networks.

        Raises:
            LimaskError: it is not finite.
        """

    @abstractmethod
    def hidden_view_loss(self, q_values: torch.Tensor, q_full: torch.Tensor | None) -> torch.Tensor:
        """Loss of Q-values (M, N, A) of the hidden view: towards the teacher's of the full view, ``q_full``
        (M, N, A), or without them the TD loss towards the full view's targets."""

    def hints(self, names: frozenset[Signal]) -> Hints:
        """The signals of these names."""
        return Hints(self.t_env, **{name: self.signal(name) for name in names})


def minibatches(batch: EpisodeBatch, count: int) -> Iterator[EpisodeBatch]:
    """``count`` parts of the host's ``EpisodeBatch``, in its order and as equal as can be."""
    if count == 1:
        yield batch
        return
    bounds = [batch.batch_size * i // count for i in range(count + 1)]
    for first, end in zip(bounds[:-1], bounds[1:], strict=True):
        yield batch[first:end]
