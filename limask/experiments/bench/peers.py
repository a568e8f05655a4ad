"""``limask bench peers``: who wins so many battles after how many steps and CPU seconds.

JaxMARL's own QMIX, the host's and limask's arms are trained on the same battles, one after the other in
processes of one thread each. CPU seconds count from the start of the process: imports, compiling and tests
are what a user waits for, too.
"""

from __future__ import annotations

import csv
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from limask.errors import LimaskError
from limask.experiments.bench import jaxmarl_peer
from limask.experiments.display import Table, say
from limask.experiments.metrics import steps_to_threshold
from limask.files import make_folder, replace

#: Wins that are waited for.
THRESHOLDS = (0.5, 0.8)

#: Environment steps between tests, and battles of each.
TEST_INTERVAL, TEST_BATTLES = 10_000, 32

#: Everybody learns from 32 transitions for each environment step: limask's arms from as many episodes for
#: each episode, the host's from 32 after each, JaxMARL from 8 times 32 pieces of 128 steps after 8 of them.
#: The host's own runner takes one battle at a time; stepped by limask's, it is the same battle, and faster.
_COMMON = (f"test_interval={TEST_INTERVAL}", f"test_nepisode={TEST_BATTLES}", "save_model=False")
HOSTS: Mapping[str, Sequence[str]] = {
    "qmix": ("--config=qmix", "runner=vector", "batch_size_run=1"),
    "qmix_fc": ("--config=qmix_fc",),
    "qmix_lim": ("--config=qmix_lim",),
}

#: As limask's configs have it; the rest is as JaxMARL's own config has it.
_JAXMARL = {
    "NUM_ENVS": 8, "NUM_STEPS": 128, "NUM_EPOCHS": 8, "BUFFER_BATCH_SIZE": 32, "HIDDEN_SIZE": 64,
    "MIXER_EMBEDDING_DIM": 32, "MIXER_HYPERNET_HIDDEN_DIM": 64, "LR": 0.0005, "TEST_NUM_ENVS": TEST_BATTLES,
}  # fmt: skip
_EXPLORES_FOR = 50_000

#: One thread for all of them.
_ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


class Point(NamedTuple):
    """A test."""

    steps: int
    win_rate: float
    cpu_seconds: float


class Race(NamedTuple):
    """Who races, ``jaxmarl`` or of ``HOSTS``, and on what: on ``maps`` for ``steps`` environment steps with
    each of the ``seeds``."""

    peers: Sequence[str]
    maps: Sequence[str]
    seeds: Sequence[int]
    steps: int


#: By peer, map and seed.
Curves = Mapping[tuple[str, str, int], Sequence[Point]]


def peers(race: Race, output: Path, jaxmarl: Path | None, python: str) -> Table:
    """Train whoever has not been trained yet, and sum up: ``peers.csv`` has the curves of all.

    Args:
        race: see ``Race``.
        output: folder for the files; runs that have ended there are not made again.
        jaxmarl: a checkout of JaxMARL, where it races.
        python: the Python that has what the checkout needs.

    Raises:
        LimaskError: a run failed; those before it are kept.
    """
    make_folder(output / "curves")
    curves: dict[tuple[str, str, int], list[Point]] = {}
    for map_name in race.maps:
        for seed in race.seeds:  # one after the other, so that what the machine does falls on all
            for peer in race.peers:
                file = output / f"curves/{peer}_{map_name}_{seed}_{race.steps}.csv"
                if not file.exists():
                    command = (
                        _jaxmarl_command(jaxmarl, python, map_name, seed, race.steps, output)
                        if peer == "jaxmarl" and jaxmarl
                        else _host_command(peer, map_name, seed, race.steps, output)
                    )
                    say(f"{peer} on {map_name}, seed {seed} …")
                    replace(file, partial(_run, command, output))
                curves[peer, map_name, seed] = read_curve(file)
    _write(output / "peers.csv", curves)
    return table(curves)


def _host_command(
    peer: str, map_name: str, seed: int, steps: int, output: Path
) -> Callable[[Path], list[str]]:
    chosen, *overrides = HOSTS[peer]
    given = [*overrides, *_COMMON, f"t_max={steps}", f"seed={seed}", f"env_args.map_name={map_name}"]
    module, results = "limask.experiments.bench.host_peer", str(output / f"runs/{peer}_{map_name}_{seed}")
    return lambda curve: [
        sys.executable, "-m", module, str(curve), results, chosen, "--env-config=smax", "with", *given
    ]  # fmt: skip


