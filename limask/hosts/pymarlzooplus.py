"""pymarlzooplus (a fork of EPyMARL that lives in site-packages)."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from limask.envs.smax_env import SmaxEnv
from limask.hosts.epymarl import TauHost
from limask.protocols import EpisodeBatch


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


def end_at_once() -> None:
    """Let a run end when its training does.

    pymarlzooplus then waits for ten seconds, draws every metric, and waits two seconds for each thread left.
    """
    module: Any = importlib.import_module("pymarlzooplus.run")
    module.time = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None})
    module.threading = SimpleNamespace(enumerate=list)
    module.plot_single_experiment_results = lambda *args, **options: None
