"""Autoencoders: what is reconstructed, and from what."""

from limask.autoencoder.entity import EntityAutoencoder

#: Autoencoder by its name in ``lim.autoencoder``; ``none`` is the plain Q-learner.
REGISTRY: dict[str, type[EntityAutoencoder] | None] = {"none": None, "entity": EntityAutoencoder}

__all__ = ["REGISTRY", "EntityAutoencoder"]
