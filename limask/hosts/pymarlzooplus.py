"""pymarlzooplus (a fork of EPyMARL that lives in site-packages)."""

from __future__ import annotations

import importlib
import multiprocessing
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from limask.envs.smax_env import SmaxEnv
from limask.hosts.epymarl import TauHost
from limask.protocols import EpisodeBatch

#: Named, not imported: it is for the process that workers are copies of.
_WORKER_START = "limask.hosts.worker_start"


class PymarlzooplusHost(TauHost):
    """pymarlzooplus 1.1."""

    prefix = "pymarlzooplus."
    has_individual_rewards = False

    def actions_of(self, chosen: Any) -> torch.Tensor:
        """See ``Host.actions_of``."""
        return chosen[0]

    def episodes_of_run(self, batch: EpisodeBatch, returns: list[float]) -> Any:
        """See ``Host.episodes_of_run``."""
        return batch, returns

    def set_up(self, runner: Any, **parts: Any) -> None:
        """See ``Host.set_up``."""
        super().set_up(runner, explorer=None, **parts)

    def smax_env(self) -> Callable[..., Any]:
        """See ``Host.smax_env``."""
        return SmaxEnv


def begin_at_once() -> None:
    """Let workers with environments start as copies of one process that has imported what they need.

    pymarlzooplus starts each of them from nothing, which takes as many times as long, and then waits for five
    seconds. Where copies cannot be made (Windows), or whoever started the run has chosen otherwise, it is
    left to it.
    """
    module: Any = importlib.import_module("pymarlzooplus.runners.parallel_runner")
    module.time = _sleepless()
    is_open = multiprocessing.get_start_method(allow_none=True) is None
    if is_open and "forkserver" in multiprocessing.get_all_start_methods():
        multiprocessing.set_start_method("forkserver")
        multiprocessing.set_forkserver_preload([_WORKER_START])


def end_at_once() -> None:
    """Let a run end when its training does.

    pymarlzooplus then waits for ten seconds, draws every metric, and waits two seconds for each thread left.
    """
    module: Any = importlib.import_module("pymarlzooplus.run")
    module.time = _sleepless()
    module.threading = SimpleNamespace(enumerate=list)
    module.plot_single_experiment_results = lambda *args, **options: None


def _sleepless() -> SimpleNamespace:
    return SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None})
