"""The battles of ``limask evaluate``: frozen agents in their host, and what goes wrong for them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence

from limask.errors import LimaskError
from limask.experiments import hosted
from limask.experiments.evaluation.evaluate_output import Row
from limask.experiments.evaluation.perturb import REGISTRY, Perturbation, PerturbedBattles
from limask.experiments.evaluation.runs import TrainedRun
from limask.experiments.evaluation.trained import Frozen, freeze
from limask.experiments.hosted import Statistics
from limask.experiments.statistics import wilson_interval
from limask.hosts.base import Host
from limask.layouts import smax_layout
from limask.protocols import Runner

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
        *,
        perturb: str | None,
        severities: Sequence[float],
        episodes: int,
        map_name: str | None,
        seed: int,
    ) -> None:
        self._host, self._perturb = hosted.load_host(host), perturb
        side_by_side = max(n for n in range(1, SIDE_BY_SIDE + 1) if episodes % n == 0)
        overrides = {"batch_size_run": side_by_side, "test_nepisode": episodes, "env_args": {"seed": seed}}
        policies = [freeze(self._host, run, map_name, **overrides) for run in runs]
        self._plans = [(policy, perturbations(perturb, severities, policy)) for policy in policies]
        for policy in policies:
            _tell(policy)

    def rows(self) -> Iterator[Row]:
        """Fight; one row for each run and severity, as they are over."""
        for policy, planned in self._plans:
            yield from _rows(self._host, policy, self._perturb or "none", planned)


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
    layout = smax_layout(policy.args.env_args)
    sizes = policy.shape.n_agents, policy.shape.limit + 1
    try:
        return [kind(severity, layout, *sizes) for severity in severities or (0.0,)]
    except LimaskError as error:
        raise LimaskError(f"--perturb {perturb} --severity {error}") from error


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
    run, args = policy.run, policy.args
    runner = hosted.runner(host, "vector", args, policy.shape, policy.mac)
    battles = runner.test_env
    for perturbation in planned:
        runner.test_env = PerturbedBattles(battles, perturbation, args.env_args["seed"])
        statistics = _fight(runner, args.test_nepisode)
        yield Row(
            str(run.folder), run.arm, run.environment, run.config["seed"], run.steps, policy.shape.name,
            name, perturbation.severity, args.test_nepisode,
            wilson_interval(statistics["test_battle_won_mean"], args.test_nepisode),
            statistics["test_return_mean"],
            statistics["test_return_std"] / math.sqrt(args.test_nepisode),
        )  # fmt: skip


def _fight(runner: Runner, episodes: int) -> dict[str, float]:
    """The host's own statistics of a test of ``episodes``."""
    runner.logger = Statistics()
    for _ in range(episodes // runner.batch_size):
        runner.run(test_mode=True)
    return runner.logger.last
