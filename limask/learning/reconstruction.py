"""The reconstruction objective: hide tokens, encode what is left, decode what was hidden.

Axes: B episodes, T time steps, M filled steps, N agents, K tokens, O features of an observation, D of an
agent's input.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import nn

from limask import masking
from limask.acting.agent import LimAgent
from limask.autoencoder import BeliefAutoencoder, EntityAutoencoder
from limask.autoencoder.losses import Scored
from limask.layouts import token_starts, tokens
from limask.layouts.teammates import tell, tell_from_state
from limask.networks.packing import Packing


class Hints(NamedTuple):
    """What the learner knows of the episodes beyond their observations; see ``masking.MaskView``.

    ``t_env`` environment steps; ``td_error`` (B, T, N), ``saliency`` and ``dependence`` (B, T, N, K), each
    None where ``Reconstruction.needs`` does not name it.
    """

    t_env: int = 0
    td_error: torch.Tensor | None = None
    saliency: torch.Tensor | None = None
    dependence: torch.Tensor | None = None


class RecLoss(NamedTuple):
    """``loss``, a scalar; ``q_values`` (M, N, A) of the hidden view, None where the agent is not run on it;
    ``stats``, scalars to be logged."""

    loss: torch.Tensor
    q_values: torch.Tensor | None
    stats: dict[str, torch.Tensor]


class Truth(NamedTuple):
    """What is reconstructed.

    Attributes:
        obs: (M, N, O) what the agents observed, and with ``rec_targets: team`` what their teammates saw, too,
            or with ``state`` what there was to see.
        is_scored: (M, N, K) bool, tokens that are reconstructed.
        is_unseen: (M, N, K) bool, those of them that the agent did not see; None with ``rec_targets: own``.
        is_known: (M, N, O) bool, features that are known; None = all.
    """

    obs: torch.Tensor
    is_scored: torch.Tensor
    is_unseen: torch.Tensor | None = None
    is_known: torch.Tensor | None = None


class Reconstruction:
    """Masker, autoencoder and the autoencoder's own optimiser.

    Args:
        agent: its config names the masker; its trunk and GRU encode the hidden view for autoencoder
            ``entity``.
        autoencoder: ``entity``, a decoder over the agent's hidden states, or ``belief``, with an encoder.
        seed: seeds the masks.
        max_norm: gradients of the autoencoder, and those it sends into the agent, are clipped to this norm
            each.
        teacher: target network, whose embeddings of tokens are reconstructed with ``rec_latent``; not needed
            without.
    """

    def __init__(
        self,
        agent: LimAgent,
        autoencoder: EntityAutoencoder | BeliefAutoencoder,
        seed: int,
        max_norm: float,
        teacher: LimAgent | None = None,
    ) -> None:
        self.agent, self.config, self.layout = agent, agent.config, agent.layout
        self.autoencoder, self.max_norm, self.seed, self.teacher = autoencoder, max_norm, seed, teacher
        self.targets = self.layout.rec_targets(self.config.rec_targets)
        is_belief = isinstance(autoencoder, BeliefAutoencoder)
        self.decoder = autoencoder.decoder if isinstance(autoencoder, BeliefAutoencoder) else autoencoder
        # The plain autoencoder hides nothing and reconstructs all that could be hidden; ``belief`` as much.
        self.scores_all = is_belief or self.config.masker == "none"
        self.optimiser = torch.optim.Adam(autoencoder.parameters(), lr=self.config.decoder_lr, fused=True)
        self.masker = masking.build(self.config, self.layout)
        self.to(next(agent.parameters()).device)

    def to(self, device: torch.device) -> None:
        """Move to a device; the stream of masks starts anew there."""
        self.autoencoder.to(device)
        self.is_hideable = tokens.hideable(self.layout, device)
        self.max_entropy = math.log(max(2, int(self.is_hideable.sum())))
        self.generator = torch.Generator(device).manual_seed(self.seed)

    def needs(self, t_env: int) -> frozenset[masking.Signal]:
        """Signals that ``loss`` reads from its hints at ``t_env`` environment steps."""
        weighted: frozenset[masking.Signal] = frozenset({"saliency"} if self.config.rec_weights else ())
        return self.masker.needs(t_env) | weighted

    def loss(self, inputs: torch.Tensor, packing: Packing, hints: Hints, state: torch.Tensor) -> RecLoss:
        """L_rec of the filled steps' agent inputs (M, N, D), in the order of ``packing``, in episodes of
        global states (B, T, S); the masker learns from it."""
        obs, rest = inputs[..., : self.layout.obs_size], inputs[..., self.layout.obs_size :]
        is_visible = tokens.visibility(obs, self.layout)
        is_filled = packing.unpack(torch.ones_like(packing.index, dtype=torch.bool))
        view = masking.MaskView(packing.unpack(obs), packing.unpack(is_visible), is_filled, *hints)
        masks = masking.hidden_tokens(self.masker, view, self.is_hideable, self.generator)
        is_hidden = packing.pack(masks)
        hidden_view = torch.cat([tokens.hide(obs, is_hidden, self.layout), rest], dim=-1)
        q_values, states = self._encode(hidden_view, packing)
        candidates = is_visible & self.is_hideable
        is_scored = candidates if self.scores_all else is_hidden
        known = packing.pack(state) if self.targets == "state" else None
        truth = self._truth(obs, is_visible, is_scored, known)
        weights = (
            packing.pack(hints.saliency) if self.config.rec_weights and hints.saliency is not None else None
        )
        scored, truth = self._score(states, truth, rest, weights)
        self.masker.learn(masks, packing.unpack(scored.error))
        return RecLoss(scored.loss, q_values, self._stats(is_hidden, candidates, truth, scored.error))

    def _encode(self, view: torch.Tensor, packing: Packing) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Q-values (M, N, A), of autoencoder ``entity``, and hidden states (M, N, H) on a view (M, N, D)."""
        if isinstance(self.autoencoder, BeliefAutoencoder):
            return None, self.autoencoder.sequence(view, packing.counts)
        with torch.set_grad_enabled(not self.config.detach_trunk):
            return self.agent.sequence(view, packing.counts)

    def _truth(
        self,
        obs: torch.Tensor,
        is_visible: torch.Tensor,
        is_scored: torch.Tensor,
        state: torch.Tensor | None,
    ) -> Truth:
        """What is known of observations (M, N, O) of which the tokens in ``is_scored`` are reconstructed, and
        of the tokens that teammates, or the states (M, S) where they are given, know of."""
        if self.targets == "own":
            return Truth(obs, is_scored)
        if state is None:
            told = tell(obs, self.layout)
        else:
            told = tell_from_state(state, obs.shape[1], self.layout)
        is_unseen = told.is_token & ~is_visible
        is_shown = tokens.features_of(is_visible, self.layout, obs.dtype) > 0
        obs = torch.where(is_shown, obs, told.obs)
        return Truth(obs, is_scored | is_unseen, is_unseen, told.is_feature | is_shown)

    def _score(
        self, states: torch.Tensor, truth: Truth, rest: torch.Tensor, weights: torch.Tensor | None
    ) -> tuple[Scored, Truth]:
        """Reconstruct from hidden states (M, N, H); ``rest`` (M, N, D − O) of the agents' inputs. The truth
        is returned with the tokens that were reconstructed."""
        if not self.config.rec_latent:
            return self.decoder.loss(states, truth.obs, truth.is_scored, weights, truth.is_known), truth
        if truth.is_known is not None:
            # Half a token would have another embedding.
            parts = tokens.split(truth.is_known, self.layout).values()
            is_whole = torch.cat([part.all(dim=-1) for part in parts], dim=-1)
            truth = truth._replace(is_scored=truth.is_scored & is_whole)
        assert self.teacher is not None and isinstance(self.decoder, EntityAutoencoder)
        with torch.no_grad():
            embedded = self.teacher.fc1(torch.cat([truth.obs, rest], dim=-1).flatten(0, 1)).entities
        return self.decoder.score(states, embedded, truth.is_scored, weights), truth

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

    def step(self, rec: torch.Tensor, aug: torch.Tensor | None, t_env: int) -> torch.Tensor:
        """Step the autoencoder, and add the gradients of λ_rec · ``rec`` and λ_aug · ``aug`` to the agent's;
        returns the norm of the former.

        The agent's gradients from the TD loss are there already, clipped: they are what they would be without
        an autoencoder. Until ``rec_warmup`` environment steps the reconstruction trains the decoder only;
        from autoencoder ``belief`` no gradient ever reaches the agent.
        """
        own = list(self.autoencoder.parameters())
        is_belief = isinstance(self.autoencoder, BeliefAutoencoder)
        is_shared = not is_belief and not self.config.detach_trunk and t_env >= self.config.rec_warmup
        if is_belief:
            rec = self.config.lambda_rec * rec
        shared = self.agent.q_parameters()
        norms = rec.new_zeros(())
        if rec.requires_grad:  # something was scored
            wanted = own + shared if is_shared else own
            is_last = aug is None
            gradients = torch.autograd.grad(rec, wanted, retain_graph=not is_last, allow_unused=True)
            for parameter, gradient in zip(own, gradients, strict=False):
                parameter.grad = gradient
            own_norm = nn.utils.clip_grad_norm_(own, self.max_norm)
            self.optimiser.step()
            if is_belief:
                norms = own_norm
            if is_shared:
                norms = self._share(shared, gradients[len(own) :], self.config.lambda_rec)
        if aug is not None:
            gradients = torch.autograd.grad(aug, shared, allow_unused=True)
            _add_clipped(shared, gradients, self.config.lambda_aug, self.max_norm)
        return norms

    def _share(
        self, shared: list[nn.Parameter], gradients: tuple[torch.Tensor | None, ...], weight: float
    ) -> torch.Tensor:
        """Add the reconstruction's gradients to the agent's; returns their norm."""
        if self.config.balance == "gradient":
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
        return _add_clipped(shared, gradients, weight, self.max_norm)

    def state_dict(self) -> dict[str, Any]:
        """Autoencoder, its running statistics, its optimiser, the masker and the stream of masks."""
        return {
            "autoencoder": self.config.autoencoder,
            "use_inference": self.config.use_inference,
            "rec_latent": self.config.rec_latent,
            "decoder": self.autoencoder.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "masker": self.config.masker,
            "masker_state": self.masker.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of ``state_dict``."""
        self.autoencoder.load_state_dict(state["decoder"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.masker.load_state_dict(state["masker_state"])
        self.generator.set_state(state["generator"].cpu())


def _add_clipped(
    parameters: list[nn.Parameter],
    gradients: tuple[torch.Tensor | None, ...],
    weight: float,
    max_norm: float,
) -> torch.Tensor:
    """Add weighted gradients, scaled down to a joint norm of at most ``max_norm``; returns their norm before
    that."""
    used = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]
    if not used:
        return torch.zeros(())
    norm = weight * nn.utils.get_total_norm([gradient for _, gradient in used])
    scale = weight * (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for parameter, gradient in used:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad.add_(gradient * scale)
    return norm
