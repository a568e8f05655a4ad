"""The learner: the host's Q-learner with a reconstruction objective beside its TD loss.

Axes: B episodes, T time steps, N agents.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import nn

from limask import autoencoder, memory
from limask.acting.controller import FAULT_STREAM
from limask.autoencoder import TokenAutoencoder
from limask.config import LimConfig
from limask.errors import LimaskError
from limask.faults import BatchSource
from limask.layouts import tokens
from limask.learning.checkpoints import Checkpoints, blamed, check_clip, check_finite
from limask.learning.reconstruction import Look, Reconstruction
from limask.learning.td_loss import Networks, TdLoss, TdOptions
from limask.learning.td_update import TdUpdate
from limask.learning.team_reconstruction import TeamReconstruction
from limask.learning.trainer import Trainer
from limask.learning.update import minibatches
from limask.networks.packing import Packing
from limask.protocols import Args, EpisodeBatch, Logger, Mac, RunningStatistics


class LimLearner(Checkpoints):
    """Mixed in before a host's ``QLearner``, which brings mixers, optimiser, target networks, reward
    statistics and checkpoints. ``host`` is set by the class that joins the two.

    Raises:
        LimaskError: an option of the host's that this learner does not have.
    """

    host: Any
    # Set by the host's learner.
    args: Args
    mac: Mac
    target_mac: Mac
    mixer: nn.Module | None
    target_mixer: nn.Module
    optimiser: torch.optim.Optimizer
    params: list[nn.Parameter]
    logger: Logger
    rew_ms: RunningStatistics
    log_stats_t: int
    _fault_generator: torch.Generator | None = None

    def __init__(self, mac: Mac, scheme: Any, logger: Logger, args: Args) -> None:
        self.check_options(mac.agent.config, args)
        super().__init__(mac, scheme, logger, args)  # type: ignore[call-arg]
        self.training_steps = 0  # SGD steps made; some hosts count them, all alike
        memory.keep_freed_memory()
        if isinstance(self.optimiser, torch.optim.Adam):
            for group in self.optimiser.param_groups:
                group["fused"] = True  # the same step, but for rounding, in a quarter of the time
        self.agent, self.config = mac.agent, mac.agent.config
        self.host.learner = self
        self.td_options = TdOptions(
            gamma=args.gamma,
            double_q=args.double_q,
            td_lambda=self.config.targets.td_lambda,
            q_lambda=self.config.targets.q_lambda,
            weight=self.host.td_weight,
        )
        self.reconstruction = self._trainer()
        mixer = [] if self.mixer is None else self.target_mixer.parameters()
        self.target_params = [*self.target_mac.parameters(), *mixer]

    @staticmethod
    def check_options(config: LimConfig, args: Args) -> None:
        """Refuse options of the host's that this learner does not have.

        Raises:
            LimaskError: names the option and what to set instead.
        """
        check_clip(args)
        if args.standardise_returns:
            raise LimaskError(
                "standardise_returns=True with learner=lim_learner: it standardises rewards only; "
                "set standardise_returns=False (and standardise_rewards=True, if wanted)"
            )
        if args.mixer is not None and not getattr(args, "common_reward", True):
            raise LimaskError(
                f"common_reward=False with mixer={args.mixer!r}, which mixes the team's reward: set "
                "common_reward=True, or mixer=null as in the config iql_lim"
            )

    def _trainer(self) -> Trainer | None:
        """Who trains the run's autoencoder; None where it has none."""
        kind = autoencoder.REGISTRY[self.config.autoencoder.name]
        if kind is None:
            return None
        agent, target = self.agent, self.target_mac.agent
        # Target networks follow what Q-learning trains; what they infer is inferred as it is done now.
        target.autoencoder = agent.autoencoder
        seed, max_norm = int(self.args.seed), self.args.grad_norm_clip
        if kind.hides == "agents":
            return TeamReconstruction(self.mac, seed, max_norm)
        trained = agent.autoencoder or kind.build(agent.spec, agent.layout, self.config)
        return Reconstruction(agent, cast(TokenAutoencoder, trained), seed, max_norm, teacher=target)

    def train(self, batch: EpisodeBatch, t_env: int, episode_num: int) -> None:
        """Make ``minibatches`` SGD steps of one sampled batch of the host's ``EpisodeBatch``.

        Raises:
            LimaskError: a loss is not finite; the networks are as they were before that step.
        """
        self.host.before_update(self)
        stats: dict[str, torch.Tensor] = {}
        if self.reconstruction is not None:
            if self.reconstruction.waits(episode_num):
                return
            check = partial(self.check_finite, "reconstruction loss", t_env=t_env)
            with blamed(batch, self.args):
                stats = self.reconstruction.begin(batch, check)
        self.agent.open_gates(t_env >= self.config.autoencoder.warmup)
        for part in minibatches(batch, self.config.n_minibatches(batch.batch_size)):
            with blamed(part, self.args):
                stats |= self._update(part, t_env, episode_num)
        if t_env - self.log_stats_t >= self.args.learner_log_interval:
            for key, value in stats.items():
                self.logger.log_stat(key, value.item(), t_env)
            self.log_stats_t = t_env

    def _update(self, batch: EpisodeBatch, t_env: int, episode_num: int) -> dict[str, torch.Tensor]:
        """One SGD step; returns what is to be logged."""
        update = self._begun(batch, t_env, self._rewards(batch), self._replayed(batch))
        if self.config.masker.replay > 0:
            update = self._masked(update)
        td = update.td
        self.check_finite("TD loss", td.loss, t_env)
        self.optimiser.zero_grad()
        td.loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(self.params, self.args.grad_norm_clip)
        # Clipped by a norm that overflowed, gradients are zero, and nothing would ever be learned again.
        self.check_finite("norm of the TD loss's gradient", grad_norm, t_env)
        stats = self._td_stats(td) | {"grad_norm": grad_norm}
        if self.reconstruction is not None:
            stats |= self.reconstruction.beside(update)
        self.optimiser.step()
        self.n_updates += 1
        self.host.update_targets(self, episode_num)
        return stats

    def look(self, batch: EpisodeBatch, t_env: int) -> Look:
        """What the masker hides in the episodes of the host's ``EpisodeBatch`` at ``t_env`` environment
        steps, and how well it is reconstructed. Nothing is learned.

        Raises:
            LimaskError: the run has no autoencoder of tokens.
        """
        if not isinstance(self.reconstruction, Reconstruction):
            raise LimaskError(
                f"lim.autoencoder.name={self.config.autoencoder.name!r} hides and reconstructs no tokens"
            )
        return self.reconstruction.look(self._begun(batch, t_env, batch["reward"][:, :-1]))

    def _begun(
        self, batch: EpisodeBatch, t_env: int, rewards: torch.Tensor, obs: torch.Tensor | None = None
    ) -> TdUpdate:
        """The update, of what goes wrong in the observations ``obs`` (B, T, N, O) where they are given."""
        packing = Packing(batch["filled"].squeeze(-1).bool())
        inputs = self.mac.sequence_inputs(batch, packing, obs)
        truth = None if obs is None else packing.pack(batch["obs"])
        return TdUpdate(self, batch, packing, inputs, t_env, rewards, truth)

    def _masked(self, update: TdUpdate) -> TdUpdate:
        """The update with the masker's tokens hidden from Q-learning, too, in the first of its episodes: a
        sample comes in random order. Signals are of the agents that see everything."""
        assert isinstance(self.reconstruction, Reconstruction)  # autoencoder.options allows no other
        n_episodes, obs_size = update.batch.batch_size, self.agent.layout.obs_size
        n_masked = round(self.config.masker.replay * n_episodes)
        part = update.first(max(n_masked, self.reconstruction.n_episodes(update.batch)))
        masks = self.reconstruction.masks(part)
        is_hidden = torch.nn.functional.pad(masks[:n_masked], (0, 0) * 3 + (0, n_episodes - n_masked))
        truth, inputs = update.inputs[..., :obs_size], update.inputs.clone()
        inputs[..., :obs_size] = tokens.hide(truth, update.packing.pack(is_hidden), self.agent.layout)
        truth = truth if update.truth is None else update.truth
        return TdUpdate(
            self, update.batch, update.packing, inputs, update.t_env, update.rewards, truth, masks
        )

    def _replayed(self, batch: EpisodeBatch) -> torch.Tensor | None:
        """Observations (B, T, N, O) with faults drawn anew in a share of the episodes; None without."""
        faults, share = self.agent.faults, self.config.faults.replay
        if faults is None or share == 0:
            return None
        obs = batch["obs"]
        if self._fault_generator is None:
            seed = int(self.args.seed) + FAULT_STREAM + 1
            self._fault_generator = torch.Generator(obs.device).manual_seed(seed)
        source = BatchSource(self._fault_generator, batch.batch_size)
        is_faulty = source.uniform(1, 1, 1) < share
        return torch.where(is_faulty, faults.draw(source, obs.shape[1]).observe(obs), obs)

    @property
    def networks(self) -> Networks:
        """What values states."""
        target_mixer = None if self.mixer is None else self.target_mixer
        return Networks(self.agent, self.mixer, self.target_mac.agent, target_mixer)

    def _rewards(self, batch: EpisodeBatch) -> torch.Tensor:
        """Rewards (B, T − 1, 1 or N) of the transitions, by running statistics where the host standardises
        them."""
        rewards: torch.Tensor = batch["reward"][:, :-1]
        if self.args.standardise_rewards:
            self.rew_ms.update(rewards)
            rewards = (rewards - self.rew_ms.mean) / torch.sqrt(self.rew_ms.var)
        return rewards

    def _td_stats(self, td: TdLoss) -> dict[str, torch.Tensor]:
        return {
            "loss": td.loss.detach(),
            "td_error_abs": td.td_error.abs().mean(),
            "q_taken_mean": td.q_taken.mean() / self.args.n_agents,
            "target_mean": td.target.mean() / self.args.n_agents,
        }

    def check_finite(self, name: str, loss: torch.Tensor, t_env: int) -> None:
        """Stop before a ``loss`` of this name spoils the networks.

        Raises:
            LimaskError: it is not finite.
        """
        check_finite(self, name, loss, f"t_env={t_env}, SGD step {self.training_steps + 1}")
