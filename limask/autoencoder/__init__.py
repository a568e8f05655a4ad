"""Autoencoders: what is reconstructed, and from what."""

from limask.autoencoder.base import AgentAutoencoder, Autoencoder, TokenAutoencoder, Truth
from limask.autoencoder.belief import BeliefAutoencoder
from limask.autoencoder.entity import EntityAutoencoder
from limask.autoencoder.entity_belief import EntityBeliefAutoencoder
from limask.autoencoder.memory_of_sightings import SightingsAutoencoder
from limask.autoencoder.team import TeamAutoencoder

#: Autoencoder by its name in ``lim.autoencoder.name``; ``none`` is the plain Q-learner.
REGISTRY: dict[str, type[Autoencoder] | None] = {
    "none": None,
    "entity": EntityAutoencoder,
    "team": TeamAutoencoder,
    "belief": BeliefAutoencoder,
    "entity_belief": EntityBeliefAutoencoder,
    "sightings": SightingsAutoencoder,
}

__all__ = [
    "REGISTRY",
    "AgentAutoencoder",
    "Autoencoder",
    "BeliefAutoencoder",
    "EntityAutoencoder",
    "EntityBeliefAutoencoder",
    "SightingsAutoencoder",
    "TeamAutoencoder",
    "TokenAutoencoder",
    "Truth",
]
