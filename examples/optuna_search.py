"""A search for hyperparameters over ``limask run``, to be copied and changed: its space, host and budget.

``pip install optuna``, then for example::

    python examples/optuna_search.py --env-config=smax --trials 20 --steps 100000 env_args.map_name=3m

Every trial trains each seed in turn and is worth the mean win rate of their last tests. The study is kept in
``search/study.db``: the same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from limask.experiments.storage.sacred_files import latest_run, read_curves

try:
    import optuna
except ImportError as error:
    raise SystemExit(f"{error}: `pip install optuna`") from error

#: Win rates of the last tests of a run are averaged, for one test alone swings by 20 points.
LAST_TESTS = 5


def space(trial: optuna.Trial) -> dict[str, object]:
    """Options of a trial by the names that a command line gives them."""
    return {
        "lr": trial.suggest_float("lr", 1e-4, 1e-3, log=True),
        "lim.masker.ratio": trial.suggest_float("lim.masker.ratio", 0.1, 0.9),
        "lim.autoencoder.weight": trial.suggest_float("lim.autoencoder.weight", 0.01, 1.0, log=True),
        "lim.autoencoder.warmup": trial.suggest_int("lim.autoencoder.warmup", 0, 40000, step=10000),
    }


def score(results: Path) -> float:
    """Mean win rate of the last tests of the run in ``results``.

    Raises:
        ValueError: it has no test.
    """
    run = latest_run(results)
    tests = read_curves(run).get("test_battle_won_mean") if run is not None else None
    if tests is None or not tests.values:
        raise ValueError(f"{results} has no test of a run: expected test_battle_won_mean in metrics.json")
    last = tests.values[-LAST_TESTS:]
    return sum(last) / len(last)


def train(options: argparse.Namespace, chosen: dict[str, object], seed: int, results: Path) -> float:
    """Train one seed as ``limask run`` does, and return its score.

    Raises:
        subprocess.CalledProcessError: the run failed; what it printed is in ``results/log.txt``.
    """
    results.mkdir(parents=True, exist_ok=True)
    given = {**chosen, "t_max": options.steps, "test_interval": options.steps // 20, "seed": seed}
    command = [sys.executable, "-m", "limask", "run", "--host", options.host, "--results", str(results)]
    command += [f"--config={options.config}", f"--env-config={options.env_config}", "with", *options.fixed]
    command += [f"{name}={value}" for name, value in given.items()]
    with (results / "log.txt").open("w") as log:
        subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)
    return score(results)


def main(arguments: list[str] | None = None) -> optuna.Study:
    """Run the search; returns the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--host", default="pymarlzooplus", help="pymarlzooplus, or the folder of a checkout")
    parser.add_argument("--config", default="qmix_lim")
    parser.add_argument("--env-config", default="smax")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps of each run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of every trial")
    parser.add_argument("--output", type=Path, default=Path("search"), help="folder for study and runs")
    parser.add_argument("fixed", nargs="*", help="options of every run, as env_args.map_name=3m")
    options = parser.parse_args(arguments)

    def objective(trial: optuna.Trial) -> float:
        chosen, folder = space(trial), options.output / f"trial_{trial.number}"
        scores = [train(options, chosen, seed, folder / f"seed_{seed}") for seed in options.seeds]
        return sum(scores) / len(scores)

    options.output.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name="limask",
        storage=f"sqlite:///{options.output / 'study.db'}",
        sampler=optuna.samplers.TPESampler(seed=0),
        direction="maximize",
        load_if_exists=True,
    )
    done = sum(trial.state == optuna.trial.TrialState.COMPLETE for trial in study.trials)
    # A run that fails ends its trial, not the search: the study keeps which it was.
    failures = (subprocess.CalledProcessError, ValueError)
    study.optimize(objective, n_trials=max(0, options.trials - done), catch=failures)
    return study


if __name__ == "__main__":
    found = main()
    print(f"best: {found.best_value:.3f} with {found.best_params}")
