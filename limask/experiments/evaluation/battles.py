"""The battles of ``limask evaluate``: frozen agents in their host, and what goes wrong for them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from limask.errors import LimaskError
from limask.experiments import hosted
from limask.experiments.evaluation.episode import Stage, mean_return, side_by_side
from limask.experiments.evaluation.evaluate_output import Row
from limask.experiments.evaluation.perturb import REGISTRY, Perturbation
from limask.experiments.evaluation.runs import TrainedRun
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
    ) -> None:
        self._host = hosted.load_host(host)
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
            _tell(policy)

    def rows(self) -> Iterator[Row]:
        """Fight; one row for each run, perturbation and severity, as they are over."""
        for policy, name, planned in self._plans:
            yield from _rows(self._host, policy, name, planned)


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


def _rows(host: Host, policy: Frozen, name: str, planned: Sequence[Perturbation]) -> Iterator[Row]:
    run, episodes, stage = policy.run, policy.args.test_nepisode, Stage(host, policy)
    for perturbation in planned:
        with stage.runner(perturbation) as runner:
            for _ in range(episodes // runner.batch_size):
                runner.run(test_mode=True)
            statistics = runner.logger.last
        won = statistics.get("test_battle_won_mean")
        yield Row(
            str(run.folder), run.arm, run.environment, run.config["seed"], run.steps, policy.shape.name,
            name, perturbation.severity, episodes,
            Interval(*[math.nan] * 3) if won is None else wilson_interval(won, episodes),
            mean_return(statistics), mean_return(statistics, "std") / math.sqrt(episodes),
        )  # fmt: skip
