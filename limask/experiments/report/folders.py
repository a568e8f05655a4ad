"""Runs that no campaign has made: sacred's folders below any folder, of every host, grouped by config, map
and seed into what a report takes."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from limask.config.nested import flat
from limask.errors import DIVERGED_FILE, LimaskError
from limask.experiments.campaign.collect import tests_of
from limask.experiments.campaign.plan import Arm, Campaign, Environment, Run
from limask.experiments.display import say
from limask.experiments.report.assemble import NAMES, assemble, option
from limask.experiments.report.data import FoundRun, Report, Result
from limask.experiments.storage.sacred_files import host_of_run, task_of
from limask.files import json_of
from limask.install.families import PYMARLZOOPLUS
from limask.protocols import Block, State

#: Options that change what is written, measured or said of a training, and not the training.
_BESIDE = NAMES | {
    "buffer_cpu_only", "env", "evaluate", "learner_log_interval", "load_step", "log_interval",
    "runner_log_interval", "save_model", "save_model_interval", "save_replay", "t_max", "test_interval",
    "test_nepisode", "use_cuda", "use_tensorboard", "use_wandb",
}  # fmt: skip

#: What is known of each run, and has to be.
_NEEDED = ("name", "env", "env_args", "seed", "t_max", "test_interval")

#: Points of a drawn curve at most.
_POINTS = 200

#: What sacred calls an end, and a report.
_STATUS = {"COMPLETED": "finished", "RUNNING": "running", "FAILED": "failed", "INTERRUPTED": "interrupted"}


class _Kind(NamedTuple):
    """What tells arms, or maps, apart: a name, then the host or environment, then the options."""

    name: str
    where: str
    options: tuple[tuple[str, str], ...]


class _Trained(NamedTuple):
    """A run in sacred's folder ``folder``; ``record`` is sacred's ``run.json``."""

    folder: Path
    config: State
    record: State
    arm: _Kind
    map: _Kind

    @property
    def key(self) -> tuple[_Kind, _Kind, int]:
        """What another run with the same would only repeat."""
        return self.arm, self.map, self.config["seed"]

    @property
    def rank(self) -> tuple[bool, str]:
        """Of two runs of one key the one of the higher rank counts: what ended well, and then the later."""
        return self.record.get("status") == "COMPLETED", str(self.record.get("start_time"))


def read_folders(folders: Sequence[Path], *, budget: int | None, thresholds: Sequence[float]) -> Report:
    """Find the runs below ``folders`` and compute their numbers.

    Arms are in the order in which they are found: the first is the baseline, the last is compared with all
    others.

    Args:
        folders: any of them: results of a host or of ``limask run``, sacred's own, folders of these.
        budget: environment steps that the runs are compared over; None is the smallest ``t_max`` of them.
        thresholds: win rates that a run reaches sooner or later.

    Raises:
        LimaskError: a folder is not there, or holds no run, or none that counts.
    """
    runs = _distinct(_read(folders))
    arms, maps = _named([run.arm for run in runs]), _named([run.map for run in runs])
    t_max = budget or min(run.config["t_max"] for run in runs)
    interval = max(min(run.config["test_interval"] for run in runs), -(-t_max // _POINTS))
    configs = {run.arm: run.config["name"] for run in runs}
    environments = {run.map: run.config for run in runs}
    campaign = Campaign(
        host=", ".join(dict.fromkeys(run.arm.where for run in runs)),
        arms=tuple(Arm(name, configs[kind], {}) for kind, name in arms.items()),
        environments=tuple(
            Environment(name, environments[kind]["env"], environments[kind]["env_args"])
            for kind, name in maps.items()
        ),
        seeds=tuple(sorted({run.config["seed"] for run in runs})),
        t_max=t_max,
        test_interval=min(interval, t_max),
        thresholds=tuple(thresholds),
        overrides={},
        max_attempts=1,
        sinks=(),
        compat=False,
    )
    of_arm = dict(zip(arms, campaign.arms, strict=True))
    of_map = dict(zip(maps, campaign.environments, strict=True))
    found = [
        _found(run, Run(of_arm[run.arm], of_map[run.map], run.config["seed"]))
        for run in sorted(runs, key=lambda run: (run.config["seed"], [*maps].index(run.map)))
    ]
    name = ", ".join(folder.resolve().name for folder in folders)
    advice = f"they are compared over {t_max:,} environment steps: --budget STEPS takes fewer"
    return assemble(name, campaign, found, advice=advice, is_planned=False)


def _read(folders: Iterable[Path]) -> list[_Trained]:
    runs: dict[Path, _Trained] = {}
    for folder in folders:
        if not folder.is_dir():
            raise LimaskError(f"{folder} is not there: expected a folder with runs in it")
        here = sorted(path.parent for path in folder.rglob("config.json") if path.parent.name.isdecimal())
        if not here:
            raise LimaskError(
                f"{folder} holds no run: expected folders as sacred writes them, as results/sacred/qmix/3m/1 "
                "with config.json and metrics.json in it"
            )
        for path in here:
            config = json_of(path / "config.json")
            if absent := [key for key in _NEEDED if key not in config]:
                say(f"left out: {path}: its config.json has no {', '.join(absent)}")
            elif config.get("evaluate"):
                say(f"left out: {path}: it evaluated a checkpoint (evaluate=True) and trained nothing")
            else:
                runs.setdefault(path.resolve(), _trained(path, config))
    if not runs:
        raise LimaskError(f"{', '.join(map(str, folders))}: no run that trained anything")
    return list(runs.values())


def _trained(folder: Path, config: State) -> _Trained:
    host = host_of_run(folder)
    where = PYMARLZOOPLUS if host == PYMARLZOOPLUS else Path(host).name
    options, env_args = flat(config), dict(config["env_args"])
    env_args.pop("seed", None)
    learning = {
        key: value
        for key, value in options.items()
        if key not in _BESIDE and not key.startswith(("env_args.", "wandb"))
    }
    return _Trained(
        folder,
        config,
        json_of(folder / "run.json"),
        _Kind(str(config["name"]), where, _texts(learning)),
        _Kind(task_of(config), str(config["env"]), _texts(flat(env_args))),
    )


def _texts(options: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((key, json.dumps(value)) for key, value in sorted(options.items()))


def _distinct(runs: Iterable[_Trained]) -> list[_Trained]:
    """One run for each arm, map and seed: the same one twice would count as two."""
    chosen: dict[tuple[_Kind, _Kind, int], _Trained] = {}
    for run in runs:
        before = chosen.setdefault(run.key, run)
        if before is not run:
            better, other = (run, before) if run.rank > before.rank else (before, run)
            chosen[run.key] = better
            say(f"left out: {other.folder}: config, map and seed are those of {better.folder}")
    return list(chosen.values())


def _named(kinds: Iterable[_Kind]) -> dict[_Kind, str]:
    """A name for each kind, in their order: its own, and what tells it from others of that name."""
    distinct = list(dict.fromkeys(kinds))
    names: dict[_Kind, str] = {}
    for kind in distinct:
        same = [other for other in distinct if other.name == kind.name]
        here = [other for other in same if other.where == kind.where]
        where = [kind.where] if len(here) < len(same) else []
        names[kind] = " ".join([kind.name, *where, *_telling(kind, here)])
    return names


def _telling(kind: _Kind, others: Sequence[_Kind]) -> list[str]:
    """The options of ``kind``, as few as it takes, by which all of ``others`` are told apart."""
    options = [{key: json.loads(value) for key, value in other.options} for other in others]
    keys = sorted({key for own in options for key in own})

    def n_distinct(chosen: Sequence[str]) -> int:
        return len({tuple(option(own, key) for key in chosen) for own in options})

    chosen: list[str] = []
    while n_distinct(chosen) < len(others):
        chosen.append(max(keys, key=lambda key: n_distinct([*chosen, key])))
    last = [key.rpartition(".")[2] for key in chosen]
    own = options[list(others).index(kind)]
    texts = [option(own, key) for key in chosen]
    return [
        text.replace(key, short) if last.count(short) == 1 else text
        for text, key, short in zip(texts, chosen, last, strict=True)
    ]


def _found(trained: _Trained, run: Run) -> FoundRun:
    result, left_out = None, ""
    is_diverged = _has_diverged(trained)
    try:
        tests = tests_of(trained.folder)
    except LimaskError as error:
        tests, left_out = [], str(error)
    if tests or is_diverged:
        result = Result(run.arm.id, run.environment.id, run.seed, tests, is_diverged)
    status = _STATUS.get(str(trained.record.get("status")), "unknown")
    return FoundRun(
        run=run,
        status="diverged" if is_diverged else status,
        result=result,
        left_out="" if result else left_out,
        sacred=trained.folder,
        attempts=1,
        seconds=_seconds(trained.record),
        reason="",
        command=str(trained.folder),
        made_with=_made_with(trained),
    )


def _has_diverged(trained: _Trained) -> bool:
    """Whether it is the one run in a folder of ``limask run``, which wrote down that it diverged."""
    results = next((path.parent for path in trained.folder.parents if path.name == "sacred"), None)
    if results is None or trained.record.get("status") != "FAILED":
        return False
    is_alone = sum(path.parent.name.isdecimal() for path in results.rglob("config.json")) == 1
    return is_alone and (results / DIVERGED_FILE).is_file()


def _seconds(record: Block) -> float | None:
    try:
        start, stop = (datetime.datetime.fromisoformat(record[key]) for key in ("start_time", "stop_time"))
    except (KeyError, TypeError, ValueError):
        return None
    return (stop - start).total_seconds()


def _made_with(trained: _Trained) -> State:
    """Versions and machine as sacred knows them."""
    machine, experiment = (trained.record.get(key) or {} for key in ("host", "experiment"))
    packages = dict(text.split("==", 1) for text in experiment.get("dependencies", []) if "==" in text)
    commits = [item.get("commit") for item in experiment.get("repositories", [])]
    return {
        "host": trained.arm.where,
        "host_commit": commits[0] if commits else None,
        "python": machine.get("python_version"),
        "packages": packages,
        "system": (machine.get("os") or [None])[-1],
        "cpu": machine.get("cpu"),
    }
