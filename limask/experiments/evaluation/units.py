"""What ``--perturb`` names, and what a severity of each is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Asked(NamedTuple):
    """What is to go wrong: a key of ``UNITS`` with its severities, or nothing."""

    perturb: str | None = None
    severities: Sequence[float] = ()


UNITS = {
    "dropout": "probability that a sighting is lost, at each step",
    "burst": "share of the sightings that are lost, for five steps at a time",
    "nearest": "nearest enemies in sight that are never seen",
    "blind": "agents that see nobody else all battle",
    "stale": "age of what is seen, in time steps",
    "noise": "standard deviation of the noise, in the observations' unit (StarCraft's: [-1, 1])",
    "flipped": "probability that an agent's observation is negated, at each step",
    "sight": "lost share of the agents' sight range",
    "dead_teammate": "teammates that do nothing",
}
