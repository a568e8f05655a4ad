"""The learner: the host's Q-learner with a reconstruction objective beside its TD loss.

Axes: B episodes, T time steps, N agents, A actions, K tokens, H hidden size; M is N without a mixer, 1 with.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
from torch import nn

from limask import autoencoder, masking, tokens
from limask.agent import LimAgent
from limask.config import LimConfig
from limask.errors import LimaskError
from limask.packing import Packing

#: Large enough to lose against every available action, as the hosts write it.
_NEVER = -9999999.0


class TdLoss(NamedTuple):
    """``loss`` and what is logged of it, over the P transitions: ``td_error``, ``q_taken``, ``target`` (P, M)."""

    loss: torch.Tensor
    td_error: torch.Tensor
    q_taken: torch.Tensor
    target: torch.Tensor


class LimLearner:
    """Mixed in before a host's ``QLearner``, which brings mixers, optimiser, target networks, reward
    statistics and checkpoints. ``host`` is set by the class that joins the two."""

    host: Any

    def __init__(self, mac: Any, scheme: Any, logger: Any, args: Any) -> None:
        super().__init__(mac, scheme, logger, args)  # type: ignore[call-arg]
        self.agent: LimAgent = mac.agent
        self.config: LimConfig = mac.agent.config
        layout = mac.agent.layout
        device = next(self.agent.parameters()).device
        self.masker = masking.REGISTRY[self.config.masker](self.config, layout)
        self.is_hideable = tokens.hideable(layout, device)
        self.generator = torch.Generator(device).manual_seed(int(args.seed))
        build = autoencoder.REGISTRY[self.config.autoencoder]
        self.autoencoder = build(layout, self.agent.spec.hidden_dim, self.config.decoder_dim) if build else None
        if self.autoencoder is not None:
            self.autoencoder.to(device)
            self.decoder_optimiser = torch.optim.Adam(self.autoencoder.parameters(), lr=self.config.decoder_lr)
        self.checkpoint = "none saved yet"

    def train(self, batch: Any, t_env: int, episode_num: int) -> None:
        """Make ``minibatches`` SGD steps of one sampled batch.

        Raises:
            LimaskError: a loss is not finite; nothing has been changed by it.
        """
        n_steps = self.config.n_minibatches(batch.batch_size)
        bounds = [batch.batch_size * i // n_steps for i in range(n_steps + 1)]
        for first, end in zip(bounds, bounds[1:]):
            part = batch[first:end] if n_steps > 1 else batch
            part = part[:, : part.max_t_filled()]
            stats = self._update(part, t_env, episode_num)
        if t_env - self.log_stats_t >= self.args.learner_log_interval:
            for key, value in stats.items():
                self.logger.log_stat(key, value.item(), t_env)
            self.log_stats_t = t_env

    def _update(self, batch: Any, t_env: int, episode_num: int) -> dict[str, torch.Tensor]:
        packing = Packing(batch["filled"].squeeze(-1).bool())
        inputs = self.mac.sequence_inputs(batch, packing)
        q_values, _ = self.agent.sequence(inputs, packing.counts)
        td = self._td_loss(batch, packing, inputs, q_values)
        self._check_finite("TD loss", td.loss, t_env)
        self.optimiser.zero_grad()
        td.loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(self.params, self.args.grad_norm_clip)
        stats = self._td_stats(td) | {"grad_norm": grad_norm}
        if self.autoencoder is not None and self.config.lambda_rec > 0:
            stats |= self._reconstruct(batch, packing, inputs, t_env)
        self.optimiser.step()
        self.host.update_targets(self, episode_num)
        return stats

    # -- TD ------------------------------------------------------------------------------------------

    def _td_loss(self, batch: Any, packing: Packing, inputs: torch.Tensor, q_values: torch.Tensor) -> TdLoss:
        """Mean squared TD error of the transitions, with the hosts' own arithmetic."""
        args, starts, ends = self.args, packing.starts, packing.ends
        rewards = batch["reward"][:, :-1]
        if args.standardise_rewards:
            self.rew_ms.update(rewards)
            rewards = (rewards - self.rew_ms.mean) / torch.sqrt(self.rew_ms.var)
        state = packing.pack(batch["state"])
        actions = packing.pack(batch["actions"])[starts]
        q_taken = q_values[starts].gather(2, actions).squeeze(2)
        with torch.no_grad():
            q_next = self._target_values(packing.pack(batch["avail_actions"])[ends] == 0, packing, inputs, q_values)
            if self.mixer is not None:
                q_next = _mix(self.target_mixer, q_next, state[ends])
        if self.mixer is not None:
            q_taken = _mix(self.mixer, q_taken, state[starts])
        target = self._targets(batch, packing, rewards, q_next)
        td_error = q_taken - target
        return TdLoss(td_error.square().mean(), td_error.detach(), q_taken.detach(), target)

    def _targets(self, batch: Any, packing: Packing, rewards: torch.Tensor, q_next: torch.Tensor) -> torch.Tensor:
        """TD(λ) targets (P, M) from the values ``q_next`` (P, M) of the next states."""
        at = packing.index[packing.starts]
        terminated = batch["terminated"].float()
        if self.config.td_lambda == 0:
            terminated, rewards = terminated.flatten(0, 1)[at], _padded(rewards).flatten(0, 1)[at]
            return rewards + self.args.gamma * (1 - terminated) * q_next
        n_episodes, n_steps = packing.shape
        values = q_next.new_zeros(n_episodes * n_steps, q_next.shape[1]).index_copy(0, at, q_next)
        is_step = q_next.new_zeros(n_episodes * n_steps, 1).index_fill(0, at, 1.0)
        targets = lambda_returns(
            rewards,
            terminated[:, :-1],
            values.unflatten(0, packing.shape)[:, :-1],
            is_step.unflatten(0, packing.shape)[:, :-1],
            self.args.gamma,
            self.config.td_lambda,
        )
        return _padded(targets).flatten(0, 1)[at]

    def _target_values(
        self, is_unavailable: torch.Tensor, packing: Packing, inputs: torch.Tensor, q_values: torch.Tensor
    ) -> torch.Tensor:
        """Target networks' value of the next states' best actions: (P, N)."""
        q_target, _ = self.target_mac.agent.sequence(inputs, packing.counts)
        q_target = q_target[packing.ends].masked_fill(is_unavailable, _NEVER)
        if not self.args.double_q:
            return q_target.max(dim=2).values
        best = q_values.detach()[packing.ends].masked_fill(is_unavailable, _NEVER).argmax(dim=2, keepdim=True)
        return q_target.gather(2, best).squeeze(2)

    def _td_stats(self, td: TdLoss) -> dict[str, torch.Tensor]:
        return {
            "loss": td.loss.detach(),
            "td_error_abs": td.td_error.abs().mean(),
            "q_taken_mean": td.q_taken.mean() / self.n_agents,
            "target_mean": td.target.mean() / self.n_agents,
        }

    # -- reconstruction ------------------------------------------------------------------------------

    def _reconstruct(
        self, batch: Any, packing: Packing, inputs: torch.Tensor, t_env: int
    ) -> dict[str, torch.Tensor]:
        """Add the gradient of λ_rec · L_rec to the agent's, and step the decoder.

        The two losses are clipped apart: the TD gradient is what it would be without an autoencoder.
        """
        layout = self.agent.layout
        obs, rest = inputs[..., : layout.obs_size], inputs[..., layout.obs_size :]
        visible = tokens.visibility(obs, layout)
        is_visible = packing.unpack(visible)
        is_hidden = packing.pack(
            masking.hidden_tokens(self.masker, is_visible, self.is_hideable, self.generator)
        )
        hidden_view = torch.cat([tokens.hide(obs, is_hidden, layout), rest], dim=-1)
        with torch.set_grad_enabled(not self.config.detach_trunk):
            _, states = self.agent.sequence(hidden_view, packing.counts)
        # The plain autoencoder hides nothing and reconstructs all that can be hidden.
        is_scored = visible & self.is_hideable if self.config.masker == "none" else is_hidden
        loss = self.autoencoder.loss(states, obs, is_scored)
        self._check_finite("reconstruction loss", loss, t_env)
        own = list(self.autoencoder.parameters())
        shared = [] if self.config.detach_trunk else list(self.agent.parameters())
        gradients = torch.autograd.grad(self.config.lambda_rec * loss, own + shared, allow_unused=True)
        for_decoder, for_agent = gradients[: len(own)], gradients[len(own) :]
        for parameter, gradient in zip(own, for_decoder):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(own, self.args.grad_norm_clip)
        self.decoder_optimiser.step()
        norm = _add_clipped(shared, for_agent, self.args.grad_norm_clip)
        n_visible = (visible & self.is_hideable).sum().clamp(min=1)
        return {"rec_loss": loss.detach(), "rec_grad_norm": norm, "mask_rate": is_hidden.sum() / n_visible}

    def _check_finite(self, name: str, loss: torch.Tensor, t_env: int) -> None:
        if not torch.isfinite(loss):
            raise LimaskError(
                f"{name} is {loss.item()} at t_env={t_env}, SGD step {self.training_steps + 1}: training stops "
                f"before the networks are spoiled; last checkpoint: {self.checkpoint}; config: {self.config}"
            )

    # -- host's devices and checkpoints --------------------------------------------------------------

    def cuda(self) -> None:
        """Move everything to the GPU."""
        super().cuda()  # type: ignore[misc]
        self.is_hideable = self.is_hideable.cuda()
        self.generator = torch.Generator("cuda").manual_seed(self.generator.initial_seed())
        if self.autoencoder is not None:
            self.autoencoder.cuda()

    def save_models(self, path: str) -> None:
        """Host's files, and ``autoencoder.th`` (decoder, its statistics and its optimiser)."""
        super().save_models(path)  # type: ignore[misc]
        if self.autoencoder is not None:
            state = {"model": self.autoencoder.state_dict(), "optimiser": self.decoder_optimiser.state_dict()}
            temporary = os.path.join(path, "autoencoder.th.part")
            torch.save(state, temporary)
            os.replace(temporary, os.path.join(path, "autoencoder.th"))
        self.checkpoint = str(path)

    def load_models(self, path: str) -> None:
        """Host's files, and ``autoencoder.th`` where the run has an autoencoder.

        Raises:
            LimaskError: the checkpoint was written by a run without one.
        """
        super().load_models(path)  # type: ignore[misc]
        if self.autoencoder is None:
            return
        file = os.path.join(path, "autoencoder.th")
        if not os.path.exists(file):
            raise LimaskError(
                f"checkpoint {path} has no autoencoder.th: it was written by a run with lim.autoencoder='none'; "
                "load it with that setting (and lim.masker='none' lim.lambda_rec=0)"
            )
        state = torch.load(file, map_location=next(self.agent.parameters()).device)
        self.autoencoder.load_state_dict(state["model"])
        self.decoder_optimiser.load_state_dict(state["optimiser"])


