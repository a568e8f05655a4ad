"""The reconstruction objective: hide tokens, run the agent on what is left, decode what was hidden."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import nn

from limask import masking, tokens
from limask.agent import LimAgent
from limask.autoencoder import EntityAutoencoder
from limask.layouts import token_starts
from limask.packing import Packing


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
    """``loss``, a scalar; ``q_values`` (M, N, A) of the hidden view; ``stats``, scalars to be logged."""

    loss: torch.Tensor
    q_values: torch.Tensor
    stats: dict[str, torch.Tensor]


class Reconstruction:
    """Masker, autoencoder and the autoencoder's own optimiser, over the trunk and GRU of an agent.

    Args:
        agent: encodes the hidden view; its config names the masker.
        decoder: reconstructs the tokens.
        seed: seeds the masks.
        max_norm: gradients of the decoder, and those it sends into the agent, are clipped to this norm each.
    """

    def __init__(self, agent: LimAgent, decoder: EntityAutoencoder, seed: int, max_norm: float) -> None:
        self.agent, self.config, self.layout = agent, agent.config, agent.layout
        self.decoder, self.max_norm, self.seed = decoder, max_norm, seed
        self.optimiser = torch.optim.Adam(decoder.parameters(), lr=self.config.decoder_lr, fused=True)
        self.masker = masking.build(self.config, self.layout)
        self.to(next(agent.parameters()).device)

    def to(self, device: torch.device) -> None:
        """Move to a device; the stream of masks starts anew there."""
        self.decoder.to(device)
        self.is_hideable = tokens.hideable(self.layout, device)
        self.max_entropy = math.log(max(2, int(self.is_hideable.sum())))
        self.generator = torch.Generator(device).manual_seed(self.seed)

    def needs(self, t_env: int) -> frozenset[masking.Signal]:
        """Signals that ``loss`` reads from its hints at ``t_env`` environment steps."""
        weighted: frozenset[masking.Signal] = frozenset({"saliency"} if self.config.rec_weights else ())
        return self.masker.needs(t_env) | weighted

    def loss(self, inputs: torch.Tensor, packing: Packing, hints: Hints) -> RecLoss:
        """L_rec of the filled steps' agent inputs (M, N, D), in the order of ``packing``; the masker learns
        from it."""
        obs, rest = inputs[..., : self.layout.obs_size], inputs[..., self.layout.obs_size :]
        is_visible = tokens.visibility(obs, self.layout)
        is_filled = packing.unpack(torch.ones_like(packing.index, dtype=torch.bool))
        view = masking.MaskView(packing.unpack(obs), packing.unpack(is_visible), is_filled, *hints)
        masks = masking.hidden_tokens(self.masker, view, self.is_hideable, self.generator)
        is_hidden = packing.pack(masks)
        hidden_view = torch.cat([tokens.hide(obs, is_hidden, self.layout), rest], dim=-1)
        with torch.set_grad_enabled(not self.config.detach_trunk):
            q_values, states = self.agent.sequence(hidden_view, packing.counts)
        # The plain autoencoder hides nothing and reconstructs all that could be hidden.
        candidates = is_visible & self.is_hideable
        is_scored = candidates if self.config.masker == "none" else is_hidden
        weights = (
            packing.pack(hints.saliency) if self.config.rec_weights and hints.saliency is not None else None
        )
        scored = self.decoder.loss(states, obs, is_scored, weights)
        self.masker.learn(masks, packing.unpack(scored.error))
        stats = self._stats(is_hidden, is_scored, candidates, scored.error)
        return RecLoss(scored.loss, q_values, stats)

    @torch.no_grad()
    def _stats(
        self,
        is_hidden: torch.Tensor,
        is_scored: torch.Tensor,
        candidates: torch.Tensor,
        error: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Shares of what could be hidden that was, and errors, of all tokens and by kind."""
        hidden, scored, possible = (
            values.flatten(0, -2).sum(dim=0) for values in (is_hidden, is_scored, candidates)
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
        return stats

    def step(self, rec: torch.Tensor, aug: torch.Tensor | None, t_env: int) -> torch.Tensor:
        """Step the decoder, and add the gradients of λ_rec · ``rec`` and λ_aug · ``aug`` to the agent's;
        returns the norm of the former.

        The agent's gradients from the TD loss are there already, clipped: they are what they would be without
        an autoencoder. Until ``rec_warmup`` environment steps the reconstruction trains the decoder only.
        """
        own = list(self.decoder.parameters())
        is_shared = not self.config.detach_trunk and t_env >= self.config.rec_warmup
        shared = list(self.agent.parameters())
        norms = rec.new_zeros(())
        if rec.requires_grad:  # something was scored
            wanted = own + shared if is_shared else own
            is_last = aug is None
            gradients = torch.autograd.grad(rec, wanted, retain_graph=not is_last, allow_unused=True)
            for parameter, gradient in zip(own, gradients, strict=False):
                parameter.grad = gradient
            nn.utils.clip_grad_norm_(own, self.max_norm)
            self.optimiser.step()
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
        """Decoder, its running statistics, its optimiser, the masker and the stream of masks."""
        return {
            "autoencoder": "entity",
            "decoder": self.decoder.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "masker": self.config.masker,
            "masker_state": self.masker.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of ``state_dict``."""
        self.decoder.load_state_dict(state["decoder"])
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
