"""What a masker is, and what holds for all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from limask.config import LimConfig
from limask.layouts import Layout


class Masker(ABC):
    """Proposes which tokens to hide; ``hidden_tokens`` enforces what every mask must keep to."""

    def __init__(self, config: LimConfig, layout: Layout) -> None:
        self.config = config
        self.layout = layout

    @abstractmethod
    def propose(self, is_visible: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Tokens to hide.

        Args:
            is_visible: (B, T, N, K) bool, True = the environment showed the token.
            generator: the only source of randomness, on the device of ``is_visible``.

        Returns:
            (B, T, N, K) bool, or anything that broadcasts to it; True = hide.
        """


def hidden_tokens(
    masker: Masker, is_visible: torch.Tensor, is_hideable: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """The mask of ``masker``, kept within bounds: ``is_hidden`` (B, T, N, K) bool, True = hidden.

    Nothing invisible and nothing that the layout protects is hidden, and in every observation at least
    ``keep_at_least`` visible tokens stay, where there are so many; which ones is drawn at random.
    """
    is_hidden = masker.propose(is_visible, generator) & is_visible & is_hideable
    n_kept = (is_visible & ~is_hidden).sum(dim=-1, keepdim=True)
    n_lacking = masker.config.keep_at_least - n_kept
    if not bool(((n_lacking > 0) & is_hidden.any(dim=-1, keepdim=True)).any()):
        return is_hidden
    draw = torch.rand(is_hidden.shape, generator=generator, device=is_hidden.device)
    order = draw.masked_fill(~is_hidden, 2.0).argsort(dim=-1).argsort(dim=-1)
    return is_hidden & (order >= n_lacking)
