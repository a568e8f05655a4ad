"""The reconstruction objective: hide tokens, encode what is left, decode what was hidden.

Axes: B episodes, T time steps, M filled steps, N agents, K tokens, O features of an observation, D of an
agent's input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from limask import masking
from limask.acting.agent import LimAgent
from limask.autoencoder import TokenAutoencoder, Truth
from limask.autoencoder.losses import Scored
from limask.layouts import token_starts, tokens
from limask.layouts.teammates import known_from_state, known_from_teammates
from limask.learning.trainer import Trainer
from limask.learning.update import Update
from limask.networks.packing import Packing
from limask.protocols import State


class Look(NamedTuple):
    """What is hidden in some episodes and how well it is reconstructed, (B, T, N, K) each: ``is_hidden`` and
    ``is_scored`` bool, and the scored tokens' mean squared ``error``, zero for the others."""

    is_hidden: torch.Tensor
    is_scored: torch.Tensor
    error: torch.Tensor


class _HiddenView(NamedTuple):
    """Episodes of which tokens are hidden: what is or would be visible, which of these are ``candidates`` for
    hiding and which ``is_hidden``, each (M, N, K) bool; the agents' ``inputs`` (M, N, D) that are left; and
    on these hidden ``states``, and Q-values (M, N, A) where the agent was run."""

    is_visible: torch.Tensor
    candidates: torch.Tensor
    is_hidden: torch.Tensor
    inputs: torch.Tensor
    q_values: torch.Tensor | None
    states: torch.Tensor


