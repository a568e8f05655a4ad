"""The reconstruction objective: hide tokens, run the agent on what is left, decode what was hidden."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from limask import masking, tokens
from limask.agent import LimAgent
from limask.autoencoder import EntityAutoencoder
from limask.packing import Packing


class RecLoss(NamedTuple):
    """``loss`` and ``mask_rate`` (share of the hideable visible tokens that was hidden), both scalars."""

    loss: torch.Tensor
    mask_rate: torch.Tensor


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
        self.optimiser = torch.optim.Adam(decoder.parameters(), lr=self.config.decoder_lr)
        self.masker = masking.REGISTRY[self.config.masker](self.config, self.layout)
        self.to(next(agent.parameters()).device)

    def to(self, device: torch.device) -> None:
        """Move to a device; the stream of masks starts anew there."""
        self.decoder.to(device)
        self.is_hideable = tokens.hideable(self.layout, device)
        self.generator = torch.Generator(device).manual_seed(self.seed)

    def loss(self, inputs: torch.Tensor, packing: Packing) -> RecLoss:
        """L_rec of the filled steps' agent inputs (M, N, D), in the order of ``packing``."""
        obs, rest = inputs[..., : self.layout.obs_size], inputs[..., self.layout.obs_size :]
        is_visible = tokens.visibility(obs, self.layout)
        is_hidden = packing.pack(
            masking.hidden_tokens(self.masker, packing.unpack(is_visible), self.is_hideable, self.generator)
        )
        hidden_view = torch.cat([tokens.hide(obs, is_hidden, self.layout), rest], dim=-1)
        with torch.set_grad_enabled(not self.config.detach_trunk):
            _, states = self.agent.sequence(hidden_view, packing.counts)
        # The plain autoencoder hides nothing and reconstructs all that could be hidden.
        candidates = is_visible & self.is_hideable
        is_scored = candidates if self.config.masker == "none" else is_hidden
        loss = self.decoder.loss(states, obs, is_scored)
        return RecLoss(loss, is_hidden.sum() / candidates.sum().clamp(min=1))

    def step(self, loss: torch.Tensor) -> torch.Tensor:
        """Step the decoder, and add λ_rec times the gradient to the agent's; returns that gradient's norm.

        The agent's gradients from the TD loss are there already, clipped: they are what they would be without
        an autoencoder.
        """
        own = list(self.decoder.parameters())
        shared = [] if self.config.detach_trunk else list(self.agent.parameters())
        weighted = self.config.lambda_rec * loss
        if not weighted.requires_grad:  # nothing was scored
            return loss.new_zeros(())
        gradients = torch.autograd.grad(weighted, own + shared, allow_unused=True)
        for parameter, gradient in zip(own, gradients, strict=False):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(own, self.max_norm)
        self.optimiser.step()
        return _add_clipped(shared, gradients[len(own) :], self.max_norm)

    def state_dict(self) -> dict[str, Any]:
        """Decoder, its running statistics, its optimiser and the stream of masks."""
        return {
            "decoder": self.decoder.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of ``state_dict``."""
        self.decoder.load_state_dict(state["decoder"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"].cpu())


def _add_clipped(
    parameters: list[nn.Parameter], gradients: tuple[torch.Tensor | None, ...], max_norm: float
) -> torch.Tensor:
    """Add gradients, scaled down to a joint norm of at most ``max_norm``; returns their norm before that."""
    used = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]
    if not used:
        return torch.zeros(())
    norm = nn.utils.get_total_norm([gradient for _, gradient in used])
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for parameter, gradient in used:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad.add_(gradient * scale)
    return norm
