"""Fills the tables in docs/hosts.md from real short runs: python tests/host_table.py CHECKOUT …

Each host × algorithm × environment is trained for some hundred steps through ``limask run``, its last loss
is read from what sacred wrote, and its last checkpoint is loaded and evaluated by the host's own options.
What came of it is kept in docs/results/hosts.json; a part is run again by ``--only pymarl2``. In the place of
StarCraft II is ``sc2_stand_in``. The tables say ✓ or ✗; ``--from-records`` writes them, and the one in
README.md, from docs/results/hosts.json without running anything.

To add an algorithm or an environment, add a line to ``ALGORITHMS`` or ``ENVIRONMENTS``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from sc2_stand_in.installation import make_installation

from limask.install import recognised
from limask.install.families import family_of

ROOT = Path(__file__).resolve().parents[1]
RECORDS, PAGE, README = ROOT / "docs/results/hosts.json", ROOT / "docs/hosts.md", ROOT / "README.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
ZOO = "pymarlzooplus"
#: What the records say of a pair that does not exist, and how they begin for a run that failed.
NOT_THERE, FAILED = "not in this host", "**no**: "
#: The row of the README's table.
SHOWN = "qmix_lim"
#: Environment → host → algorithm → what came of it.
Records = dict[str, dict[str, dict[str, str]]]


class Case(NamedTuple):
    """An algorithm or environment: its ``--config`` or ``--env-config``, overrides that it needs, and where
    it exists, as keys of ``limask.install.families`` (or pymarlzooplus; None: everywhere)."""

    name: str
    config: str
    overrides: tuple[str, ...] = ()
    hosts: frozenset[str] | None = None


#: The hosts' own algorithms step one environment: each further one is a process that compiles SMAX anew.
ONE_BATTLE = ("runner=episode", "batch_size_run=1")
#: They learn from the episodes just played.
ON_POLICY = ("batch_size=10", "buffer_size=10")
#: What is inferred reaches the agent while these short trainings last.
LET_IN = ("lim.autoencoder.warmup=200",)
#: MA²E is pretrained, and acts, while they last.
PRETRAINED = ("lim.team.pretrain_episodes=16", "lim.team.pretrain_updates=10")
ALL_BUT_OLD = frozenset({ZOO, "epymarl", "epymarl_v1"})
ALGORITHMS = [
    Case("qmix (stock)", "qmix", ONE_BATTLE),
    Case("qmix_fc", "qmix_fc"),
    Case("qmix_entity", "qmix_entity"),
    Case("qmix_lim", "qmix_lim", LET_IN),
    Case("qmix_lim_robust", "qmix_lim_robust", LET_IN),
    Case("qmix_fc_lim", "qmix_fc_lim"),
    Case("qmix_entity_lim", "qmix_entity_lim"),
    Case("qmix_ma2e", "qmix_ma2e", PRETRAINED),
    Case("qmix_li_ma2e", "qmix_li_ma2e", PRETRAINED),
    Case("vdn_lim", "vdn_lim", LET_IN),
    Case("iql_lim", "iql_lim", LET_IN),
    Case("hpn_qmix (stock)", "hpn_qmix", hosts=frozenset({"pymarl3"})),  # in StarCraft II alone
    Case("qatten_lim", "qatten_lim", LET_IN, frozenset({"pymarl2", "pymarl3"})),
    Case("qplex_lim", "qplex_lim", hosts=frozenset({ZOO, "pymarl2", "pymarl3"})),
    Case("mappo_lim", "mappo_lim", ON_POLICY, ALL_BUT_OLD),
    Case("ippo_lim", "ippo_lim", ON_POLICY, ALL_BUT_OLD),
    Case("maa2c_lim", "maa2c_lim", ON_POLICY, ALL_BUT_OLD),
]
ENVIRONMENTS = [
    Case("SMAX 3m", "smax", ("env_args.map_name=3m",)),
    Case(
        "LBF 2s-8x8-2p-2f-coop",
        "gymma",
        ("env_args.key=lbforaging:Foraging-2s-8x8-2p-2f-coop-v3", "env_args.time_limit=50"),
        frozenset({ZOO, "epymarl"}),
    ),
    Case("SC2 3m, stand-in", "sc2", ("env_args.map_name=3m", "runner=episode", "batch_size_run=1")),
    Case("SMAClite 2s3z", "smaclite", ("env_args.map_name=2s3z",), frozenset({"epymarl"})),
    Case(
        "RWARE tiny-2ag",
        "gymma",
        ("env_args.key=rware:rware-tiny-2ag-v2", "env_args.time_limit=50"),
        frozenset({"epymarl"}),
    ),
    Case(
        "MPE simple-spread",
        "gymma",
        ("env_args.key=pz-mpe-simple-spread-v3", "env_args.time_limit=25"),
        frozenset({"epymarl"}),
    ),
    Case(
        "VMAS balance",
        "gymma",
        ("env_args.key=vmas-balance", "env_args.time_limit=50"),
        frozenset({"epymarl"}),
    ),
]


class Host(NamedTuple):
    """``where`` is what ``limask run --host`` takes; ``key`` is the family's."""

    key: str
    name: str
    where: str