def lambda_returns(
    rewards: torch.Tensor,
    terminated: torch.Tensor,
    q_next: torch.Tensor,
    is_filled: torch.Tensor,
    gamma: float,
    td_lambda: float,
) -> torch.Tensor:
    """TD(λ) targets (Sutton & Barto, 2nd ed., §12.1) over the steps of each episode.

    ``G_t = r_t + γ (1 − terminated_t) [(1 − λ) Q_{t+1} + λ G_{t+1}]``; the last filled step, and every step
    with λ = 0, bootstraps from ``q_next`` alone.

    Args:
        rewards: (B, T−1, 1 or N).
        terminated: (B, T−1, 1), 1 where the episode ended in that step.
        q_next: (B, T−1, M), value of the next state.
        is_filled: (B, T−1, 1), 1 where the step belongs to the episode.
        gamma: discount factor.
        td_lambda: λ.

    Returns:
        Targets, in the shape to which rewards and ``q_next`` broadcast.
    """
    discount = gamma * (1 - terminated)
    targets = rewards + discount * q_next
    if td_lambda == 0:
        return targets
    later = targets[:, -1]
    steps = [later]
    for t in range(targets.shape[1] - 2, -1, -1):
        share = td_lambda * is_filled[:, t + 1]
        later = targets[:, t] + discount[:, t] * share * (later - q_next[:, t])
        steps.append(later)
    return torch.stack(steps[::-1], dim=1)


def _padded(values: torch.Tensor) -> torch.Tensor:
    """(B, T − 1, …) → (B, T, …) with a last step of zeros."""
    return nn.functional.pad(values, (0, 0, 0, 1))


def _mix(mixer: nn.Module, q_values: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    """Q_tot (P, 1) of agents' values (P, N); hosts' mixers take episodes, here of one step each."""
    return mixer(q_values.unsqueeze(1), state.unsqueeze(1)).squeeze(1)


def _add_clipped(
    parameters: list[nn.Parameter], gradients: tuple[torch.Tensor | None, ...], max_norm: float
) -> torch.Tensor:
    """Add gradients, scaled down to a joint norm of at most ``max_norm``; returns their norm before that."""
    used = [(p, g) for p, g in zip(parameters, gradients) if g is not None]
    if not used:
        return torch.zeros(())
    norm = nn.utils.get_total_norm([g for _, g in used])
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for parameter, gradient in used:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad.add_(gradient * scale)
    return norm
