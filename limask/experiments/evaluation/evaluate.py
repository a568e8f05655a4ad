"""``limask evaluate``: agents that are not trained any more, under perturbations or on another map."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from limask.errors import LimaskError, nearest
from limask.experiments import hosted
from limask.experiments.evaluation import evaluate_output
from limask.experiments.evaluation.evaluate_output import Row
from limask.experiments.evaluation.perturb import REGISTRY, Perturbation, PerturbedBattles
from limask.experiments.evaluation.trained import Frozen, check_seed, freeze, read_run
from limask.experiments.hosted import Statistics
from limask.experiments.statistics import wilson_interval
from limask.files import claim
from limask.hosts import Host
from limask.layouts import smax_layout
from limask.protocols import Runner

#: Battles side by side, at most.
SIDE_BY_SIDE = 32


def evaluate(
    runs: Sequence[Path],
    *,
    perturb: str | None,
    severities: Sequence[float],
    episodes: int,
    map_name: str | None,
    seed: int,
    output: Path,
) -> list[Row]:
    """Let the last checkpoint of each run fight; print a table, write ``evaluate.csv`` and ``evaluate.png``.

    Every run at every severity fights the same battles, and meets the same random numbers in them. The
    picture is drawn where there is a perturbation.

    Args:
        runs: see ``trained.read_run``.
        perturb: a key of ``perturb.REGISTRY``, or None.
        severities: how strong it is, in the perturbation's own unit; 0 is nothing.
        episodes: battles of each run at each severity.
        map_name: a SMAX map for all runs, or None for each run's own. Their ``env_args`` stay otherwise.
        seed: battle e is seeded by ``seed + e``, and its perturbation by the pair of both.
        output: folder for the files.

    Returns:
        One row for each run and severity.

    Raises:
        LimaskError: a package is missing, an argument is out of range, a run has no checkpoint or cannot act
            on that map; nothing has been evaluated or written then.
    """
    _check(runs, perturb, severities, episodes, seed)
    host = hosted.load_host()
    side_by_side = max(n for n in range(1, SIDE_BY_SIDE + 1) if episodes % n == 0)
    overrides = {"batch_size_run": side_by_side, "test_nepisode": episodes, "env_args": {"seed": seed}}
    policies = [freeze(host, run, map_name, **overrides) for run in map(read_run, runs)]
    plans = [(policy, _perturbations(perturb, severities, policy)) for policy in policies]
    claim(output, evaluate_output.NAMES)
    for policy in policies:
        _tell(policy)
    print(evaluate_output.heading(perturb))
    rows = []
    for policy, perturbations in plans:
        for row in _rows(host, policy, perturb or "none", perturbations):
            print(evaluate_output.line(row), flush=True)
            rows.append(row)
    evaluate_output.write_csv(output / evaluate_output.CSV, rows)
    print(f"Written: {output / evaluate_output.CSV}")
    if perturb:
        evaluate_output.write_png(output / evaluate_output.PNG, rows)
        print(f"Curves: {output / evaluate_output.PNG}")
    return rows


def _check(
    runs: Sequence[Path], perturb: str | None, severities: Sequence[float], episodes: int, seed: int
) -> None:
    for name, values in (("RUN", [str(run) for run in runs]), ("--severity", [f"{s:g}" for s in severities])):
        if len(set(values)) < len(values):
            raise LimaskError(f"{name} {' '.join(values)}: one of them is there twice")
    if perturb is not None and perturb not in REGISTRY:
        raise LimaskError(
            f"--perturb {perturb} is no perturbation{nearest(perturb, REGISTRY)} "
            f"(known: {', '.join(REGISTRY)})"
        )
    if (perturb is None) != (not severities):
        raise LimaskError(
            "--perturb and --severity go together, as in `--perturb noise --severity 0 0.1 0.2`"
        )
    if episodes < 1:
        raise LimaskError(f"--episodes={episodes}: expected at least 1")
    check_seed(seed)


def _perturbations(perturb: str | None, severities: Sequence[float], policy: Frozen) -> list[Perturbation]:
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


def _rows(host: Host, policy: Frozen, name: str, perturbations: Sequence[Perturbation]) -> Iterator[Row]:
    run, args = policy.run, policy.args
    runner = hosted.runner(host, "vector", args, policy.shape, policy.mac)
    battles = runner.test_env
    for perturbation in perturbations:
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