class Reconstruction(Trainer):
    """Trains an autoencoder of tokens.

    Args:
        agent: its config names the masker; it encodes the hidden view where the autoencoder shares its
            encoder.
        autoencoder: what reconstructs.
        seed: seeds the masks.
        max_norm: gradients of the autoencoder, and those it sends into the agent, are clipped to this norm
            each.
        teacher: target network, whose embeddings of tokens are reconstructed with ``latent``, and whose
            values of the full view those of the hidden view are drawn to with ``view.weight``; not needed
            without.
    """

    autoencoder: TokenAutoencoder

    def __init__(
        self,
        agent: LimAgent,
        autoencoder: TokenAutoencoder,
        seed: int,
        max_norm: float,
        teacher: LimAgent | None = None,
    ) -> None:
        config, self.agent, self.layout, self.teacher = agent.config, agent, agent.layout, teacher
        # One with nothing to train has an optimiser, too, of no parameters: torch takes an empty group.
        self.own = list(autoencoder.parameters())
        optimiser = torch.optim.Adam([{"params": self.own}], lr=config.autoencoder.lr, fused=True)
        masker = masking.build(config, self.layout)
        super().__init__(autoencoder, masker, optimiser, config, seed, max_norm)
        self.targets = self.layout.rec_targets(config.autoencoder.targets)
        self.knows_better = config.autoencoder.denoise and self.targets == "state"
        # Where nothing is hidden, all that could be is reconstructed: the plain autoencoder.
        self.scores_all = autoencoder.scores_all or config.masker.name == "none"
        self.to(next(agent.parameters()).device)

    def to(self, device: torch.device) -> None:
        """See ``Trainer.to``."""
        super().to(device)
        self.is_hideable = tokens.hideable(self.layout, device)
        self.max_entropy = math.log(max(2, int(self.is_hideable.sum())))

    def beside(self, update: Update) -> dict[str, torch.Tensor]:
        """See ``Trainer.beside``: the gradients of the reconstruction, and of the hidden view's values, are
        added to the agent's."""
        if self.config.autoencoder.weight + self.config.view.weight == 0:
            return {}
        part = update.first(self.n_episodes(update.batch))
        masks = self.masks(part) if part.masks is None else part.masks
        view = self._hide(*self._split(part.inputs), part.packing, masks)
        rec, stats = self._loss(part, view, masks)
        part.check("reconstruction loss", rec)
        of_view = None
        if self.config.view.weight > 0 and part.t_env >= self.config.autoencoder.warmup:
            of_view = self._view_loss(part, view)
            part.check("hidden view's loss", of_view)
            stats["view_loss"] = of_view.detach()
        return stats | {"rec_loss": rec.detach()} | self.step(rec, of_view, part)

    def masks(self, update: Update) -> torch.Tensor:
        """What the masker hides in the episodes of an update: (B, T, N, K) bool, True = hidden."""
        packing, (obs, _) = update.packing, self._split(update.inputs)
        is_visible = tokens.visibility(obs, self.layout)
        is_filled = packing.unpack(torch.ones_like(packing.index, dtype=torch.bool))
        hints = update.hints(self.masker.needs(update.t_env))
        view = masking.MaskView(packing.unpack(obs), packing.unpack(is_visible), is_filled, *hints)
        return masking.hidden_tokens(self.masker, view, self.is_hideable, self.generator)

    def _loss(
        self, update: Update, view: _HiddenView, masks: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """L_rec of an update's episodes with tokens hidden by ``masks`` (B, T, N, K), and what is to be
        logged; the masker learns from it. What faults took from the observations is reconstructed as if the
        masker had hidden it."""
        packing, (obs, rest) = update.packing, self._split(update.inputs)
        known = packing.pack(update.batch["state"]) if self.targets == "state" else None
        is_visible, is_taken = view.is_visible, view.is_hidden
        if update.truth is not None:
            obs, is_visible = update.truth, tokens.visibility(update.truth, self.layout)
            is_taken = is_taken | (is_visible & ~view.is_visible)
        is_scored = (is_visible if self.scores_all else is_taken) & self.is_hideable
        truth = self._truth(obs, is_visible, is_scored, known)
        if self.config.autoencoder.saliency_weights:
            truth = truth._replace(weights=packing.pack(update.signal("saliency")))
        scored, truth = self._score(view.states, truth, rest)
        self.masker.learn(masks, packing.unpack(scored.error))
        return scored.loss, self._stats(view.is_hidden, view.candidates, truth, scored.error)

    def _view_loss(self, update: Update, view: _HiddenView) -> torch.Tensor:
        """The loss ``view.loss`` of the agent's values of the hidden view."""
        counts, q_values = update.packing.counts, view.q_values
        if q_values is None or not q_values.requires_grad:
            q_values, _ = self.agent.sequence(view.inputs, counts)
        if self.config.view.loss == "td":
            return update.hidden_view_loss(q_values, None)
        full = update.inputs
        if update.truth is not None:
            full = torch.cat([update.truth, self._split(full)[1]], dim=-1)
        assert self.teacher is not None
        with torch.no_grad():
            q_full, _ = self.teacher.sequence(full, counts)
        return update.hidden_view_loss(q_values, q_full)

    @torch.no_grad()
    def look(self, update: Update) -> Look:
        """Masks for all episodes of an update and the errors of what the agents saw themselves. Nothing is
        learned, neither by the autoencoder and its statistics nor by the masker."""
        masks, (obs, rest) = self.masks(update), self._split(update.inputs)
        view = self._hide(obs, rest, update.packing, masks)
        truth = Truth(obs, view.candidates if self.scores_all else view.is_hidden)
        scored, truth = self._score(view.states, truth, rest, updates_statistics=False)
        return Look(masks, update.packing.unpack(truth.is_scored), update.packing.unpack(scored.error))

    def _split(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs (M, N, D) → observations (M, N, O) and the rest (M, N, D − O)."""
        return inputs[..., : self.layout.obs_size], inputs[..., self.layout.obs_size :]

    def _hide(
        self, obs: torch.Tensor, rest: torch.Tensor, packing: Packing, masks: torch.Tensor
    ) -> _HiddenView:
        """Hide tokens of observations (M, N, O), which may be hidden already, and encode what is left."""
        is_hidden = packing.pack(masks)
        is_visible = tokens.visibility(obs, self.layout) | is_hidden
        hidden_view = torch.cat([tokens.hide(obs, is_hidden, self.layout), rest], dim=-1)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.autoencoder.detach_trunk):
            encoded = self.autoencoder.encode(hidden_view, packing.counts, self.agent.sequence)
        return _HiddenView(is_visible, is_visible & self.is_hideable, is_hidden, hidden_view, *encoded)

    def _truth(
        self,
        obs: torch.Tensor,
        is_visible: torch.Tensor,
        is_scored: torch.Tensor,
        state: torch.Tensor | None,
    ) -> Truth:
        """What is known of observations (M, N, O) of which the tokens in ``is_scored`` are reconstructed, and
        of the tokens that teammates, or the states (M, S) where they are given, know of. Of tokens that are
        to be denoised the states are believed, and not what is shown."""
        if self.targets == "own":
            return Truth(obs, is_scored)
        if state is None:
            known = known_from_teammates(obs, self.layout)
        else:
            known = known_from_state(state, obs.shape[1], self.layout)
        is_unseen = known.is_token & ~is_visible
        is_shown = tokens.features_of(is_visible, self.layout, obs.dtype) > 0
        is_true = is_shown & ~known.is_feature if self.knows_better else is_shown
        obs = torch.where(is_true, obs, known.obs)
        return Truth(obs, is_scored | is_unseen, known.is_feature | is_shown, is_unseen=is_unseen)

    def _score(
        self, states: torch.Tensor, truth: Truth, rest: torch.Tensor, *, updates_statistics: bool = True
    ) -> tuple[Scored, Truth]:
        """Reconstruct from hidden states (M, N, H); ``rest`` (M, N, D − O) of the agents' inputs. The truth
        is returned with the tokens that were reconstructed."""
        if not self.config.autoencoder.latent:
            return self.autoencoder.loss(states, truth, updates_statistics=updates_statistics), truth
        if truth.is_known is not None:
            # Half a token would have another embedding.
            parts = tokens.split(truth.is_known, self.layout).values()
            is_whole = torch.cat([part.all(dim=-1) for part in parts], dim=-1)
            truth = truth._replace(is_scored=truth.is_scored & is_whole)
        assert self.teacher is not None
        with torch.no_grad():
            embedded = self.teacher.fc1(torch.cat([truth.obs, rest], dim=-1).flatten(0, 1)).entities
        scored = self.autoencoder.loss_of_embeddings(
            states, embedded, truth, updates_statistics=updates_statistics
        )
        return scored, truth

    @torch.no_grad()
    def _stats(
        self,
        is_hidden: torch.Tensor,
        candidates: torch.Tensor,
        truth: Truth,
        error: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Shares of what could be hidden that was, and errors, of all tokens and by kind."""
        hidden, scored, possible = (
            values.flatten(0, -2).sum(dim=0) for values in (is_hidden, truth.is_scored, candidates)
        )
        errors = error.flatten(0, -2).sum(dim=0)
        stats = {"mask_rate": hidden.sum() / possible.sum().clamp(min=1)}
        kinds = self.layout.kinds
        for group, first in zip(self.layout.groups, token_starts(self.layout), strict=True):
            if group.kind in kinds:
                of = slice(first, first + group.count)
                stats[f"mask_rate_{group.kind}"] = hidden[of].sum() / possible[of].sum().clamp(min=1)
                stats[f"rec_error_{group.kind}"] = errors[of].sum() / scored[of].sum().clamp(min=1)
        # Of which tokens are hidden: 1 where all are hidden equally often, 0 where it is always the same one.
        share = hidden / hidden.sum().clamp(min=1)
        entropy = -torch.special.xlogy(share, share).sum()
        stats["mask_entropy"] = entropy / self.max_entropy
        if truth.is_unseen is not None:
            is_unseen = truth.is_unseen & truth.is_scored
            stats["rec_error_unseen"] = (error * is_unseen).sum() / is_unseen.sum().clamp(min=1)
        return stats

    def step(
        self, rec: torch.Tensor, of_view: torch.Tensor | None, update: Update
    ) -> dict[str, torch.Tensor]:
        """Step the autoencoder, and add the gradients of λ_rec · ``rec`` and λ_view · ``of_view`` to the
        agent's; returns their norms, which are to be logged.

        The agent's gradients from the TD loss are there already, clipped: they are what they would be without
        an autoencoder. Until ``warmup`` environment steps the reconstruction trains the decoder only;
        from one with an encoder of its own no gradient ever reaches the agent.

        Raises:
            LimaskError: a gradient is not finite; the networks are as they were.
        """
        own, shares_encoder = self.own, self.autoencoder.shares_encoder
        is_shared = (
            shares_encoder
            and not self.config.autoencoder.detach_trunk
            and update.t_env >= self.config.autoencoder.warmup
        )
        if not shares_encoder:
            rec = self.config.autoencoder.weight * rec
        shared = self.agent.q_parameters() if is_shared or of_view is not None else []
        norms = {"rec_grad_norm": rec.new_zeros(())}
        is_scored = rec.requires_grad
        if is_scored:
            wanted = own + shared if is_shared else own
            is_last = of_view is None
            gradients = torch.autograd.grad(rec, wanted, retain_graph=not is_last, allow_unused=True)
            for parameter, gradient in zip(own, gradients, strict=False):
                # Adam, fused, takes any gradient to be laid out as its parameter is, whatever its strides.
                parameter.grad = None if gradient is None else gradient.contiguous()
            own_norm = nn.utils.clip_grad_norm_(own, self.max_norm)
            update.check("norm of the reconstruction loss's gradient", own_norm)
            if not shares_encoder:
                norms["rec_grad_norm"] = own_norm
            if is_shared:
                norms["rec_grad_norm"] = self._share(shared, gradients[len(own) :], update)
        if of_view is not None:
            of_agent = torch.autograd.grad(of_view, shared, allow_unused=True)
            weight, name = self.config.view.weight, "norm of the hidden view's gradient"
            check = partial(update.check, name)
            norms["view_grad_norm"] = _add_clipped(shared, of_agent, weight, self.max_norm, check)
        if is_scored:
            self.optimiser.step()
        return norms

    def _share(
        self, shared: list[nn.Parameter], gradients: tuple[torch.Tensor | None, ...], update: Update
    ) -> torch.Tensor:
        """Add the reconstruction's gradients to the agent's; returns their norm."""
        weight = self.config.autoencoder.weight
        if self.config.autoencoder.balance == "gradient":
            # The reconstruction's gradient becomes the share λ_rec of the TD loss's, over what both train.
            pairs = [
                (parameter.grad, gradient)
                for parameter, gradient in zip(shared, gradients, strict=True)
                if gradient is not None and parameter.grad is not None
            ]
            if not pairs:
                return torch.zeros(())
            td, rec = (nn.utils.get_total_norm(list(part)) for part in zip(*pairs, strict=True))
            weight = weight * float(td / rec.clamp(min=1e-12))
        check = partial(update.check, "norm of the reconstruction loss's gradient")
        return _add_clipped(shared, gradients, weight, self.max_norm, check)

    def state_dict(self) -> State:
        """See ``Trainer.state_dict``; the autoencoder is kept here too, for it may stand beside the agent."""
        return super().state_dict() | {"decoder": self.autoencoder.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """See ``Trainer.load_state_dict``."""
        self.autoencoder.load_state_dict(state["decoder"])
        super().load_state_dict(state)


def _add_clipped(
    parameters: list[nn.Parameter],
    gradients: tuple[torch.Tensor | None, ...],
    weight: float,
    max_norm: float,
    check: Callable[[torch.Tensor], None],
) -> torch.Tensor:
    """Add weighted gradients, scaled down to a joint norm of at most ``max_norm``; returns their norm before
    that, with which ``check`` is called before anything is added."""
    used = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]
    if not used:
        return torch.zeros(())
    norm = weight * nn.utils.get_total_norm([gradient for _, gradient in used])
    check(norm)
    scale = weight * (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for parameter, gradient in used:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad.add_(gradient * scale)
    return norm
