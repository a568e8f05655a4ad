"""Maskers: which tokens are hidden from the autoencoder's view.

In this package ``is_hidden`` is True where a token is removed and ``is_visible`` is True where the
environment really showed it. Axes: B episodes, T time steps, N agents, K tokens.
"""

from limask.config import LimConfig
from limask.layouts import Layout
from limask.masking.adversarial import AdversarialMasker
from limask.masking.agents import (
    AgentMasker,
    TdEmaMasker,
    TdObservationMasker,
    TdRecentMasker,
    TdThresholdMasker,
    TdVarianceMasker,
)
from limask.masking.base import Masker, MaskView, Signal, Unit, hidden_tokens
from limask.masking.mixture import AgentMixture, Mixture
from limask.masking.random import NoMasker, RandomAgentMasker, RandomMasker
from limask.masking.scored import CoordinationMasker, LearningProgressMasker, ValueSaliencyMasker

#: Masker by its name in ``lim.masker.name``. A checkout's ``src/modules/maskers`` may add some of its own.
REGISTRY: dict[str, type[Masker]] = {
    "none": NoMasker,
    "random": RandomMasker,
    "random_agent": RandomAgentMasker,
    "td_threshold": TdThresholdMasker,
    "td_ema": TdEmaMasker,
    "td_variance": TdVarianceMasker,
    "td_recent": TdRecentMasker,
    "td_observation": TdObservationMasker,
    "value_saliency": ValueSaliencyMasker,
    "learning_progress": LearningProgressMasker,
    "coordination": CoordinationMasker,
    "adversarial": AdversarialMasker,
}


def build(config: LimConfig, layout: Layout) -> Masker:
    """The masker that ``config`` names; an informed one begins as random masks and keeps a share of them."""
    kind = REGISTRY[config.masker.name]
    masker = kind(config, layout)
    if not kind.is_informed:
        return masker
    if isinstance(masker, AgentMasker):
        return AgentMixture(config, layout, masker, RandomAgentMasker(config, layout))
    return Mixture(config, layout, masker, RandomMasker(config, layout))


__all__ = ["REGISTRY", "MaskView", "Masker", "Signal", "Unit", "build", "hidden_tokens"]
