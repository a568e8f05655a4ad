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
from limask.masking.base import Masker, MaskView, Signal, hidden_tokens
from limask.masking.mixture import AgentMixture, Mixture
from limask.masking.random import NoMasker, RandomAgentMasker, RandomMasker
from limask.masking.scored import CoordinationMasker, LearningProgressMasker, ValueSaliencyMasker

#: Maskers that the learner's own signals drive, by name in ``lim.masker``, and what is mixed with each: it
#: hides the same unit.
INFORMED: dict[str, tuple[type[Masker], type[Masker]]] = {
    "td_threshold": (TdThresholdMasker, RandomAgentMasker),
    "td_ema": (TdEmaMasker, RandomAgentMasker),
    "td_variance": (TdVarianceMasker, RandomAgentMasker),
    "td_recent": (TdRecentMasker, RandomAgentMasker),
    "td_observation": (TdObservationMasker, RandomAgentMasker),
    "value_saliency": (ValueSaliencyMasker, RandomMasker),
    "learning_progress": (LearningProgressMasker, RandomMasker),
    "coordination": (CoordinationMasker, RandomMasker),
    "adversarial": (AdversarialMasker, RandomMasker),
}

#: Masker by its name in ``lim.masker``, as it is by itself.
REGISTRY: dict[str, type[Masker]] = {
    "none": NoMasker,
    "random": RandomMasker,
    "random_agent": RandomAgentMasker,
    **{name: informed for name, (informed, _) in INFORMED.items()},
}


def build(config: LimConfig, layout: Layout) -> Masker:
    """The masker that ``config`` names; an informed one begins as random masks and keeps a share of them."""
    if config.masker not in INFORMED:
        return REGISTRY[config.masker](config, layout)
    informed, random = INFORMED[config.masker]
    kind = AgentMixture if issubclass(informed, AgentMasker) else Mixture
    return kind(config, layout, informed(config, layout), random(config, layout))


__all__ = ["INFORMED", "REGISTRY", "MaskView", "Masker", "Signal", "build", "hidden_tokens"]