def _jaxmarl_command(
    checkout: Path, python: str, map_name: str, seed: int, steps: int, output: Path
) -> Callable[[Path], list[str]]:
    settings = output / f"runs/jaxmarl_{map_name}_{seed}.json"
    make_folder(settings.parent)
    settings.write_text(json.dumps(jaxmarl_settings(map_name, seed, steps), indent=1), encoding="utf-8")
    script = str(Path(jaxmarl_peer.__file__))
    return lambda curve: [python, script, str(checkout.absolute()), str(settings.absolute()), str(curve)]


def jaxmarl_settings(map_name: str, seed: int, steps: int) -> dict[str, object]:
    """What is laid over JaxMARL's config of QMIX on SMAX."""
    n_updates = steps // (_JAXMARL["NUM_STEPS"] * _JAXMARL["NUM_ENVS"])
    per_update = _JAXMARL["NUM_STEPS"] * _JAXMARL["NUM_ENVS"]
    between = max(1, round(TEST_INTERVAL / per_update))
    return {
        **_JAXMARL,
        "TOTAL_TIMESTEPS": steps,
        "MAP_NAME": map_name,
        "SEED": seed,
        # Of all updates; they round it down.
        "TEST_INTERVAL": (between + 0.5) / n_updates,
        "EPS_DECAY": min(1.0, _EXPLORES_FOR / steps),
    }


def _run(to_write: Callable[[Path], list[str]], output: Path, curve: Path) -> None:
    """Raises ``LimaskError`` with the end of what a failed command said."""
    command, log = to_write(curve), output / "log.txt"
    with log.open("wb") as file:
        status = subprocess.run(command, stdout=file, stderr=file, env=os.environ | _ONE_THREAD).returncode
    if status:
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
        raise LimaskError(
            f"{' '.join(command)} ended with status {status}; {log} ends with:\n" + "\n".join(said)
        )


def read_curve(file: Path) -> list[Point]:
    """The tests of a run."""
    with file.open(newline="", encoding="utf-8") as lines:
        rows = csv.DictReader(lines)
        return [Point(int(row["steps"]), float(row["win_rate"]), float(row["cpu_seconds"])) for row in rows]


def _write(file: Path, curves: Curves) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as lines:
            writer = csv.writer(lines, lineterminator="\n")
            writer.writerow(("peer", "map", "seed", *Point._fields))
            writer.writerows((*key, *point) for key, curve in curves.items() for point in curve)

    replace(file, write)


def table(curves: Curves) -> Table:
    """By map and peer the CPU seconds and environment steps to each threshold, and the CPU seconds of a whole
    run: the median over the seeds, and each seed's; – where a seed did not get there."""
    rows = []
    for map_name, peer in dict.fromkeys((map_name, peer) for peer, map_name, _ in curves):
        own = [curve for key, curve in curves.items() if key[:2] == (peer, map_name)]
        cells = [_median([curve[-1].cpu_seconds for curve in own])]
        for threshold in THRESHOLDS:
            reached = [first_at(curve, threshold) for curve in own]
            cells.append(_median([point and point.cpu_seconds for point in reached]))
            cells.append(_median([point and point.steps for point in reached]))
        rows.append([map_name, peer, *cells])
    to = [f"{what} to {100 * threshold:.0f} %" for threshold in THRESHOLDS for what in ("CPU s", "steps")]
    return Table(["map", "peer", "CPU s of a run", *to], rows, (0, 1))


def first_at(curve: Sequence[Point], threshold: float) -> Point | None:
    """The test at which a run got there: see ``steps_to_threshold``."""
    steps = steps_to_threshold(
        [point.steps for point in curve], [point.win_rate for point in curve], threshold
    )
    return next((point for point in curve if point.steps == steps), None)


def _median(numbers: Sequence[float | None]) -> str:
    """``120 (110, 120, –)``."""
    each = ", ".join("–" if number is None else f"{number:,.0f}" for number in numbers)
    middle = statistics.median(float("inf") if number is None else number for number in numbers)
    return f"{'–' if middle == float('inf') else f'{middle:,.0f}'} ({each})"
