"""Maskers without a signal."""

from __future__ import annotations

import torch

from limask.masking.agents import AgentMasker
from limask.masking.base import Masker, MaskView, noise


class NoMasker(Masker):
    """Hides nothing: the plain autoencoder, or the control without one."""

    def propose(self, view: MaskView, generator: torch.Generator) -> torch.Tensor:
        """See ``Masker.propose``."""
        return torch.zeros_like(view.is_visible)


class RandomMasker(Masker):
    """Hides each token with probability ``masker.ratio``, independently (He et al. 2022, per token), for
    ``masker.span`` time steps."""

    def propose(self, view: MaskView, generator: torch.Generator) -> torch.Tensor:
        """See ``Masker.propose``."""
        ratio = self.ratio(view, generator)
        return noise(view.is_visible.shape, self.config.masker.span, generator) < ratio


class RandomAgentMasker(AgentMasker):
    """Hides whole agents from everybody's view, for a whole episode.

    MA²E's masks (Kang et al. 2025): of N agents 1 to N − 1 are kept, how many and which drawn anew for
    every episode; ``masker.ratio`` plays no part.
    """

    def agents(self, view: MaskView, generator: torch.Generator) -> torch.Tensor:
        """See ``AgentMasker.agents``."""
        n_episodes, _, n_agents, _ = view.is_visible.shape
        device = view.is_visible.device
        n_kept = torch.randint(1, n_agents, (n_episodes, 1), generator=generator, device=device)
        draw = torch.rand((n_episodes, n_agents), generator=generator, device=device)
        return draw.argsort(dim=-1).argsort(dim=-1) >= n_kept
