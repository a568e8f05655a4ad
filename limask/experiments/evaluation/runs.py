"""A trained run found again: where, in which host and how it was trained, and its last checkpoint.

Nothing here needs torch: what cannot be evaluated is refused before that is loaded.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from limask import resources
from limask.config import restored
from limask.errors import LimaskError, nearest
from limask.experiments.campaign.folder import CampaignFolder, is_campaign
from limask.experiments.display import say
from limask.experiments.storage.sacred_files import host_of_run, sacred_runs, task_of
from limask.files import read_json
from limask.install.families import PYMARLZOOPLUS
from limask.protocols import State

#: What every host prints of each checkpoint, and sacred keeps: its folder is named nowhere else.
_SAVED = re.compile(r"Saving models to (.+)[/\\]\d+\s*$", re.MULTILINE)

#: Seconds that a run may go on after sacred last wrote that it is alive.
_LATE = 60.0

#: Runs that a folder is named by; of more, the first of them stand for all.
_NAMED = 3


class TrainedRun(NamedTuple):
    """A run that left a checkpoint.

    Attributes:
        folder: as it was given.
        host: ``pymarlzooplus``, or the root of the checkout that it was trained in.
        arm: its arm in a campaign, or else its config's name.
        environment: its environment in a campaign, or else its task.
        config: all of the host's options, as sacred recorded them.
        checkpoint: folder of the last checkpoint, named by its environment steps.
    """

    folder: Path
    host: str
    arm: str
    environment: str
    config: State
    checkpoint: Path

    @property
    def name(self) -> str:
        """Arm, environment and seed, as a campaign names its runs."""
        return f"{self.arm}/{self.environment}/seed_{self.config['seed']}"

    @property
    def task(self) -> str:
        """The map that it was trained on, or its like."""
        return task_of(self.config)

    @property
    def steps(self) -> int:
        """Environment steps that the checkpoint was trained for."""
        return int(self.checkpoint.name)


def read_run(folder: Path) -> TrainedRun:
    """Find what is needed of a run.

    Args:
        folder: an attempt of a campaign (``runs/ARM/MAP/seed_N/attempt_K``), the folder given to
            ``limask run --results``, a checkout that holds a single run, sacred's own folder of a run, what
            ``limask export`` wrote, or the name of agents that limask brings, as ``qmix_lim/3m``.

    Raises:
        LimaskError: it is none of these, holds several runs, has no checkpoint, or learned no action values.
    """
    is_attempt = (folder / "results").is_dir() and (folder / "run.json").is_file()
    record = read_json(folder / "run.json") if is_attempt else {}
    sacred = _sacred_folder(folder)
    config = read_json(sacred / "config.json")
    if "lim" in config:  # runs of before options were grouped
        config["lim"] = restored(config["lim"])
    absent = {"agent_output_type", "env", "env_args", "mac", "name", "seed", "t_max"} - config.keys()
    if absent:
        raise LimaskError(f"{sacred / 'config.json'} has no {', '.join(sorted(absent))}: expected a host's")
    if config["agent_output_type"] != "q":
        raise LimaskError(
            f"{folder} was trained with agent_output_type={config['agent_output_type']}: expected action "
            "values, agent_output_type=q"
        )
    arm, environment = config["name"], task_of(config)
    if "run" in record:
        arm, environment, _ = record["run"].split("/")
    checkpoint = _last_checkpoint(folder, sacred, config)
    return TrainedRun(folder, record.get("host") or host_of_run(sacred), arm, environment, config, checkpoint)


def read_runs(folders: Sequence[Path]) -> list[TrainedRun]:
    """``read_run`` of each folder, and in the place of a campaign's folder of all of its runs that have ended
    and left a checkpoint; the others are named.

    Raises:
        LimaskError: see ``read_run`` and ``CampaignFolder.existing``; or a campaign has no such run.
    """
    found = []
    for folder in folders:
        if not is_campaign(folder):
            found.append(read_run(folder))
            continue
        n_before = len(found)
        for state in CampaignFolder.existing(folder).states(is_running=False):
            if state.state == "done" and state.attempt:
                try:
                    found.append(read_run(state.attempt.folder))
                except LimaskError as error:
                    say(f"left out: {error}")
        if len(found) == n_before:
            raise LimaskError(f"{folder}: no run of this campaign has ended and left a checkpoint")
    return found


def common_host(runs: Iterable[TrainedRun], asked: str | None) -> str:
    """The host of all runs: the one ``asked`` for, or the one that they were trained in.

    Raises:
        LimaskError: they were trained in several, or in a checkout that is not there any more.
    """
    if asked is not None:
        return asked
    trained = {run.host: run for run in runs}
    if len(trained) > 1:
        one, other, *_ = trained.values()
        raise LimaskError(
            f"{one.folder} was trained in {one.host} and {other.folder} in {other.host}: evaluate the runs "
            "of each host by themselves, or name one host that all are to act in with --host"
        )
    ((host, run),) = trained.items()
    if host != PYMARLZOOPLUS and not Path(host).is_dir():
        raise LimaskError(
            f"{run.folder} was trained in {host}, which is not there: name a checkout of the same codebase "
            "with --host"
        )
    return host


def extras_of(runs: Iterable[TrainedRun]) -> list[str]:
    """Extras of limask's that the environments of ``runs`` need."""
    return ["smax"] if any(run.config["env"] == "smax" for run in runs) else []


