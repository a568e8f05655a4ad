"""An SGD step's episodes with a TD loss of limask's, and what follows from it.

Axes: B episodes, T time steps, M filled steps, P transitions, N agents, K tokens, A actions, D features of an
agent's input.
"""

from __future__ import annotations

import functools
from typing import Protocol

import torch

from limask.learning import signals
from limask.learning.distillation import distillation_loss
from limask.learning.td_loss import Networks, TdLoss, TdOptions, mix, td_loss
from limask.learning.update import Update
from limask.masking import Signal
from limask.networks.packing import Packing
from limask.protocols import EpisodeBatch


class Learner(Protocol):
    """What an update asks of the learner that makes it."""

    td_options: TdOptions

    @property
    def networks(self) -> Networks:
        """What values states."""

    def check_finite(self, name: str, loss: torch.Tensor, t_env: int) -> None:
        """See ``Update.check``."""


class TdUpdate(Update):
    """An update by a TD loss of limask's.

    Args:
        learner: which makes it.
        batch: the host's ``EpisodeBatch``.
        packing: of its filled steps.
        inputs: (M, N, D) agents' inputs.
        t_env: environment steps made so far.
        rewards: (B, T − 1, 1 or N) of the ``whole``.
        truth: see ``Update``.
        masks: see ``Update``.
        whole: the update whose first episodes these are; None = itself.
    """

    def __init__(
        self,
        learner: Learner,
        batch: EpisodeBatch,
        packing: Packing,
        inputs: torch.Tensor,
        t_env: int,
        rewards: torch.Tensor,
        truth: torch.Tensor | None = None,
        masks: torch.Tensor | None = None,
        whole: TdUpdate | None = None,
    ) -> None:
        # Not itself: in a circle of references the update's tensors would wait for Python's collector.
        self.learner, self.rewards, self._whole = learner, rewards, whole
        self.batch, self.packing, self.inputs, self.t_env = batch, packing, inputs, t_env
        self.truth, self.masks = truth, masks

    @property
    def whole(self) -> TdUpdate:
        """The update that the TD loss is of."""
        return self if self._whole is None else self._whole

    @functools.cached_property
    def td(self) -> TdLoss:
        """The TD loss of the whole update."""
        if self._whole is not None:
            return self._whole.td
        learner = self.learner
        with torch.enable_grad():  # credit is read off it where nothing is learned, too
            return td_loss(
                self.batch, self.packing, self.inputs, self.rewards, learner.networks, learner.td_options
            )

    def first(self, n_episodes: int) -> TdUpdate:
        """See ``Update.first``."""
        if n_episodes >= self.batch.batch_size:
            return self
        part = self.batch[:n_episodes]
        packing = Packing(part["filled"].squeeze(-1).bool())
        rows = self.packing.rows_of_first(n_episodes)
        inputs = self.inputs.index_select(0, rows)
        truth = None if self.truth is None else self.truth.index_select(0, rows)
        masks = None if self.masks is None else self.masks[:n_episodes]
        return TdUpdate(
            self.learner, part, packing, inputs, self.t_env, self.rewards, truth, masks, self.whole
        )

    def check(self, name: str, loss: torch.Tensor) -> None:
        """See ``Update.check``."""
        self.learner.check_finite(name, loss, self.t_env)

    def signal(self, name: Signal) -> torch.Tensor:
        """See ``Update.signal``."""
        if name == "td_error":
            return signals.by_step(self.whole.packing, self.agent_errors())[: self.batch.batch_size]
        actions = self.packing.pack(self.batch["actions"])

        def value(chosen: torch.Tensor) -> torch.Tensor:
            mixer = self.learner.networks.mixer if name == "saliency" else None
            return mix(mixer, chosen, self._at_starts("state"))

        gradients = signals.token_gradients(
            self.learner.networks.agent, self.inputs, self.packing, actions, value
        )
        return self.packing.unpack(gradients)

    def agent_errors(self) -> torch.Tensor:
        """Size of each agent's TD error (P, N) in the whole update, as ``lim.masker.credit`` says."""
        td, packing = self.td, self.whole.packing
        if self.learner.networks.agent.config.masker.credit == "mixed":
            # dL/dQ_i = 2w/(P·V) Σ_V δ ∂Q_tot/∂Q_i: an update that has been made has left it there.
            gradient = td.chosen.grad
            if gradient is None:
                (gradient,) = torch.autograd.grad(td.loss, td.chosen)
            return gradient.abs() * (td.td_error.numel() / (2 * self.learner.td_options.weight))
        reward, terminated = (
            packing.pack(self.whole.batch[key])[packing.starts].float() for key in ("reward", "terminated")
        )
        gamma = self.learner.td_options.gamma
        return signals.local_errors(td.chosen.detach(), reward, terminated, td.next_values, gamma)

    def hidden_view_loss(self, q_values: torch.Tensor, q_full: torch.Tensor | None) -> torch.Tensor:
        """See ``Update.hidden_view_loss``."""
        starts, weight = self.packing.starts, self.learner.td_options.weight
        if q_full is not None:
            is_available = self._at_starts("avail_actions") > 0
            return weight * distillation_loss(q_values[starts], q_full[starts], is_available, self.credit())
        taken = q_values[starts].gather(2, self._at_starts("actions")).squeeze(2)
        q_taken = mix(self.learner.networks.mixer, taken, self._at_starts("state"))
        return weight * (q_taken - self._of_whole(self.td.target)).square().mean()

    def credit(self) -> torch.Tensor:
        """∂Q_tot/∂Q_i (P, N) of the transitions at the actions taken; 1 without a mixer."""
        chosen = self._of_whole(self.td.chosen.detach()).requires_grad_()
        with torch.enable_grad():
            q_taken = mix(self.learner.networks.mixer, chosen, self._at_starts("state"))
            (gradient,) = torch.autograd.grad(q_taken.sum(), chosen)
        return gradient

    def _of_whole(self, values: torch.Tensor) -> torch.Tensor:
        """Of values of the whole update's transitions those of these episodes' (P, …)."""
        own = signals.by_step(self.whole.packing, values)[: self.batch.batch_size]
        return self.packing.pack(own)[self.packing.starts]

    def _at_starts(self, key: str) -> torch.Tensor:
        """What the batch holds at the steps (P, …) that transitions start from."""
        return self.packing.pack(self.batch[key])[self.packing.starts]