def hosts(checkouts: list[Path]) -> list[Host]:
    """pymarlzooplus and the checkouts, named by family and git version."""
    found = [Host(ZOO, f"pymarlzooplus {version(ZOO)}", ZOO)]
    for checkout in checkouts:
        root = recognised(checkout)
        family = family_of(root)
        command = ["git", "-C", str(root), "describe", "--tags", "--always"]
        tag = subprocess.run(command, text=True, capture_output=True, check=True).stdout.strip()
        found.append(Host(family.key, f"{family.name.split(' ')[0]} `{tag}`", str(root)))
    return found


# -- one run ----------------------------------------------------------------------------------------------


def run(command: list[str], folder: Path, seconds: float, game: Mapping[str, str]) -> None:
    """Run to the end, with the variables of ``game``; what fails is a RuntimeError with the last error it
    printed.

    The run and all of its worker processes are killed together.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # SMAX is compiled once for all runs.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder.parents[1] / "jax")}
    cache |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    env = cache | os.environ | {"OMP_NUM_THREADS": "1"}
    env |= game
    paths = (str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH"))  # tests: the stand-in's
    env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    with open(folder / "output.txt", "w+") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise RuntimeError(f"not done within {seconds:.0f} s") from None
        output.seek(0)
        lines = [line for line in output.read().splitlines() if line.strip()]
    if status:
        errors = [line for line in lines if "Error" in line]
        raise RuntimeError((errors or lines or [f"status {status}"])[-1].strip())


def last(results: Path, *names: str) -> tuple[int, float]:
    """Environment steps and value of the last entry that sacred was told of under one of these names."""
    for path in results.rglob("metrics.json"):
        for series in filter(None, map(json.loads(path.read_text()).get, names)):
            return int(series["steps"][-1]), float(series["values"][-1])
    for path in results.rglob("info.json"):
        info = json.loads(path.read_text())
        for name in filter(info.__contains__, names):
            return int(info[f"{name}_T"][-1]), float(info[name][-1])
    raise RuntimeError(f"{names[0]} was not logged")


def trial(host: Host, algorithm: Case, environment: Case, steps: int, seconds: float, work: Path) -> str:
    """Train, look at the loss, load the last checkpoint and evaluate it; what came of it, for the table."""
    command = [sys.executable, "-m", "limask", "run", "--compat", "--host", host.where, "--results", "out"]
    command += [f"--config={algorithm.config}", f"--env-config={environment.config}", "with", "seed=1"]
    command += [*environment.overrides, "use_tensorboard=False"]
    train = [f"t_max={steps}", "batch_size=16", "buffer_size=200", "test_nepisode=8", "save_model=True"]
    train += ["save_model_interval=200", "learner_log_interval=0"]
    game = {"SC2PATH": str(make_installation(work / "StarCraftII"))} if environment.config == "sc2" else {}
    run([*command, *train, *algorithm.overrides], work / "train", seconds, game)
    at, loss = last(work / "train/out", "loss", "loss_td", "pg_loss")
    if not math.isfinite(loss):
        raise RuntimeError(f"loss {loss} after {at} steps")
    models = [path.parent for path in (work / "train/out").rglob("agent.th")]
    if not models:
        raise RuntimeError(f"{at} steps, loss {loss:.3g}, and no checkpoint")
    newest = max(models, key=lambda path: int(path.name))
    evaluate = ["evaluate=True", f"checkpoint_path={newest.parent}", "test_nepisode=1"]
    run([*command, *evaluate, *algorithm.overrides], work / "evaluate", seconds, game)
    # A host that has loaded a checkpoint counts on from its steps.
    if last(work / "evaluate/out", "test_return_mean")[0] != int(newest.name):
        raise RuntimeError(f"{at} steps, loss {loss:.3g}, and the checkpoint was not loaded")
    return f"{at} steps, loss {loss:.3g}, reloaded"


# -- the table --------------------------------------------------------------------------------------------


def fill(arguments: argparse.Namespace) -> None:
    """Make the runs that are asked for, one after another, and write down each as it ends."""
    records = json.loads(RECORDS.read_text()) if RECORDS.is_file() else {}
    trials = [
        (environment, host, algorithm)
        for environment in ENVIRONMENTS
        for host in hosts(arguments.checkouts)
        for algorithm in ALGORITHMS
        if not arguments.only or host.key in arguments.only
        if not arguments.algorithms or algorithm.name in arguments.algorithms
        if not arguments.environments or environment.name in arguments.environments
    ]
    with tempfile.TemporaryDirectory() as folder:
        for number, (environment, host, algorithm) in enumerate(trials):
            begun = time.monotonic()
            outcome = outcome_of(host, algorithm, environment, arguments, Path(folder) / str(number))
            names = " × ".join((host.name, algorithm.name, environment.name))
            print(f"{names}: {outcome} ({time.monotonic() - begun:.0f} s)", flush=True)
            records.setdefault(environment.name, {}).setdefault(host.name, {})[algorithm.name] = outcome
            RECORDS.write_text(json.dumps(records, indent=2, ensure_ascii=False) + "\n")
            write_pages(records)


def outcome_of(host: Host, algorithm: Case, environment: Case, arguments: Any, work: Path) -> str:
    """What came of one trial, or why it cannot be."""
    for case in (algorithm, environment):
        if case.hosts is not None and host.key not in case.hosts:
            return NOT_THERE
    try:
        return trial(host, algorithm, environment, arguments.steps, arguments.timeout, work)
    except RuntimeError as error:
        return f"{FAILED}{error}"


def write_pages(records: Records) -> None:
    """Put the tables between the markers of the page, and the short one into the README."""
    for path, text in ((PAGE, tables(records)), (README, summary(records))):
        path.write_text(with_table(path.read_text(encoding="utf-8"), text), encoding="utf-8")


def with_table(page: str, table: str) -> str:
    """The page with this between its markers."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def tables(records: Records) -> str:
    """A table in Markdown for each environment, algorithms down and hosts across; below them the failures."""
    parts: list[str] = []
    failures: list[list[str]] = []
    for environment, by_host in records.items():
        ran = {name for cells in by_host.values() for name in cells}
        rows = []
        for algorithm in (case.name for case in ALGORITHMS if case.name in ran):
            cells = []
            for host, outcomes in by_host.items():
                outcome = outcomes.get(algorithm, "")
                if outcome.startswith(FAILED):
                    error = outcome.removeprefix(FAILED)
                    run = f"{in_code(algorithm)} on {environment} in {host}"
                    failures.append([f"✗ ({len(failures) + 1})", run, f"`{error}`"])
                    cells.append(failures[-1][0])
                else:
                    cells.append(sign(outcome))
            rows.append([in_code(algorithm), *cells])
        parts.append(table([environment, *by_host], rows))
    if failures:
        parts.append(table(["failed", "what", "error"], failures))
    return "\n".join(parts)


