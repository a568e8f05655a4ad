"""How agents fight, by hand and on real battles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from limask.envs.smax import Observation, SmaxVector, Transition, UnitStates
from limask.experiments.evaluation.tactics import Sums, WatchedBattles, aimed_damage
from limask.experiments.evaluation.units import TACTICS

MOVES = 5
NONE = -1


def sums() -> Sums:
    return Sums(np.random.default_rng(0))


def test_focus_is_the_share_at_the_enemy_that_most_aim_at() -> None:
    measured = sums()
    targets = np.array([[0, 0, 1], [2, 2, 2], [1, NONE, 0], [NONE, NONE, 2]])  # the last aims alone
    measured.add_targets(targets, np.ones((4, 3, 3), dtype=bool))
    assert measured.means()["focus"] == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)


@pytest.mark.parametrize(
    ("in_reach", "expected"),
    [
        ([[1, 1], [1, 1]], 0.75),  # half of the time the same, and else one each
        ([[1, 0], [1, 0]], 1.0),
        ([[1, 0], [0, 1]], 0.5),
        ([[1, 1], [1, 0]], 0.75),
    ],
)
def test_focus_by_chance_draws_from_who_is_in_reach(in_reach: list[list[int]], expected: float) -> None:
    measured = sums()
    n = 500
    measured.add_targets(np.zeros((n, 2), dtype=int), np.tile(np.array(in_reach) > 0, (n, 1, 1)))
    assert measured.means()["focus_by_chance"] == pytest.approx(expected, abs=0.01)


def test_what_never_happened_has_no_number() -> None:
    assert all(math.isnan(number) for number in sums().means().values())
    assert list(sums().means()) == list(TACTICS)


class Scripted:
    """One battle of two agents against two enemies, each of 10 points; a shot takes 4 and is possible each
    second, which is two steps."""

    step_seconds = 0.5

    def __init__(self, health: list[list[float]], cooldown: list[list[float]]) -> None:
        self._health, self._cooldown, self._t = health, cooldown, 0

    def units(self) -> UnitStates:
        health, cooldown = (
            np.array([values[self._t]], np.float32) for values in (self._health, self._cooldown)
        )
        same = np.ones((1, 4), np.float32)
        return UnitStates(health, 10 * same, cooldown, same, 4 * same)

    def reset(self) -> Observation:
        self._t = 0
        return self._observation()

    def step(self, actions: np.ndarray) -> Transition:
        self._t += 1
        is_over = np.array([self._t >= len(self._health) - 2])
        return Transition(self._observation(), np.zeros(1, np.float32), is_over, {})

    def _observation(self) -> Observation:
        return Observation(
            np.zeros((1, 1), np.float32),
            np.zeros((1, 2, 1), np.float32),
            np.ones((1, 2, MOVES + 2), np.int32),
        )


def test_a_battle_by_hand() -> None:
    # Both shoot enemy 0 twice (4 + 4, then 4 + 4 of the 2 that it has left: 6 wasted); one of them dies.
    # A third time neither can shoot, and the second enemy lives.
    health = [[10, 10, 10, 10], [10, 10, 2, 10], [10, 4, 2, 10], [10, 0, 0, 10], [5, 0, 0, 10], [0, 0, 0, 0]]
    cooldown = [
        [0.0] * 4,
        [0.75, 0.9, 0, 0],
        [0.25, 0.4, 0, 0],
        [0.6, 0.7, 0, 0],
        [0.1, 0.2, 0, 0],
        [1.0, 1.0, 0, 0],
    ]
    script: Any = Scripted(health, cooldown)
    battles = WatchedBattles(script, 0)
    battles.reset()
    for actions in ([5, 5], [5, 5], [5, 5], [6, 4]):
        battles.step(np.array([actions]))
    measured = battles.tactics()
    assert measured["focus"] == 1.0
    assert measured["overkill"] == pytest.approx(6 / 16)
    assert measured["steps_to_kill"] == 2
    assert measured["damage_taken"] == pytest.approx(15 / 20)
    assert measured["survivors"] == 0.5
    battles.step(np.array([[5, 5]]))  # it is over: nothing counts any more
    assert battles.tactics() == measured
    assert battles.step_seconds == 0.5, "all else is the battles' own"


def shooting(observation: Observation, generator: np.random.Generator) -> np.ndarray:
    """Random actions (B, N) of agents that shoot when they can."""
    avail = observation.avail_actions.copy()
    avail[..., :MOVES] *= ~avail[..., MOVES:].any(axis=2, keepdims=True)
    return np.where(avail > 0, generator.random(avail.shape), -1).argmax(axis=2)


@pytest.mark.parametrize("map_name", ["3m", "2s3z"])
def test_shots_take_what_enemies_lose(map_name: str) -> None:
    """The damage of shots, told by who has to wait anew, is what enemies lose that outlive them."""
    vector = SmaxVector(map_name, range(32), walls_cause_death=False)
    generator, observation, n_lost, n_killed = np.random.default_rng(0), vector.reset(), 0, 0
    for _ in range(60):
        before, actions = vector.units(), shooting(observation, generator)
        observation, after = vector.step(actions).observation, vector.units()
        aimed = aimed_damage(before, after, actions - MOVES, vector.step_seconds).sum(axis=1)
        lost, is_alive = (
            values[:, vector.n_agents :] for values in (before.health - after.health, after.health > 0)
        )
        assert aimed[is_alive] == pytest.approx(lost[is_alive], abs=1e-3)
        assert (aimed >= lost - 1e-3).all()
        n_lost += (lost[is_alive] > 0).sum()
        n_killed += (lost[~is_alive] > 0).sum()
    assert n_lost > 100 and n_killed > 5
