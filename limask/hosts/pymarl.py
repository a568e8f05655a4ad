"""PyMARL (oxwhirl/pymarl), and what PyMARL2 and PyMARL3 kept of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from limask.envs.smax_env import SmaxEnv
from limask.errors import LimaskError
from limask.hosts.base import Host
from limask.protocols import Args, EpisodeBatch, Learner


class PymarlHost(Host):
    """PyMARL: target updates counted in episodes, RMSprop, and no statistics of rewards."""

    has_metrics = False
    ends_abruptly = "run"

    def hidden_dim(self, args: Args) -> int:
        """See ``Host.hidden_dim``."""
        return int(args.rnn_hidden_dim)

    def update_targets(self, learner: Learner, episode_num: int) -> None:
        """See ``Host.update_targets``."""
        learner.training_steps += 1
        since = episode_num - learner.last_target_update_episode
        if since >= learner.args.target_update_interval:
            learner._update_targets()
            learner.last_target_update_episode = episode_num

    def actions_of(self, chosen: Any) -> torch.Tensor:
        """See ``Host.actions_of``."""
        return chosen

    def episodes_of_run(self, batch: EpisodeBatch, returns: list[float]) -> Any:
        """See ``Host.episodes_of_run``."""
        return batch

    def smax_env(self) -> Callable[..., Any]:
        """See ``Host.smax_env``."""
        return SmaxEnv

    def check(self, args: Args) -> None:
        """See ``Host.check``."""
        refuse(args, "standardise_rewards", False, "this host keeps no statistics of rewards")


def refuse(args: Args, name: str, wanted: Any, why: str) -> None:
    """Refuse an option that is set otherwise than ``wanted``; one that is not set is as wanted."""
    if (given := getattr(args, name, wanted)) != wanted:
        raise LimaskError(f"{name}={given!r} with learner=lim_learner: {why}; set {name}={wanted!r}")