def summary(records: Records) -> str:
    """One table of ``SHOWN``: hosts down, environments across. An environment's name ends at its map's."""
    hosts = dict.fromkeys(host for by_host in records.values() for host in by_host)
    rows = [
        [host, *(sign(by_host.get(host, {}).get(SHOWN, "")) for by_host in records.values())]
        for host in hosts
    ]
    return table([in_code(SHOWN), *(name.split(" ")[0] for name in records)], rows)


def sign(outcome: str) -> str:
    """``✓``: trained, reloaded and evaluated; ``✗``: failed; ``–``: nothing to run there, or not run."""
    if outcome in ("", NOT_THERE):
        return "–"
    return "✗" if outcome.startswith(FAILED) else "✓"


def in_code(name: str) -> str:
    """``qmix (stock)`` → ```qmix` (stock)``."""
    config, _, rest = name.partition(" ")
    return f"`{config}` {rest}".rstrip()


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown; columns of signs are centred."""
    signs = [all(row[column][:1] in "✓✗–" for row in rows) for column in range(len(head))]
    lines = [head, [":-:" if is_sign else "---" for is_sign in signs], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkouts", type=Path, nargs="*")
    parser.add_argument("--steps", type=int, default=600, help="environment steps of a training")
    parser.add_argument("--timeout", type=float, default=600, help="seconds that a run may take")
    parser.add_argument("--only", nargs="+", help="pymarlzooplus, or keys of limask.install.families")
    parser.add_argument("--algorithms", nargs="+", help="names in ALGORITHMS")
    parser.add_argument("--environments", nargs="+", help="names in ENVIRONMENTS")
    text = "write the tables from docs/results/hosts.json and run nothing"
    parser.add_argument("--from-records", action="store_true", help=text)
    given = parser.parse_args()
    if given.from_records:
        write_pages(json.loads(RECORDS.read_text(encoding="utf-8")))
    else:
        fill(given)
