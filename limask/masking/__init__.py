"""Maskers: which tokens are hidden from the autoencoder's view.

In this package ``is_hidden`` is True where a token is removed and ``is_visible`` is True where the
environment really showed it. Axes: B episodes, T time steps, N agents, K tokens.
"""

from limask.masking.base import Masker, hidden_tokens
from limask.masking.random import NoMasker, RandomAgentMasker, RandomMasker

#: Masker by its name in ``lim.masker``.
REGISTRY: dict[str, type[Masker]] = {
    "none": NoMasker,
    "random": RandomMasker,
    "random_agent": RandomAgentMasker,
}

__all__ = ["REGISTRY", "Masker", "hidden_tokens"]
