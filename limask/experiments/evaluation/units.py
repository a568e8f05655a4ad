"""What ``--perturb`` names, what a severity of each is, and what can be measured besides wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

#: Of battles that are looked into: the columns of ``--tactics``.
TACTICS = {
    "focus": "of the shots of a step, the share at the enemy that most of them are aimed at",
    "focus_by_chance": "the same, if each of these agents had drawn its target from those in its reach",
    "steps_to_kill": "steps from an enemy's first wound to its death",
    "overkill": "share of what the agents' shots take that their targets no longer had",
    "damage_taken": "lost share of the agents' health",
    "survivors": "share of the agents that are alive in the end",
}

#: Of battles that are branched: the columns of ``--credit``.
CREDIT = {
    "credit": "rank correlation of what the mixer credits an agent's action with and what it brought",
    "repeated": "the same of what it brought with some random numbers and with others",
    "branches": "actions that were replaced",
}

#: Both, by the option that asks for them; and all columns together.
ASKED: Mapping[str, Mapping[str, str]] = {"tactics": TACTICS, "credit": CREDIT}
MEASURES = TACTICS | CREDIT
