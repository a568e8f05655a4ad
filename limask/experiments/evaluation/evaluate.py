"""``limask evaluate``: agents that are not trained any more, under perturbations or on another map.

What can be refused is refused before torch and the host are loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from limask.errors import LimaskError, nearest
from limask.experiments.campaign.folder import is_campaign
from limask.experiments.display import markdown_table, say
from limask.experiments.evaluation import evaluate_output
from limask.experiments.evaluation.evaluate_output import Row
from limask.experiments.evaluation.runs import (
    check_seed,
    common_host,
    extras_of,
    named,
    read_runs,
)
from limask.experiments.evaluation.units import UNITS, Asked
from limask.files import check_free, make_folder
from limask.requirements import require_host


def evaluate(
    runs: Sequence[Path],
    asked: Sequence[Asked] = (Asked(),),
    *,
    episodes: int,
    map_name: str | None,
    seed: int,
    output: Path | None = None,
    host: str | None = None,
    force: bool = False,
    measures: Sequence[str] = (),
) -> list[Row]:
    """Let the last checkpoint of each run fight; print a table, write ``evaluate.csv`` and ``evaluate.png``.

    Every run at every severity fights the same battles, and meets the same random numbers in them. The
    picture is drawn where there is a perturbation.

    Args:
        runs: see ``runs.read_runs``.
        asked: perturbations, each with severities in its own unit, of which 0 is nothing.
        episodes: battles of each run at each severity.
        map_name: a map for all runs, or None for each run's own. Their ``env_args`` stay otherwise.
        seed: battle e on SMAX is seeded by ``seed + e``, another environment by ``seed``; the perturbation
            of episode e by the pair of both.
        output: folder for the files; None is ``evaluation/RUNS_PERTURBATIONS``, or ``evaluation`` in the
            folder of a single campaign, whose report then tells of it.
        host: ``pymarlzooplus`` or a checkout that all are to act in, or None for the one that they were
            trained in.
        force: whether files in ``output`` are written anew.
        measures: keys of ``units.ASKED``, for what is measured besides wins, on SMAX.

    Returns:
        One row for each run, perturbation and severity.

    Raises:
        LimaskError: a package is missing, an argument is out of range, a run has no checkpoint or cannot act
            on that map; nothing has been evaluated or written then.
    """
    check(runs, asked, episodes, seed)
    found = read_runs(runs)
    kinds = [perturb for perturb, _ in asked if perturb]
    if output is None and len(runs) == 1 and is_campaign(runs[0]):
        output = runs[0] / evaluate_output.FOLDER
    output = output or named("evaluation", found, "+".join(kinds) or map_name or "as_trained")
    check_free(output, evaluate_output.NAMES, force=force)
    where = common_host(found, host)
    require_host(where, *extras_of(found), "report")
    say(f"Loading {where} and its environments: up to half a minute …")
    from limask.experiments.evaluation.battles import Battles

    battles = Battles(where, found, asked, episodes=episodes, map_name=map_name, seed=seed, measures=measures)
    make_folder(output)
    names = [(run.arm, run.environment, map_name or run.task) for run in found]
    table = evaluate_output.Table(kinds, names)
    print(table.heading(), flush=True)
    rows = []
    for row in battles.rows():
        print(table.line(row), flush=True)
        rows.append(row)
    if measures:
        print(markdown_table(evaluate_output.measures_table(rows)))
    evaluate_output.write_csv(output / evaluate_output.CSV, rows)
    print(f"Written: {output / evaluate_output.CSV}")
    if kinds:
        evaluate_output.write_png(output / evaluate_output.PNG, rows)
        print(f"Curves: {output / evaluate_output.PNG}")
    return rows


def check(runs: Sequence[Path], asked: Sequence[Asked], episodes: int, seed: int) -> None:
    """Refuse what no run can be evaluated with; see ``evaluate`` for the arguments.

    Raises:
        LimaskError: names the argument.
    """
    given = [("RUN", [str(run) for run in runs]), ("--perturb", [str(perturb) for perturb, _ in asked])]
    given += [("--severity", [f"{severity:g}" for severity in severities]) for _, severities in asked]
    for name, values in given:
        if len(set(values)) < len(values):
            raise LimaskError(f"{name} {' '.join(values)}: one of them is there twice")
    for perturb, severities in asked:
        if perturb is not None and perturb not in UNITS:
            raise LimaskError(
                f"--perturb {perturb} is no perturbation{nearest(perturb, UNITS)} (known: {', '.join(UNITS)})"
            )
        if (perturb is None) != (not severities):
            raise LimaskError(
                "--perturb and --severity go together, as in `--perturb noise --severity 0 0.1 0.2`"
            )
    if episodes < 1:
        raise LimaskError(f"--episodes={episodes}: expected at least 1")
    check_seed(seed)
