"""Where else a run's statistics go than to the host's own files: TensorBoard, Weights & Biases."""

from __future__ import annotations

import atexit
import datetime
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from limask.errors import LimaskError
from limask.protocols import Block


class Sink(ABC):
    """Takes what the host logs, as it is logged."""

    @abstractmethod
    def open(self, name: str, config: Block) -> None:
        """Begin the run called ``name`` with the host's full ``config``."""

    @abstractmethod
    def write(self, key: str, value: float, step: int) -> None:
        """Take the statistic ``key`` at ``step`` environment steps."""


class TensorboardSink(Sink):
    """Event files in ``results/tensorboard/<run>``, by torch's own writer."""

    def __init__(self, results: Path) -> None:
        self._root = results / "tensorboard"

    def open(self, name: str, config: Block) -> None:
        """See ``Sink``."""
        # Imported where used: it takes seconds.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(new_folder(self._root, name)))
        self._writer.add_text("config", "\n".join(f"    {key}: {config[key]}" for key in sorted(config)))

    def write(self, key: str, value: float, step: int) -> None:
        """See ``Sink``; on disk at once, for some hosts leave without closing anything."""
        self._writer.add_scalar(key, value, step)
        self._writer.flush()


def new_folder(root: Path, name: str) -> Path:
    """A folder of nobody else's: ``name`` below ``root``, or that with a number where a run that started in
    the same second has it."""
    root.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = root / (name if number == 1 else f"{name}_{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            break
    return folder


class WandbSink(Sink):
    """A run of Weights & Biases below ``results/wandb``; ``WANDB_MODE=offline`` keeps it on this machine, and
    the project is ``WANDB_PROJECT`` or ``limask``."""

    def __init__(self, results: Path) -> None:
        try:
            import wandb
        except ImportError as error:
            raise LimaskError(f"--sink=wandb: {error}; `pip install 'limask[wandb]'`") from error
        self._wandb, self._results = wandb, results

    def open(self, name: str, config: Block) -> None:
        """See ``Sink``."""
        settings = self._wandb.Settings()
        self._results.mkdir(parents=True, exist_ok=True)
        self._run = self._wandb.init(
            project=settings.project or "limask", name=name, dir=self._results, config=dict(config)
        )
        # Statistics of one moment come one by one: a step of W&B's own would count them.
        self._run.define_metric("*", step_metric="environment_steps")
        atexit.register(self._run.finish)

    def write(self, key: str, value: float, step: int) -> None:
        """See ``Sink``."""
        self._run.log({key: value, "environment_steps": step})


#: Name on the command line → what it stands for, built with the folder for results.
REGISTRY: Mapping[str, Callable[[Path], Sink]] = {"tensorboard": TensorboardSink, "wandb": WandbSink}


def attach(logger: Any, sinks: list[Sink]) -> None:
    """Have the hosts' class ``logger`` pass everything on to ``sinks`` as well.

    Every host tells its logger of sacred's run, which knows the config, before it logs the first statistic.
    """
    setup, log_stat = logger.setup_sacred, logger.log_stat

    def setup_sacred(self: Any, run: Any) -> None:
        setup(self, run)
        name = run_name(run.config)
        for sink in sinks:
            sink.open(name, run.config)

    def log(self: Any, key: str, value: Any, t: int, *args: Any, **options: Any) -> None:
        log_stat(self, key, value, t, *args, **options)
        for sink in sinks:
            sink.write(key, float(value), int(t))

    logger.setup_sacred, logger.log_stat = setup_sacred, log


def mirror_in_metrics(logger: Any) -> None:
    """Have the hosts' class ``logger`` pass everything on to sacred's ``metrics.json``, from which curves are
    read, where the host itself leaves that file empty."""
    setup, log_stat = logger.setup_sacred, logger.log_stat

    def setup_sacred(self: Any, run: Any) -> None:
        setup(self, run)
        self.limask_run = run

    def log(self: Any, key: str, value: Any, t: int, *args: Any, **options: Any) -> None:
        log_stat(self, key, value, t, *args, **options)
        self.limask_run.log_scalar(key, float(value), int(t))

    logger.setup_sacred, logger.log_stat = setup_sacred, log


def run_name(config: Block) -> str:
    """Algorithm, environment, seed and the time of the start, UTC."""
    env_args = config.get("env_args", {})
    where = env_args.get("map_name") or env_args.get("key") or config.get("env", "env")
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d_%H-%M-%S")
    name = f"{config.get('name', 'run')}_{where}_seed{config.get('seed')}_{now}"
    return "".join(character if character.isalnum() or character in "-_." else "-" for character in name)
