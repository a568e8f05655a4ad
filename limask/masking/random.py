"""Maskers without a signal."""

from __future__ import annotations

import torch

from limask import tokens
from limask.layouts import token_starts
from limask.masking.base import Masker


class NoMasker(Masker):
    """Hides nothing: the plain autoencoder, or the control without one."""

    def propose(self, is_visible: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """See ``Masker.propose``."""
        return torch.zeros_like(is_visible)


class RandomMasker(Masker):
    """Hides each token with probability ``mask_ratio``, independently (He et al. 2022, per token)."""

    def propose(self, is_visible: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """See ``Masker.propose``."""
        draw = torch.rand(is_visible.shape, generator=generator, device=is_visible.device)
        return draw < self.config.mask_ratio


class RandomAgentMasker(Masker):
    """Hides whole teammates from everybody's view, for a whole episode.

    MA²E's masks (Kang et al. 2025): of N agents 1 to N − 1 are kept, how many and which drawn anew for
    every episode; ``mask_ratio`` plays no part.
    """

    def propose(self, is_visible: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """See ``Masker.propose``."""
        n_episodes, _, n_agents, n_tokens = is_visible.shape
        device = is_visible.device
        is_hidden = torch.zeros((n_episodes, 1, n_agents, n_tokens), dtype=torch.bool, device=device)
        if n_agents < 2:
            return is_hidden
        n_kept = torch.randint(1, n_agents, (n_episodes, 1), generator=generator, device=device)
        draw = torch.rand((n_episodes, n_agents), generator=generator, device=device)
        is_agent_hidden = draw.argsort(dim=-1).argsort(dim=-1) >= n_kept
        first = dict(zip((g.kind for g in self.layout.groups), token_starts(self.layout), strict=True))[
            "ally"
        ]
        slots = tokens.teammate_slots(n_agents, device)
        is_hidden[:, 0, :, first : first + n_agents - 1] = is_agent_hidden[:, slots]
        return is_hidden
