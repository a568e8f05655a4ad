"""The learner: the host's Q-learner with a reconstruction objective beside its TD loss.

Axes: B episodes, T time steps, M filled steps of all episodes, P transitions, N agents, A actions, D features
of an agent's input, V values of a state (1 with a mixer, N without).
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
from torch import nn

from limask import autoencoder, memory
from limask.agent import LimAgent
from limask.config import LimConfig
from limask.errors import LimaskError
from limask.packing import Packing
from limask.reconstruction import RecLoss, Reconstruction
from limask.targets import lambda_returns

#: Loses against the value of every available action; written as the hosts write it.
_NEVER = -9999999.0


class TdLoss(NamedTuple):
    """``loss``, and over the transitions ``td_error``, ``q_taken`` and ``target``, each (P, V)."""

    loss: torch.Tensor
    td_error: torch.Tensor
    q_taken: torch.Tensor
    target: torch.Tensor


class LimLearner:
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
    n_agents: int
    training_steps: int
    log_stats_t: int

    def __init__(self, mac: Any, scheme: Any, logger: Any, args: Any) -> None:
        if args.standardise_returns:
            raise LimaskError(
                "standardise_returns=True with learner=lim_learner: it standardises rewards only; "
                "set standardise_returns=False (and standardise_rewards=True, if wanted)"
            )
        super().__init__(mac, scheme, logger, args)  # type: ignore[call-arg]
        memory.keep_freed_memory()
        self.agent: LimAgent = mac.agent
        self.config: LimConfig = mac.agent.config
        build = autoencoder.REGISTRY[self.config.autoencoder]
        self.reconstruction = None
        if build is not None:
            decoder = build(self.agent.layout, self.agent.spec.hidden_dim, self.config.decoder_dim)
            self.reconstruction = Reconstruction(self.agent, decoder, int(args.seed), args.grad_norm_clip)
        self.checkpoint = "none written"

    def train(self, batch: Any, t_env: int, episode_num: int) -> None:
        """Make ``minibatches`` SGD steps of one sampled batch of the host's ``EpisodeBatch``.

        Raises:
            LimaskError: a loss is not finite; the networks are as they were before that step.
        """
        n_steps = self.config.n_minibatches(batch.batch_size)
        bounds = [batch.batch_size * i // n_steps for i in range(n_steps + 1)]
        stats: dict[str, torch.Tensor] = {}
        for first, end in zip(bounds[:-1], bounds[1:], strict=True):
            stats = self._update(batch[first:end], t_env, episode_num)
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
        if self.reconstruction is not None and self.config.lambda_rec > 0:
            rec = self._reconstruct(batch)
            self._check_finite("reconstruction loss", rec.loss, t_env)
            rec_grad_norm = self.reconstruction.step(rec.loss)
            stats |= {
                "rec_loss": rec.loss.detach(),
                "rec_grad_norm": rec_grad_norm,
                "mask_rate": rec.mask_rate,
            }
        self.optimiser.step()
        self.host.update_targets(self, episode_num)
        return stats

    def _reconstruct(self, batch: Any) -> RecLoss:
        """Reconstruction loss of the first of the sampled episodes: they come in random order."""
        assert self.reconstruction is not None
        part = batch[: max(1, round(self.config.rec_share * batch.batch_size))]
        packing = Packing(part["filled"].squeeze(-1).bool())
        return self.reconstruction.loss(self.mac.sequence_inputs(part, packing), packing)

    def _td_loss(self, batch: Any, packing: Packing, inputs: torch.Tensor) -> TdLoss:
        """Mean squared TD error of the transitions, by the hosts' own arithmetic."""
        q_values, _ = self.agent.sequence(inputs, packing.counts)
        actions = packing.pack(batch["actions"])[packing.starts]
        q_taken = q_values[packing.starts].gather(2, actions).squeeze(2)
        state = packing.pack(batch["state"])
        with torch.no_grad():
            q_next = self._next_values(batch, packing, inputs, q_values)
            if self.mixer is not None:
                q_next = _mix(self.target_mixer, q_next, state[packing.ends])
            target = self._targets(batch, packing, q_next)
        if self.mixer is not None:
            q_taken = _mix(self.mixer, q_taken, state[packing.starts])
        td_error = q_taken - target
        return TdLoss(td_error.square().mean(), td_error.detach(), q_taken.detach(), target)

    def _next_values(
        self, batch: Any, packing: Packing, inputs: torch.Tensor, q_values: torch.Tensor
    ) -> torch.Tensor:
        """Target networks' value of the best action in the states that transitions lead to: (P, N)."""
        is_unavailable = packing.pack(batch["avail_actions"])[packing.ends] == 0
        q_target, _ = self.target_mac.agent.sequence(inputs, packing.counts)
        q_target = q_target[packing.ends].masked_fill(is_unavailable, _NEVER)
        if not self.args.double_q:
            return q_target.max(dim=2).values
        best = q_values[packing.ends].masked_fill(is_unavailable, _NEVER).argmax(dim=2, keepdim=True)
        return q_target.gather(2, best).squeeze(2)

    def _targets(self, batch: Any, packing: Packing, q_next: torch.Tensor) -> torch.Tensor:
        """TD(λ) targets (P, V) from the values (P, V) of the next states."""
        rewards = batch["reward"][:, :-1]
        if self.args.standardise_rewards:
            self.rew_ms.update(rewards)
            rewards = (rewards - self.rew_ms.mean) / torch.sqrt(self.rew_ms.var)
        at = packing.index[packing.starts]
        n_all = packing.shape[0] * packing.shape[1]
        values = q_next.new_zeros(n_all, q_next.shape[1]).index_copy(0, at, q_next)
        is_step = q_next.new_zeros(n_all, 1).index_fill(0, at, 1.0)
        targets = lambda_returns(
            rewards,
            batch["terminated"][:, :-1].float(),
            values.unflatten(0, packing.shape)[:, :-1],
            is_step.unflatten(0, packing.shape)[:, :-1],
            self.args.gamma,
            self.config.td_lambda,
        )
        return nn.functional.pad(targets, (0, 0, 0, 1)).flatten(0, 1)[at]

    def _td_stats(self, td: TdLoss) -> dict[str, torch.Tensor]:
        return {
            "loss": td.loss.detach(),
            "td_error_abs": td.td_error.abs().mean(),
            "q_taken_mean": td.q_taken.mean() / self.n_agents,
            "target_mean": td.target.mean() / self.n_agents,
        }

    def _check_finite(self, name: str, loss: torch.Tensor, t_env: int) -> None:
        if not torch.isfinite(loss):
            raise LimaskError(
                f"{name} is {loss.item()} at t_env={t_env}, SGD step {self.training_steps + 1}: "
                "training stops before the networks are spoiled; "
                f"last checkpoint: {self.checkpoint}; config: {self.config}"
            )

    def cuda(self) -> None:
        """Move everything to the GPU."""
        super().cuda()  # type: ignore[misc]
        if self.reconstruction is not None:
            self.reconstruction.to(torch.device("cuda"))

    def save_models(self, path: str) -> None:
        """Host's files, and ``autoencoder.th`` where the run has an autoencoder."""
        super().save_models(path)  # type: ignore[misc]
        if self.reconstruction is not None:
            temporary = os.path.join(path, "autoencoder.th.part")
            torch.save(self.reconstruction.state_dict(), temporary)
            os.replace(temporary, os.path.join(path, "autoencoder.th"))
        self.checkpoint = str(path)

    def load_models(self, path: str) -> None:
        """Host's files, and ``autoencoder.th`` where the run has an autoencoder.

        Raises:
            LimaskError: the checkpoint was written by a run without one.
        """
        file = os.path.join(path, "autoencoder.th")
        if self.reconstruction is not None and not os.path.exists(file):
            raise LimaskError(
                f"checkpoint {path} has no autoencoder.th: it was written by a run with "
                "lim.autoencoder=none; load it with lim.autoencoder=none lim.masker=none lim.lambda_rec=0"
            )
        super().load_models(path)  # type: ignore[misc]
        if self.reconstruction is not None:
            device = next(self.agent.parameters()).device
            self.reconstruction.load_state_dict(torch.load(file, map_location=device))


def _mix(mixer: nn.Module, q_values: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    """Q_tot (P, 1) of agents' values (P, N); the hosts' mixers take episodes, here of one step each."""
    return mixer(q_values.unsqueeze(1), state.unsqueeze(1)).squeeze(1)