def named(what: str, runs: Sequence[TrainedRun], *more: str) -> Path:
    """Folder ``what/NAMES_MORE`` for what is found out about ``runs``, where no other was asked for."""
    names = [run.name.replace("/", "_") for run in runs]
    if len(names) > _NAMED:
        names[_NAMED - 1 :] = [f"{len(names) - _NAMED + 1}_more"]
    return Path(what) / "_".join(["+".join(names), *more])


def check_seed(seed: int) -> None:
    """Refuse a ``--seed`` that numpy or jax would not take.

    Raises:
        LimaskError: it is out of range.
    """
    if not 0 <= seed < 2**31:
        raise LimaskError(f"--seed={seed}: expected a number from 0 to 2147483647")


def _sacred_folder(folder: Path) -> Path:
    if (folder / "config.json").is_file():
        return folder
    if not folder.exists():
        return _brought(folder)
    runs = sacred_runs(folder / "results" if (folder / "results").is_dir() else folder)
    if not runs:
        raise LimaskError(
            f"{folder} holds no run: expected an attempt of a campaign (runs/ARM/MAP/seed_N/attempt_K), the "
            "folder given to `limask run --results`, or one of a run in a checkout's results/sacred"
        )
    if len(runs) > 1:
        raise LimaskError(f"{folder} holds {len(runs)} runs: name one of them, as in {runs[0]}")
    return runs[0]


def _brought(name: Path) -> Path:
    """The folder of the agents of that name that limask brings."""
    models = resources.models_dir()
    if (models / name / "config.json").is_file():
        return models / name
    known = sorted(file.parent.relative_to(models).as_posix() for file in models.rglob("config.json"))
    raise LimaskError(
        f"{name} is no folder, and limask brings no agents of that name{nearest(name.as_posix(), known)} "
        f"(it brings {', '.join(known)})"
    )


def _last_checkpoint(folder: Path, sacred: Path, config: State) -> Path:
    """The checkpoint after the most steps.

    pymarlzooplus saves below sacred's folder of the run, the others in ``models``, by a name that its config
    does not know.
    """
    models = [sacred / "models", *(_models(sacred) or _written_meanwhile(sacred, config))]
    if found := [path for folder in models for path in _checkpoints(folder)]:
        return max(found, key=lambda path: int(path.name))
    if not config.get("save_model"):
        raise LimaskError(
            f"{folder} has no checkpoint, as it was trained with save_model=False: train with "
            "save_model=True save_model_interval=50000 (environment steps between checkpoints)"
        )
    saved = _saved(sacred)
    where = f"in {saved[-1]}, where it saved" if saved else f"in the models beside {sacred}"
    raise LimaskError(
        f"{folder} was trained with save_model=True, and no checkpoint of it is in {sacred / 'models'}, nor "
        f"{where}: it ended before it saved one, or they were deleted or moved"
    )


def _models(sacred: Path) -> list[Path]:
    """Where those checkpoints may lie that the run said it saved, wherever its results were moved to."""
    return [
        place
        for saved in map(Path, _saved(sacred))
        for parent in sacred.absolute().parents
        # The host was started in a folder above, or in the checkout's src, or all of it was moved since.
        for place in (parent / saved, parent / "src" / saved, parent / "models" / saved.name)
    ]


def _saved(sacred: Path) -> list[str]:
    """Folders that the run said it saved checkpoints in: one, but what is left of a line by a cut."""
    file = sacred / "cout.txt"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    return list(dict.fromkeys(_SAVED.findall(text)))


def _written_meanwhile(sacred: Path, config: State) -> list[Path]:
    """Where sacred kept nothing of what the run said: the folder of its algorithm that was first written to
    while it ran, if there is but one."""
    record = read_json(sacred / "run.json") if (sacred / "run.json").is_file() else {}
    times = [record.get(name) for name in ("start_time", "heartbeat")]
    if not all(isinstance(time, str) for time in times):
        return []
    start, end = (datetime.fromisoformat(str(time)).replace(tzinfo=UTC).timestamp() for time in times)
    found = [
        models
        for parent in sacred.absolute().parents
        for models in parent.glob(f"models/{glob.escape(config['name'])}_*")
        if (written := [(path / "agent.th").stat().st_mtime for path in _checkpoints(models)])
        and start <= min(written) <= end + _LATE
    ]
    return found if len(found) == 1 else []


def _checkpoints(models: Path) -> list[Path]:
    return [path for path in models.glob("[0-9]*") if path.name.isdecimal() and (path / "agent.th").is_file()]
