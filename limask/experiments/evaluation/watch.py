"""``limask watch``: battles of trained agents as moving pictures, and what one of the agents makes of them.

What can be refused is refused before torch and the host are loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from limask.errors import LimaskError
from limask.experiments.display import say
from limask.experiments.evaluation import watch_output
from limask.experiments.evaluation.evaluate import check
from limask.experiments.evaluation.runs import TrainedRun, common_host, extras_of, named, read_run
from limask.experiments.evaluation.units import Asked
from limask.experiments.evaluation.watch_film import Film, summary
from limask.files import check_free, make_folder
from limask.requirements import require_host

#: Runs side by side, at most.
SIDE_BY_SIDE = 2


def watch(
    folders: Sequence[Path],
    *,
    agent: int,
    perturb: str | None,
    severity: float | None,
    episodes: int,
    seed: int,
    suffix: str,
    output: Path | None = None,
    host: str | None = None,
    force: bool = False,
) -> list[Film]:
    """Let the last checkpoints of one or two runs fight the same battles, always taking the best action, and
    draw each battle: ``battle_SEED.gif`` or ``.mp4``.

    The battles, and what goes wrong in them, are those of ``limask evaluate``; the masks are those of
    ``limask inspect``.

    Args:
        folders: see ``runs.read_run``.
        agent: whose view is drawn, from 1.
        perturb: a key of ``perturb.REGISTRY``, or None.
        severity: how strong it is; None without ``perturb``.
        episodes: battles.
        seed: battle e is seeded by ``seed + e``, and its perturbation by the pair of both.
        suffix: ``gif`` or ``mp4``.
        output: folder for the files; None is ``watch/RUNS_PERTURBATION``.
        host: ``pymarlzooplus`` or a checkout that all are to act in, or None for the one that they were
            trained in.
        force: whether files in ``output`` are written anew.

    Raises:
        LimaskError: a package is missing, an argument is out of range, a run has no checkpoint or was
            trained where nothing tells places, or ``output`` holds such files; nothing has been written then.
    """
    severities = [] if severity is None else [severity]
    check(folders, [Asked(perturb, severities)], episodes, seed)
    runs = [read_run(folder) for folder in folders]
    _check(runs, agent)
    output = output or named("watch", runs, perturb or "as_trained")
    files = [output / f"battle_{seed + e}.{suffix}" for e in range(episodes)]
    check_free(output, [file.name for file in files], force=force)
    where = common_host(runs, host)
    require_host(where, *extras_of(runs), "report")
    watch_output.check_suffix(suffix)
    say(f"Loading {where} and its environments: up to half a minute …")
    from limask.experiments.evaluation.filming import Filming

    filming = Filming(
        where, runs, agent=agent, perturb=perturb, severities=severities, episodes=episodes, seed=seed
    )
    make_folder(output)
    films = []
    for file, film in zip(files, filming.films(), strict=True):
        watch_output.write(file, film)
        print("\n".join(summary(film)))
        print(f"Written: {file}", flush=True)
        films.append(film)
    return films


def _check(runs: Sequence[TrainedRun], agent: int) -> None:
    if len(runs) > SIDE_BY_SIDE:
        raise LimaskError(f"{len(runs)} runs given: expected one, or two to be seen side by side")
    tasks = list(dict.fromkeys(f"{run.config['env']} {run.task}" for run in runs))
    if len(tasks) > 1:
        raise LimaskError(
            f"the runs were trained on {' and '.join(tasks)}: expected the same map, for they fight the same "
            "battles"
        )
    if agent < 1:
        raise LimaskError(f"--agent={agent}: agents are numbered from 1")
