"""``limask demo``: three arms on one SMAX battle, and their learning curves."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from limask.errors import LimaskError
from limask.experiments.curves import ArmCurves, write_csv, write_png
from limask.experiments.jobs import Job, run_jobs
from limask.experiments.metrics import steps_to_threshold
from limask.experiments.progress import ArmWatch, clock, percent, shown
from limask.experiments.sacred_files import Curve, latest_run, read_curves

if TYPE_CHECKING:
    from rich.table import Table

#: Config of each arm, and what it is.
ARMS = {
    "qmix_fc": "QMIX",
    "qmix_entity": "QMIX, entity trunk",
    "qmix_lim": "QMIX, entity trunk, masked autoencoder",
}

#: What the demo needs, and how to install it.
PACKAGES = {
    "rich": "`pip install 'limask[demo]'`",
    "matplotlib": "`pip install 'limask[demo]'`",
    "jaxmarl": "`pip install 'limask[smax]'`",
    "pymarlzooplus": (
        "`pip install 'limask[pymarlzooplus]'` and then `pip install --no-deps pymarlzooplus==1.1.0`"
    ),
}

_N_LAST = 3  # tests that the last win rate is averaged over


def demo(output: Path, *, t_max: int, seed: int, jobs: int, map_name: str = "3m") -> None:
    """Train every arm on a SMAX map in pymarlzooplus's run loop; print a table, write the curves.

    Args:
        output: folder for everything; must not exist, or be empty.
        t_max: environment steps of each arm.
        seed: seed of every arm.
        jobs: trainings at a time.
        map_name: any scenario of ``env=smax``.

    Raises:
        LimaskError: something is missing or out of range (nothing has been started then), or a training
            failed (the others have been ended then).
        KeyboardInterrupt: Ctrl-C; the trainings have been ended.
    """
    _check(output, t_max, jobs)
    from rich.console import Console

    console = Console()
    print(f"Training {', '.join(ARMS)} on SMAX {map_name} for {t_max:,} steps each, {jobs} at a time.")
    options = {
        "env_args.map_name": map_name,
        "t_max": t_max,
        "seed": seed,
        # Thirty points make a curve; on long runs the config's own interval is fine enough.
        "test_interval": min(10_000, max(1, t_max // 30)),
        # One SGD step for every two episodes, half the configs' rate: a demo is also a matter of patience.
        "batch_size": 128,
    }
    results = output / "runs"
    trainings = [Job(arm, training_command(arm, results, options), output / f"{arm}.log") for arm in ARMS]
    watches = [ArmWatch(training, results, map_name, t_max) for training in trainings]
    with shown(watches, console) as show:
        run_jobs(trainings[::-1], jobs, show)  # the longest first

    title = f"SMAX {map_name}, seed {seed}"
    curves = [_curves(training, results, map_name) for training in trainings]
    write_csv(output / "curves.csv", curves, seed=seed, map_name=map_name)
    write_png(output / "curves.png", curves, title=title, meanings=ARMS)
    console.print(_table(title, curves, trainings, t_max))
    print(f"Curves: {output / 'curves.png'} and {output / 'curves.csv'}")
    print(f"Logs: {output / '*.log'}; what the host wrote: {results}")


def training_command(arm: str, results: Path, options: Mapping[str, object]) -> list[str]:
    """Command that trains ``arm``: what a user would type, with this interpreter."""
    limask = [sys.executable, "-m", "limask"]
    run = [
        "run",
        "--host",
        "pymarlzooplus",
        "--results",
        str(results),
        f"--config={arm}",
        "--env-config=smax",
    ]
    return [*limask, *run, "with", *(f"{key}={value}" for key, value in options.items())]


def _check(output: Path, t_max: int, jobs: int) -> None:
    """Find before the first training what would stop the demo, and make the output folder."""
    for option, value in (("--t-max", t_max), ("--jobs", jobs)):
        if value < 1:
            raise LimaskError(f"{option}={value}: expected at least 1")
    # Looked for and not imported: only the trainings need jax, and it is large.
    for package, command in PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            raise LimaskError(f"limask demo needs {package}, which is not installed: {command}")
    try:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise LimaskError(
                f"--output={output} is there already: choose another folder with --output, or delete it"
            )
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LimaskError(f"--output={output}: {error.strerror}; choose another folder") from error


def _curves(training: Job, results: Path, map_name: str) -> ArmCurves:
    run = latest_run(results, training.name, map_name)
    curves = read_curves(run) if run else {}
    win_rate = curves.get("test_battle_won_mean", Curve())
    if not win_rate.steps:
        raise LimaskError(
            f"{training.name} ended without a test in {results}; its output is in {training.log}"
        )
    return ArmCurves(training.name, win_rate, curves.get("test_return_mean", Curve()))


def _table(title: str, curves: Sequence[ArmCurves], trainings: Sequence[Job], t_max: int) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        title=f"{title}: environment steps to …",
        caption="One seed shows that it runs, not which arm is better.",
        box=box.SIMPLE,
    )
    table.add_column("arm", no_wrap=True)
    for heading in ("… 50 % wins", "… 80 % wins", f"wins, last\n{_N_LAST} tests", "wall-clock"):
        table.add_column(heading, justify="right", no_wrap=True)
    for (arm, win_rate, _), training in zip(curves, trainings, strict=True):
        reached = [steps_to_threshold(*win_rate, threshold) for threshold in (0.5, 0.8)]
        last = win_rate.values[-_N_LAST:]
        table.add_row(
            arm,
            *(f"not within {t_max:,}" if steps is None else f"{steps:,.0f}" for steps in reached),
            percent(sum(last) / len(last)),
            clock(training.seconds),
        )
    return table
