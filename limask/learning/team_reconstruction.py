"""Training of an autoencoder of agents: its phases, its masks, its own optimiser.

Axes: B episodes, T time steps, N agents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal, cast

import torch
from torch import nn

from limask import masking
from limask.acting.agent import LimAgent
from limask.autoencoder import AgentAutoencoder
from limask.config import LimConfig
from limask.layouts import tokens
from limask.learning.trainer import Trainer
from limask.learning.update import Update
from limask.masking.agents import AgentMasker
from limask.masking.random import RandomAgentMasker
from limask.networks.packing import Packing
from limask.protocols import EpisodeBatch, Mac, State

#: Episodes of one SGD step in pretraining and fine-tuning.
FIT_EPISODES = 8

Phase = Literal["pretrain", "finetune", "frozen", "joint"]


class Schedule:
    """When the autoencoder learns, and from what.

    ``pretrain``: on the first batch that the host samples once ``pretrain_episodes`` have been played, before
    any Q-learning. Then ``finetune``, in ``finetune_calls`` calls of the learner, and ``frozen``; or, with
    ``joint``, in every update of Q from then on.
    """

    def __init__(self, config: LimConfig) -> None:
        self.config = config
        self.is_pretrained = config.team.pretrain_updates == 0
        self.n_finetuned = 0

    @property
    def phase(self) -> Phase:
        """The phase of the learner's next call."""
        if not self.is_pretrained:
            return "pretrain"
        if self.config.team.joint:
            return "joint"
        return "finetune" if self.n_finetuned < self.config.team.finetune_calls else "frozen"

    def waits(self, episode_num: int) -> bool:
        """Whether there is nothing to be learned yet after ``episode_num`` episodes of the run."""
        return self.phase == "pretrain" and episode_num < self.config.team.pretrain_episodes

    def advance(self) -> None:
        """Count a call of the learner."""
        if self.phase == "finetune":
            self.n_finetuned += 1
        self.is_pretrained = True

    def state_dict(self) -> State:
        """What a checkpoint has to keep."""
        return {"is_pretrained": self.is_pretrained, "n_finetuned": self.n_finetuned}

    def load_state_dict(self, state: State) -> None:
        """Inverse of ``state_dict``."""
        self.is_pretrained, self.n_finetuned = state["is_pretrained"], state["n_finetuned"]


class TeamReconstruction(Trainer):
    """Trains an autoencoder of agents, which no gradient of Q reaches, through its phases.

    Args:
        mac: the controller that acts; its agent holds the autoencoder.
        seed: seeds the masks.
        max_norm: gradients are clipped to this norm.
    """

    autoencoder: AgentAutoencoder
    masker: AgentMasker

    def __init__(self, mac: Mac, seed: int, max_norm: float) -> None:
        agent: LimAgent = mac.agent
        config, self.mac, self.layout = agent.config, mac, agent.layout
        # autoencoder.options allows no others.
        autoencoder = cast(AgentAutoencoder, agent.autoencoder)
        masker = cast(AgentMasker, masking.build(config, self.layout))
        optimiser = torch.optim.SGD(autoencoder.parameters(), lr=config.autoencoder.lr)
        super().__init__(autoencoder, masker, optimiser, config, seed, max_norm)
        self.schedule = Schedule(config)
        self.random = RandomAgentMasker(config, self.layout)
        self.to(next(agent.parameters()).device)

    def waits(self, episode_num: int) -> bool:
        """See ``Trainer.waits``: until there are episodes to be pretrained on."""
        return self.schedule.waits(episode_num)

    def begin(self, batch: EpisodeBatch, check: Callable[[torch.Tensor], None]) -> dict[str, torch.Tensor]:
        """See ``Trainer.begin``: random agents are hidden and all tokens scored."""
        stats: dict[str, torch.Tensor] = {}
        for episodes in self._episodes_to_fit(batch):
            is_hidden = self.random.agents(self._view(episodes), self.generator)
            stats = self._fit(episodes, is_hidden, torch.ones_like(is_hidden), check)
        self.schedule.advance()
        return stats

    def _episodes_to_fit(self, batch: EpisodeBatch) -> Iterator[EpisodeBatch]:
        """Episodes of each SGD step."""
        if self.schedule.phase == "pretrain":
            n_episodes = min(self.config.team.pretrain_episodes, batch.batch_size)
            for step in range(self.config.team.pretrain_updates):
                first = step * FIT_EPISODES % n_episodes
                yield batch[first : min(first + FIT_EPISODES, n_episodes)]
        elif self.schedule.phase == "finetune":
            # A learner whose controller has not acted knows no latest episodes.
            yield batch[:FIT_EPISODES] if self.mac.latest is None else self.mac.latest

    def beside(self, update: Update) -> dict[str, torch.Tensor]:
        """See ``Trainer.beside``, in the phase ``joint``: the masker hides agents, and these are scored. It
        looks at all of the update's episodes, and the first ``share`` of them are reconstructed."""
        if self.schedule.phase != "joint":
            return {}
        batch, n_episodes = update.batch, self.n_episodes(update.batch)
        hints = update.hints(self.masker.needs(update.t_env))
        view = self._view(batch)._replace(t_env=update.t_env, td_error=hints.td_error)
        chosen = self.masker.agents(view, self.generator).expand(batch.batch_size, -1)[:n_episodes]
        return self._fit(batch[:n_episodes], chosen, chosen, partial(update.check, "reconstruction loss"))

    def _view(self, batch: EpisodeBatch) -> masking.MaskView:
        obs = batch["obs"]
        is_filled = batch["filled"].squeeze(-1).bool()
        return masking.MaskView(obs, tokens.visibility(obs, self.layout), is_filled)

    def _fit(
        self,
        episodes: EpisodeBatch,
        is_hidden: torch.Tensor,
        is_scored: torch.Tensor,
        check: Callable[[torch.Tensor], None],
    ) -> dict[str, torch.Tensor]:
        """One SGD step on all windows of some episodes; ``is_hidden`` and ``is_scored`` (B, N) bool."""
        packing = Packing(episodes["filled"].squeeze(-1).bool())
        episode = packing.index // packing.shape[1]
        inputs, taken = self.mac.step_inputs(episodes)
        loss = self.autoencoder.loss(inputs, taken, packing.index, is_hidden[episode], is_scored[episode])
        check(loss)
        self.optimiser.zero_grad()
        (self.config.autoencoder.weight * loss).backward()
        norm = nn.utils.clip_grad_norm_(self.autoencoder.parameters(), self.max_norm)
        check(norm)
        self.optimiser.step()
        mask_rate = is_hidden.float().mean()
        return {"rec_loss": loss.detach(), "rec_grad_norm": norm, "mask_rate": mask_rate}

    def state_dict(self) -> State:
        """See ``Trainer.state_dict``; the autoencoder itself is kept with the agent."""
        return super().state_dict() | {"schedule": self.schedule.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """See ``Trainer.load_state_dict``."""
        self.schedule.load_state_dict(state["schedule"])
        super().load_state_dict(state)
