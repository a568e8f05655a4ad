"""Training of autoencoder ``team``: its phases, its masks, its own optimiser.

Axes: B episodes, T time steps, N agents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import nn

from limask import masking
from limask.acting.agent import LimAgent
from limask.autoencoder import TeamAutoencoder
from limask.config import LimConfig
from limask.layouts import tokens
from limask.masking.agents import AgentMasker
from limask.masking.random import RandomAgentMasker
from limask.networks.packing import Packing

#: Episodes of one SGD step in pretraining and fine-tuning.
LESSON = 8

Phase = Literal["pretrain", "finetune", "frozen", "joint"]


class Schedule:
    """When the autoencoder learns, and from what.

    ``pretrain``: on the first batch that the host samples once ``pretrain_episodes`` have been played, before
    any Q-learning. Then ``finetune``, in ``finetune_calls`` calls of the learner, and ``frozen``; or, with
    ``joint``, in every update of Q from then on.
    """

    def __init__(self, config: LimConfig) -> None:
        self.config = config
        self.is_pretrained = config.pretrain_updates == 0
        self.n_finetuned = 0

    @property
    def phase(self) -> Phase:
        """The phase of the learner's next call."""
        if not self.is_pretrained:
            return "pretrain"
        if self.config.joint:
            return "joint"
        return "finetune" if self.n_finetuned < self.config.finetune_calls else "frozen"

    def waits(self, episode_num: int) -> bool:
        """Whether there is nothing to be learned yet after ``episode_num`` episodes of the run."""
        return self.phase == "pretrain" and episode_num < self.config.pretrain_episodes

    def advance(self) -> None:
        """Count a call of the learner."""
        if self.phase == "finetune":
            self.n_finetuned += 1
        self.is_pretrained = True

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to keep."""
        return {"is_pretrained": self.is_pretrained, "n_finetuned": self.n_finetuned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of ``state_dict``."""
        self.is_pretrained, self.n_finetuned = state["is_pretrained"], state["n_finetuned"]


class TeamReconstruction:
    """Masker, phases and optimiser of the autoencoder inside an agent, which no gradient of Q reaches.

    Args:
        mac: the controller that acts; its agent holds the autoencoder.
        seed: seeds the masks.
        max_norm: gradients are clipped to this norm.
    """

    def __init__(self, mac: Any, seed: int, max_norm: float) -> None:
        agent: LimAgent = mac.agent
        assert isinstance(agent.autoencoder, TeamAutoencoder)
        self.mac, self.autoencoder = mac, agent.autoencoder
        self.config, self.layout = agent.config, agent.layout
        self.seed, self.max_norm = seed, max_norm
        self.schedule = Schedule(self.config)
        self.random = RandomAgentMasker(self.config, self.layout)
        masker = masking.build(self.config, self.layout)
        assert isinstance(masker, AgentMasker)  # LimConfig allows no other
        self.masker = masker
        self.optimiser = torch.optim.SGD(self.autoencoder.parameters(), lr=self.config.decoder_lr)
        self.to(next(agent.parameters()).device)

    def to(self, device: torch.device) -> None:
        """Move to a device, where the agent is already; the stream of masks starts anew there."""
        self.generator = torch.Generator(device).manual_seed(self.seed)

    def needs(self, t_env: int) -> frozenset[masking.Signal]:
        """Signals that ``join`` reads at ``t_env`` environment steps."""
        return self.masker.needs(t_env)

    def begin(self, batch: Any, check: Callable[[torch.Tensor], None]) -> dict[str, torch.Tensor]:
        """What the phase asks for before the updates of a call: pretraining or fine-tuning, with random
        agents hidden and all tokens scored; returns what is to be logged.

        Args:
            batch: the sampled episodes of the host's ``EpisodeBatch``, in random order.
            check: called with each loss before it is used.
        """
        stats: dict[str, torch.Tensor] = {}
        for episodes in self._lessons(batch):
            is_hidden = self.random.agents(self._view(episodes), self.generator)
            stats = self._fit(episodes, is_hidden, torch.ones_like(is_hidden), check)
        self.schedule.advance()
        return stats

    def _lessons(self, batch: Any) -> Iterator[Any]:
        """Episodes of each SGD step."""
        if self.schedule.phase == "pretrain":
            n_episodes = min(self.config.pretrain_episodes, batch.batch_size)
            for step in range(self.config.pretrain_updates):
                first = step * LESSON % n_episodes
                yield batch[first : min(first + LESSON, n_episodes)]
        elif self.schedule.phase == "finetune":
            # A learner whose controller has not acted knows no latest episodes.
            yield batch[:LESSON] if self.mac.latest is None else self.mac.latest

    def join(
        self,
        batch: Any,
        t_env: int,
        td_error: torch.Tensor | None,
        check: Callable[[torch.Tensor], None],
    ) -> dict[str, torch.Tensor]:
        """One SGD step beside an update of Q: the masker hides agents, and these are scored.

        Args:
            batch: the update's episodes; the first ``rec_share`` of them is reconstructed.
            t_env: environment steps.
            td_error: (B, T, N) size of each agent's TD error, or None where ``needs`` does not name it.
            check: called with the loss before it is used.
        """
        n_episodes = max(1, round(self.config.rec_share * batch.batch_size))
        view = self._view(batch)._replace(t_env=t_env, td_error=td_error)
        chosen = self.masker.agents(view, self.generator).expand(batch.batch_size, -1)[:n_episodes]
        return self._fit(batch[:n_episodes], chosen, chosen, check)

    def _view(self, batch: Any) -> masking.MaskView:
        obs = batch["obs"]
        is_filled = batch["filled"].squeeze(-1).bool()
        return masking.MaskView(obs, tokens.visibility(obs, self.layout), is_filled)

    def _fit(
        self,
        episodes: Any,
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
        (self.config.lambda_rec * loss).backward()
        norm = nn.utils.clip_grad_norm_(self.autoencoder.parameters(), self.max_norm)
        self.optimiser.step()
        mask_rate = is_hidden.float().mean()
        return {"rec_loss": loss.detach(), "rec_grad_norm": norm, "mask_rate": mask_rate}

    def state_dict(self) -> dict[str, Any]:
        """Phases, optimiser, masker and stream of masks; the autoencoder itself is kept with the agent."""
        return {
            "autoencoder": "team",
            "schedule": self.schedule.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "masker": self.config.masker,
            "masker_state": self.masker.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of ``state_dict``."""
        self.schedule.load_state_dict(state["schedule"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.masker.load_state_dict(state["masker_state"])
        self.generator.set_state(state["generator"].cpu())
