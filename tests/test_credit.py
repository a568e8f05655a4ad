"""Credit by branched battles: by hand in a small game, and on SMAX."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_parts import save_run

from limask.cli import main
from limask.envs.smax import Observation, SmaxVector, Transition
from limask.errors import LimaskError
from limask.experiments import hosted
from limask.experiments.evaluation import credit
from limask.experiments.evaluation.evaluate import evaluate
from limask.experiments.evaluation.perturb import REGISTRY, PerturbedBattles
from limask.experiments.evaluation.units import CREDIT, TACTICS, Asked
from limask.hosts.base import Host
from limask.layouts import smax_layout

GAMMA = 0.5
#: What an action (of 3) of each of the two agents brings, in each of the two steps.
WORTH = np.array([[1.0, 2.0, 4.0], [10.0, 30.0, 20.0]])


class Game:
    """Two steps in two battles, of which the second one is over after the first step. What an agent did in
    the first step is paid again, negated, in the second."""

    def reset(self) -> Observation:
        self._t, self._before = 0, np.zeros(2)
        return self._observation()

    def step(self, actions: np.ndarray) -> Transition:
        paid = WORTH[np.arange(2), actions].sum(axis=1)
        reward, self._before = paid - self._before, paid
        self._t += 1
        return Transition(self._observation(), reward, np.array([self._t == 2, True]), {})

    def moment(self) -> tuple[int, np.ndarray]:
        return self._t, self._before

    def go_back(self, moment: tuple[int, np.ndarray], draw: int = 0) -> None:
        self._t, self._before = moment

    def _observation(self) -> Observation:
        avail = np.ones((2, 2, 3), np.int32)
        avail[:, 0, 2] = 0  # agent 0 can do what brings 1 or 2
        return Observation(np.zeros((2, 1), np.float32), np.zeros((2, 2, 1), np.float32), avail)


class Believer:
    """Values actions by what they bring, times ``sign``; remembers how many steps it has seen."""

    memory = 0

    def __init__(self, sign: float) -> None:
        self._values = np.tile(sign * WORTH, (2, 1, 1))

    def start(self) -> None:
        self.memory = 0

    def values(self, t: int, observation: Observation) -> np.ndarray:
        assert self.memory == t, "what it remembers is of the steps before"
        self.memory += 1
        return self._values

    def act(self, t: int, actions: np.ndarray) -> None:
        pass

    def total(self, chosen: np.ndarray, state: np.ndarray) -> np.ndarray:
        return chosen.sum(axis=1)


def test_what_an_action_brought_by_hand() -> None:
    found = credit.credited(Game(), Believer(1.0), GAMMA, np.random.default_rng(0), n_groups=50)
    # Each time: both battles at step 0, the first also at step 1.
    assert found.credited.shape == (150,) and found.brought.shape == (150, credit.DRAWS)
    assert (found.brought == found.brought[:, :1]).all(), "nothing is drawn in this game"
    brought = found.brought[:, 0]
    # The best are worth 2 and 30: instead comes 1, or 20, or 10. At step 0 half of it is lost again later
    # in the first battle.
    assert set(found.credited) == {1.0, 10.0, 20.0}
    by_credit = {worth: set(brought[found.credited == worth]) for worth in (1.0, 10.0, 20.0)}
    assert by_credit == {worth: {worth * GAMMA, worth} for worth in (1.0, 10.0, 20.0)}
    measured = found.measures()
    assert measured["branches"] == 150
    assert measured["credit"] > 0.8 and measured["repeated"] == pytest.approx(1.0)


def test_who_believes_the_opposite_has_it_upside_down() -> None:
    found = credit.credited(Game(), Believer(-1.0), GAMMA, np.random.default_rng(0), n_groups=50)
    assert (found.credited > 0).all() and (found.brought < 0).all(), "it takes what it takes for the best"
    assert found.measures()["credit"] < -0.8


def test_who_has_no_choice_is_not_branched() -> None:
    taken, avail = np.array([[0, 1], [2, 0]]), np.zeros((2, 2, 3))
    avail[0, 0, 0] = avail[0, 1, [0, 1]] = 1  # of battle 0 agent 1 can do 0 instead of 1
    avail[1, 0, 2] = avail[1, 1, 0] = 1
    for seed in range(5):
        agent, other = credit.replaced(taken, avail, np.random.default_rng(seed))
        assert (agent[0], other[0]) == (1, 0)
        assert other[1] == taken[1, agent[1]]


def actions_of(observation: Observation, generator: np.random.Generator) -> np.ndarray:
    avail = observation.avail_actions
    return np.where(avail > 0, generator.random(avail.shape), -1).argmax(axis=2)


@pytest.mark.parametrize("perturb", ["", "burst", "stale"])
def test_battles_go_back_and_on_with_the_same_numbers_or_others(perturb: str) -> None:
    battles: Any = SmaxVector("3m", range(4), flipped=0.1)
    if perturb:
        severity, layout = {"burst": 0.5, "stale": 2}[perturb], smax_layout({"map_name": "3m"})
        wrong = REGISTRY[perturb](severity, layout, 3, battles.episode_limit)
        battles = PerturbedBattles(battles, wrong, 1)

    def fight(n_steps: int, observation: Observation) -> list[Transition]:
        generator, seen = np.random.default_rng(0), []
        for _ in range(n_steps):
            seen.append(battles.step(actions_of(observation, generator)))
            observation = seen[-1].observation
        return seen

    observation = fight(4, battles.reset())[-1].observation
    moment = battles.moment()
    first = fight(15, observation)
    for draw, is_same in ((0, True), (1, False), (0, True)):
        battles.go_back(moment, draw)
        again = fight(15, observation)
        for name in ("state", "obs", "avail_actions"):
            same = [
                np.array_equal(getattr(a.observation, name), getattr(b.observation, name))
                for a, b in zip(first, again, strict=True)
            ]
            assert all(same) == is_same, name


@pytest.fixture(scope="module")
def host() -> Host:
    return hosted.load_host()


@pytest.mark.parametrize("algorithm", ["qmix", "qmix_lim", "vdn_lim", "qmix_ma2e"])
def test_columns_of_a_run(host: Host, tmp_path: Path, algorithm: str) -> None:
    run = save_run(host, tmp_path / "run", algorithm)
    output = tmp_path / "out"
    with_both = ["evaluate", str(run), "--tactics", "--credit", "--episodes", "2", "--output", str(output)]
    assert main([*with_both, "--perturb", "dropout", "--severity", "0.3"]) == 0
    (row,) = csv.DictReader((output / "evaluate.csv").open())
    assert list(row)[-len(TACTICS | CREDIT) :] == [*TACTICS, *CREDIT]
    # Up to eight steps of both battles, of which one may be over sooner.
    assert credit.STEPS <= float(row["branches"]) <= 2 * credit.STEPS
    assert all(-1 <= float(row[name] or 0) <= 1 for name in ("credit", "repeated"))
    assert 0 <= float(row["survivors"]) <= 1 and float(row["steps_to_kill"] or 1) > 0
    (plain,) = evaluate(
        [run], [Asked("dropout", [0.3])], episodes=2, map_name=None, seed=10_000, output=tmp_path / "plain"
    )
    assert float(row["return"]) == pytest.approx(plain.mean_return, rel=1e-5), "the battles stay as they are"


def test_what_cannot_be_measured_is_refused(host: Host, tmp_path: Path) -> None:
    rest: dict[str, Any] = {"episodes": 2, "map_name": None, "seed": 1, "output": tmp_path / "out"}
    qplex = save_run(host, tmp_path / "run", "qplex_lim")
    with pytest.raises(LimaskError, match="--credit: .* has mixer=.*expected is a mixer of .*: qmix or vdn"):
        evaluate([qplex], measures=["credit"], **rest)
    assert not (tmp_path / "out").exists()
