"""The learner: the host's Q-learner with a reconstruction objective beside its TD loss.

Axes: B episodes, T time steps, M filled steps of all episodes, P transitions, N agents, A actions, D features
of an agent's input, V values of a state (1 with a mixer, N without).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from limask import memory
from limask.autoencoder import EntityAutoencoder, TeamAutoencoder
from limask.config import LimConfig
from limask.errors import LimaskError
from limask.learning import signals
from limask.learning.checkpoints import Checkpoints, check_finite
from limask.learning.reconstruction import Hints, Reconstruction
from limask.learning.targets import lambda_returns
from limask.learning.team_reconstruction import TeamReconstruction
from limask.networks.entity_trunk import entity_dim
from limask.networks.packing import Packing


class TdLoss(NamedTuple):
    """``loss``; over the transitions ``td_error``, ``q_taken`` and ``target``, each (P, V); and by agent,
    before any mixing, the values of the actions taken, ``chosen``, and of the best next ones, (P, N)."""

    loss: torch.Tensor
    td_error: torch.Tensor
    q_taken: torch.Tensor
    target: torch.Tensor
    chosen: torch.Tensor
    next_values: torch.Tensor


class LimLearner(Checkpoints):
    """Mixed in before a host's ``QLearner``, which brings mixers, optimiser, target networks, reward
    statistics and checkpoints. ``host`` is set by the class that joins the two.

    Raises:
        LimaskError: an option of the host's that this learner does not have.
    """

    host: Any
    # Set by the host's learner.
    args: Any
    mac: Any
    target_mac: Any
    mixer: nn.Module | None
    target_mixer: nn.Module
    optimiser: torch.optim.Optimizer
    params: list[nn.Parameter]
    logger: Any
    rew_ms: Any
    log_stats_t: int

    def __init__(self, mac: Any, scheme: Any, logger: Any, args: Any) -> None:
        self.check_options(mac.agent.config, args)
        super().__init__(mac, scheme, logger, args)  # type: ignore[call-arg]
        self.training_steps = 0  # SGD steps made; some hosts count them, all alike
        memory.keep_freed_memory()
        if isinstance(self.optimiser, torch.optim.Adam):
            for group in self.optimiser.param_groups:
                group["fused"] = True  # the same step, but for rounding, in a quarter of the time
        self.agent, self.config = mac.agent, mac.agent.config
        if self.config.autoencoder == "team":
            self.team = TeamReconstruction(mac, int(args.seed), args.grad_norm_clip)
        elif self.config.autoencoder != "none":
            self.reconstruction = self._reconstruction()

    @staticmethod
    def check_options(config: LimConfig, args: Any) -> None:
        """Refuse options of the host's that this learner does not have.

        Raises:
            LimaskError: names the option and what to set instead.
        """
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

    def _reconstruction(self) -> Reconstruction:
        inside, target = self.agent.autoencoder, self.target_mac.agent
        # Target networks follow what Q-learning trains; what they infer is inferred as it is done now.
        target.autoencoder = inside
        if inside is None:
            width = entity_dim(self.agent.spec) if self.config.rec_latent else None
            sizes = (self.agent.spec.hidden_dim, self.config.decoder_dim, width)
            inside = EntityAutoencoder(self.agent.layout, *sizes)
        assert not isinstance(inside, TeamAutoencoder)
        seed, max_norm = int(self.args.seed), self.args.grad_norm_clip
        return Reconstruction(self.agent, inside, seed, max_norm, teacher=target)

    def train(self, batch: Any, t_env: int, episode_num: int) -> None:
        """Make ``minibatches`` SGD steps of one sampled batch of the host's ``EpisodeBatch``.

        Raises:
            LimaskError: a loss is not finite; the networks are as they were before that step.
        """
        self.host.before_update(self)
        if self.team is not None and self.team.schedule.waits(episode_num):
            return
        begun = {} if self.team is None else self.team.begin(batch, partial(self._check_rec, t_env))
        self.agent.let_in(t_env >= self.config.rec_warmup)
        n_steps = self.config.n_minibatches(batch.batch_size)
        bounds = [batch.batch_size * i // n_steps for i in range(n_steps + 1)]
        stats: dict[str, torch.Tensor] = {}
        for first, end in zip(bounds[:-1], bounds[1:], strict=True):
            stats = begun | self._update(batch[first:end], t_env, episode_num)
        if t_env - self.log_stats_t >= self.args.learner_log_interval:
            for key, value in stats.items():
                self.logger.log_stat(key, value.item(), t_env)
            self.log_stats_t = t_env

    def _update(self, batch: Any, t_env: int, episode_num: int) -> dict[str, torch.Tensor]:
        packing = Packing(batch["filled"].squeeze(-1).bool())
        inputs = self.mac.sequence_inputs(batch, packing)
        td = self._td_loss(batch, packing, inputs)
        self._check_finite("TD loss", td.loss, t_env)
        self.optimiser.zero_grad()
        td.loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(self.params, self.args.grad_norm_clip)
        stats = self._td_stats(td) | {"grad_norm": grad_norm}
        if self.reconstruction is not None and self.config.lambda_rec + self.config.lambda_aug > 0:
            stats |= self._reconstruct(self.reconstruction, batch, packing, inputs, td, t_env)
        elif self.team is not None and self.team.schedule.phase == "joint":
            is_asked = "td_error" in self.team.needs(t_env)
            errors = signals.by_step(packing, self._agent_errors(batch, packing, td)) if is_asked else None
            stats |= self.team.join(batch, t_env, errors, partial(self._check_rec, t_env))
        self.optimiser.step()
        self.host.update_targets(self, episode_num)
        return stats

    def _reconstruct(
        self,
        reconstruction: Reconstruction,
        batch: Any,
        packing: Packing,
        inputs: torch.Tensor,
        td: TdLoss,
        t_env: int,
    ) -> dict[str, torch.Tensor]:
        """Add to the gradients those of the first of the sampled episodes, which come in random order, with
        tokens hidden; returns what is to be logged."""
        n_episodes = max(1, round(self.config.rec_share * batch.batch_size))
        part = batch[:n_episodes]
        inner = Packing(part["filled"].squeeze(-1).bool())
        inputs = inputs.index_select(0, packing.rows_of_first(n_episodes))
        needs = reconstruction.needs(t_env)
        td_error = None
        if "td_error" in needs:
            td_error = signals.by_step(packing, self._agent_errors(batch, packing, td))[:n_episodes]
        saliency = self._token_gradients(part, inner, inputs, mixed=True) if "saliency" in needs else None
        dependence = (
            self._token_gradients(part, inner, inputs, mixed=False) if "dependence" in needs else None
        )
        rec = reconstruction.loss(inputs, inner, Hints(t_env, td_error, saliency, dependence), part["state"])
        self._check_rec(t_env, rec.loss)
        aug = None
        if self.config.lambda_aug > 0:
            assert rec.q_values is not None
            target = inner.pack(signals.by_step(packing, td.target)[:n_episodes])[inner.starts]
            aug = self._hidden_view_loss(part, inner, rec.q_values, target)
            self._check_finite("hidden view's TD loss", aug, t_env)
        grad_norm = reconstruction.step(rec.loss, aug, t_env)
        stats = {"rec_loss": rec.loss.detach(), "rec_grad_norm": grad_norm, **rec.stats}
        return stats if aug is None else stats | {"aug_loss": aug.detach()}

    def _agent_errors(self, batch: Any, packing: Packing, td: TdLoss) -> torch.Tensor:
        """Size of each agent's TD error (P, N), credited as ``lim.credit`` says."""
        if self.config.credit == "mixed":
            # dL/dQ_i = 2w/(P·V) Σ_V δ ∂Q_tot/∂Q_i has been computed for the update already.
            assert td.chosen.grad is not None
            return td.chosen.grad.abs() * (td.td_error.numel() / (2 * self.host.td_weight))
        reward, terminated = (
            packing.pack(batch[key])[packing.starts].float() for key in ("reward", "terminated")
        )
        return signals.local_errors(td.chosen.detach(), reward, terminated, td.next_values, self.args.gamma)

    def _token_gradients(
        self, part: Any, inner: Packing, inputs: torch.Tensor, *, mixed: bool
    ) -> torch.Tensor:
        """Saliency of tokens for Q_tot, or for each agent's own Q where not ``mixed``: (B, T, N, K)."""

        def value(chosen: torch.Tensor) -> torch.Tensor:
            if not mixed or self.mixer is None:
                return chosen
            return _mix(self.mixer, chosen, inner.pack(part["state"])[inner.starts])

        actions = inner.pack(part["actions"])
        return inner.unpack(signals.token_gradients(self.agent, inputs, inner, actions, value))

    def _hidden_view_loss(
        self, part: Any, inner: Packing, q_values: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        """TD loss of the hidden view's Q-values (M, N, A) towards the same targets (P, V)."""
        taken = q_values[inner.starts].gather(2, inner.pack(part["actions"])[inner.starts]).squeeze(2)
        if self.mixer is not None:
            taken = _mix(self.mixer, taken, inner.pack(part["state"])[inner.starts])
        return self.host.td_weight * (taken - target).square().mean()

    def _td_loss(self, batch: Any, packing: Packing, inputs: torch.Tensor) -> TdLoss:
        """Mean squared TD error of the transitions, by the hosts' own arithmetic."""
        gathered = self.agent.gather(inputs, packing.counts)
        q_values, _ = self.agent.sequence(inputs, packing.counts, gathered)
        actions = packing.pack(batch["actions"])[packing.starts]
        q_taken = chosen = q_values[packing.starts].gather(2, actions).squeeze(2)
        chosen.retain_grad()
        state = packing.pack(batch["state"])
        with torch.no_grad():
            q_target, _ = self.target_mac.agent.sequence(inputs, packing.counts, gathered)
            best_at = partial(
                signals.best_values, batch, packing, q_values, q_target, double_q=self.args.double_q
            )
            q_next = next_values = best_at(packing.ends)
            if self.mixer is not None:
                q_next = _mix(self.target_mixer, q_next, state[packing.ends])
            correction = None
            if self.config.q_lambda:
                best = best_at(packing.starts)
                taken = q_target[packing.starts].gather(2, actions).squeeze(2)
                if self.mixer is not None:
                    best, taken = (_mix(self.target_mixer, q, state[packing.starts]) for q in (best, taken))
                correction = best - taken
            target = self._targets(batch, packing, q_next, correction)
        if self.mixer is not None:
            q_taken = _mix(self.mixer, q_taken, state[packing.starts])
        td_error = q_taken - target
        loss = self.host.td_weight * td_error.square().mean()
        return TdLoss(loss, td_error.detach(), q_taken.detach(), target, chosen, next_values)

    def _targets(
        self, batch: Any, packing: Packing, q_next: torch.Tensor, correction: torch.Tensor | None
    ) -> torch.Tensor:
        """TD(λ) targets (P, V) from the values (P, V) of the next states; Q(λ) targets where ``correction``
        (P, V), how far the best action's value lies above that of the one taken, joins the rewards."""
        rewards = batch["reward"][:, :-1]
        if self.args.standardise_rewards:
            self.rew_ms.update(rewards)
            rewards = (rewards - self.rew_ms.mean) / torch.sqrt(self.rew_ms.var)
        at = packing.index[packing.starts]
        n_all = packing.shape[0] * packing.shape[1]

        def by_step(values: torch.Tensor) -> torch.Tensor:
            padded = values.new_zeros(n_all, values.shape[1]).index_copy(0, at, values)
            return padded.unflatten(0, packing.shape)[:, :-1]

        if correction is not None:
            rewards = rewards + by_step(correction)
        targets = lambda_returns(
            rewards,
            batch["terminated"][:, :-1].float(),
            by_step(q_next),
            by_step(torch.ones_like(q_next[:, :1])),
            self.args.gamma,
            self.config.td_lambda,
        )
        return nn.functional.pad(targets, (0, 0, 0, 1)).flatten(0, 1)[at]

    def _td_stats(self, td: TdLoss) -> dict[str, torch.Tensor]:
        return {
            "loss": td.loss.detach(),
            "td_error_abs": td.td_error.abs().mean(),
            "q_taken_mean": td.q_taken.mean() / self.args.n_agents,
            "target_mean": td.target.mean() / self.args.n_agents,
        }

    def _check_rec(self, t_env: int, loss: torch.Tensor) -> None:
        self._check_finite("reconstruction loss", loss, t_env)

    def _check_finite(self, name: str, loss: torch.Tensor, t_env: int) -> None:
        check_finite(self, name, loss, f"t_env={t_env}, SGD step {self.training_steps + 1}")


def _mix(mixer: nn.Module, q_values: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    """Q_tot (P, 1) of agents' values (P, N); the hosts' mixers take episodes, here of one step each."""
    return mixer(q_values.unsqueeze(1), state.unsqueeze(1)).squeeze(1)
