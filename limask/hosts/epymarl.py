"""EPyMARL (a checkout with a flat ``src/``)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from limask.envs.smax_env import SmaxEnv
from limask.errors import LimaskError
from limask.hosts.base import FiveTupleSmaxEnv, Host
from limask.learning.targets import move_towards
from limask.protocols import Block, EpisodeBatch, Learner


class TauHost(Host):
    """EPyMARL and its forks: target updates counted in SGD steps, or soft."""

    def update_targets(self, learner: Learner, episode_num: int) -> None:
        """See ``Host.update_targets``."""
        interval_or_tau = learner.args.target_update_interval_or_tau
        learner.training_steps += 1
        if interval_or_tau <= 1.0:
            move_towards(learner.target_params, learner.params, interval_or_tau)
        elif (learner.training_steps - learner.last_target_update_step) / interval_or_tau >= 1.0:
            learner._update_targets_hard()
            learner.last_target_update_step = learner.training_steps


class EpymarlHost(TauHost):
    """EPyMARL from version 2.0.0 on."""

    #: One battle, as its runners step it.
    env: type[SmaxEnv] = FiveTupleSmaxEnv

    def known_env_args(self, config: Path, env: str, env_args: Block) -> Block:
        """See ``Host.known_env_args``: those of SMACv2 are in a file of its scenarios."""
        return scenario_args(config, env, env_args)

    def actions_of(self, chosen: Any) -> torch.Tensor:
        """See ``Host.actions_of``."""
        return chosen

    def episodes_of_run(self, batch: EpisodeBatch, returns: list[float]) -> Any:
        """See ``Host.episodes_of_run``."""
        return batch

    def smax_env(self) -> Callable[..., Any]:
        """See ``Host.smax_env``."""
        return functools.partial(_team_battle, self.env)


def scenario_args(config: Path, env: str, env_args: Block) -> Block:
    """``env_args``, or for SMACv2 those of the scenario that they name, which are all that the host looks at.

    Args:
        config: the host's folder of configs.
    """
    if env != "sc2v2":
        return env_args
    folder, name = config / "envs/smacv2_configs", env_args.get("map_name")
    file = folder / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise LimaskError(
            f"env_args.map_name={name!r} with env=sc2v2: expected one of the files in {folder}: "
            f"{known or 'none'}"
        )
    found: Block = yaml.safe_load(file.read_text(encoding="utf-8"))["env_args"]
    return found


class EpymarlV1Host(EpymarlHost):
    """EPyMARL before version 2.0.0, whose environments return three values."""

    env = SmaxEnv


def _team_battle(
    env: type[SmaxEnv], common_reward: bool = True, reward_scalarisation: str = "sum", **env_args: Any
) -> SmaxEnv:
    """One SMAX battle; its reward is the team's.

    Raises:
        LimaskError: individual rewards were asked for, which SMAX does not have.
    """
    if not common_reward:
        raise LimaskError("env=smax with common_reward=False: SMAX rewards the team; set common_reward=True")
    return env(**env_args)
