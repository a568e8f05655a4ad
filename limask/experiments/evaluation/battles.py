"""The battles of ``limask evaluate``: frozen agents in their host, and what goes wrong for them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from limask.envs import VECTOR_REGISTRY
from limask.errors import LimaskError
from limask.experiments import hosted
from limask.experiments.evaluation.credit import FrozenTeam, check_mixer, credited
from limask.experiments.evaluation.episode import Stage, load_learner, mean_return, side_by_side
from limask.experiments.evaluation.evaluate_output import Row
from limask.experiments.evaluation.perturb import REGISTRY, Perturbation
from limask.experiments.evaluation.runs import TrainedRun
from limask.experiments.evaluation.tactics import WatchedBattles
from limask.experiments.evaluation.trained import Frozen, freeze
from limask.experiments.evaluation.units import Asked
from limask.experiments.statistics import Interval, wilson_interval
from limask.hosts.base import Host

#: Battles side by side, at most.
SIDE_BY_SIDE = 32


class Battles:
    """Battles of ``runs`` in ``host``; see ``evaluate`` for the other arguments.

    Raises:
        LimaskError: a severity is out of range, or a run cannot act on that map.
    """

    def __init__(
        self,
        host: str,
        runs: Sequence[TrainedRun],
        asked: Sequence[Asked],
        *,
        episodes: int,
        map_name: str | None,
        seed: int,
        measures: Sequence[str] = (),
    ) -> None:
        self._host, self._measures = hosted.load_host(host), measures
        most = max(n for n in range(1, SIDE_BY_SIDE + 1) if episodes % n == 0)
        policies = [
            freeze(
                self._host,
                run,
                map_name,
                batch_size_run=side_by_side(run.config["env"], most),
                test_nepisode=episodes,
                env_args={"seed": seed},
            )
            for run in runs
        ]
        self._plans = [
            (policy, perturb or "none", perturbations(perturb, severities, policy))
            for policy in policies
            for perturb, severities in asked
        ]
        for policy in policies:
            _check_measures(policy, measures)
        for policy in policies:
            _tell(policy)

    def rows(self) -> Iterator[Row]:
        """Fight; one row for each run, perturbation and severity, as they are over."""
        for policy, name, planned in self._plans:
            yield from _rows(self._host, policy, name, planned, self._measures)


def perturbations(perturb: str | None, severities: Sequence[float], policy: Frozen) -> list[Perturbation]:
    """One for each severity; without ``perturb`` one with which nothing goes wrong.

    Raises:
        LimaskError: a severity is out of range, or the run's agents see too far for it.
    """
    if policy.args.env_args.get("full_observation") and perturb in ("noise", "sight", "nearest"):
        raise LimaskError(
            f"--perturb {perturb}: {policy.run.name} was trained with env_args.full_observation=True, and "
            f"what {perturb} does is measured within the sight range; choose dropout, burst or blind"
        )
    kind = REGISTRY[perturb] if perturb else Perturbation
    sizes = policy.shape.n_agents, policy.shape.limit + 1
    with _told(f"--perturb {perturb}: "):  # 0 is a severity of every kind
        kind(0.0, policy.layout, *sizes)
    with _told(f"--perturb {perturb} --severity "):
        return [kind(severity, policy.layout, *sizes) for severity in severities or (0.0,)]


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Errors with ``where`` in front."""
    try:
        yield
    except LimaskError as error:
        raise LimaskError(f"{where}{error}") from error


def _tell(policy: Frozen) -> None:
    """Say what a reader of the numbers has to know."""
    run, t_max = policy.run, policy.run.config["t_max"]
    if run.steps < t_max:
        print(
            f"note: {run.name}: its last checkpoint is of step {run.steps:,}, and its t_max is {t_max:,}",
            file=sys.stderr,
        )
    if policy.note:
        print(f"note: {policy.note}", file=sys.stderr)


def _check_measures(policy: Frozen, measures: Sequence[str]) -> None:
    """Refuse what cannot be measured of a run.

    Raises:
        LimaskError: names the option.
    """
    if measures and policy.args.env not in VECTOR_REGISTRY:
        raise LimaskError(
            f"--{measures[0]}: {policy.run.name} was trained in env={policy.args.env}, and battles can be "
            "looked into and branched on env=smax alone"
        )
    if "credit" in measures:
        check_mixer(policy)
        load_learner(policy)


def _rows(
    host: Host, policy: Frozen, name: str, planned: Sequence[Perturbation], measures: Sequence[str]
) -> Iterator[Row]:
    run, episodes, stage = policy.run, policy.args.test_nepisode, Stage(host, policy)
    for perturbation in planned:
        measured: dict[str, float] = {}
        with stage.runner(perturbation) as runner:
            if "tactics" in measures:
                runner.test_env.battles = WatchedBattles(
                    runner.test_env.battles, policy.args.env_args["seed"]
                )
            for _ in range(episodes // runner.batch_size):
                runner.run(test_mode=True)
            if "tactics" in measures:
                measured |= runner.test_env.battles.tactics()
            statistics = runner.logger.last
        if "credit" in measures:
            measured |= _credit(policy, stage, perturbation)
        won = statistics.get("test_battle_won_mean")
        yield Row(
            str(run.folder), run.arm, run.environment, run.config["seed"], run.steps, policy.shape.name,
            name, perturbation.severity, episodes,
            Interval(*[math.nan] * 3) if won is None else wilson_interval(won, episodes),
            mean_return(statistics), mean_return(statistics, "std") / math.sqrt(episodes), measured,
        )  # fmt: skip


def _credit(policy: Frozen, stage: Stage, perturbation: Perturbation) -> dict[str, float]:
    """``CREDIT`` in the battles of ``_rows``."""
    args = policy.args
    with stage.runner(perturbation) as runner:
        return credited(
            runner.test_env,
            FrozenTeam(policy, runner.new_batch),
            args.gamma,
            np.random.default_rng([args.env_args["seed"], 2]),
            args.test_nepisode // runner.batch_size,
        ).measures()
