"""Who trains an autoencoder: beside a learner of Q, in each of its updates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch

from limask.autoencoder import Autoencoder
from limask.config import LimConfig
from limask.learning.update import Update
from limask.masking import Masker
from limask.protocols import EpisodeBatch, State


class Trainer(ABC):
    """Masker, autoencoder and the autoencoder's own optimiser.

    Args:
        autoencoder: what is trained.
        masker: what hides from it.
        optimiser: of the autoencoder's parameters.
        config: the run's options.
        seed: seeds the masks.
        max_norm: gradients are clipped to this norm.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        masker: Masker,
        optimiser: torch.optim.Optimizer,
        config: LimConfig,
        seed: int,
        max_norm: float,
    ) -> None:
        self.autoencoder, self.masker, self.optimiser = autoencoder, masker, optimiser
        self.config, self.seed, self.max_norm = config, seed, max_norm

    def to(self, device: torch.device) -> None:
        """Move to a device; the stream of masks starts anew there."""
        self.autoencoder.to(device)
        self.generator = torch.Generator(device).manual_seed(self.seed)

    def waits(self, episode_num: int) -> bool:
        """Whether nothing is to be learned yet, not even by Q, after ``episode_num`` episodes of the run."""
        return False

    def begin(self, batch: EpisodeBatch, check: Callable[[torch.Tensor], None]) -> dict[str, torch.Tensor]:
        """What is learned from a sampled ``EpisodeBatch`` before the updates of Q; returns what is to be
        logged. ``check`` is called with each loss before it is used."""
        return {}

    @abstractmethod
    def beside(self, update: Update) -> dict[str, torch.Tensor]:
        """Learn beside an update of Q, whose gradients are there already, clipped; returns what is to be
        logged."""

    def n_episodes(self, batch: EpisodeBatch) -> int:
        """Episodes of an update that are reconstructed."""
        return max(1, round(self.config.autoencoder.share * batch.batch_size))

    def state_dict(self) -> State:
        """What a checkpoint has to keep beside the agent, and what it was written with."""
        return {
            "autoencoder": self.config.autoencoder.name,
            "use_inference": self.config.autoencoder.use_inference,
            "rec_latent": self.config.autoencoder.latent,
            "optimiser": self.optimiser.state_dict(),
            "masker": self.config.masker.name,
            "masker_state": self.masker.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: State) -> None:
        """Inverse of ``state_dict``."""
        self.optimiser.load_state_dict(state["optimiser"])
        self.masker.load_state_dict(state["masker_state"])
        self.generator.set_state(state["generator"].cpu())
