"""Runner ``vector``: steps ``batch_size_run`` environments in one call, in the host's run loop.

For an environment that cannot be stepped so, the name stands for the host's own parallel runner.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from limask.envs import VECTOR_REGISTRY
from limask.envs.smax import Observation, check_options, env_info, episode_info
from limask.errors import LimaskError
from limask.protocols import Args, Logger, Mac


@contextmanager
def own_random_numbers(device: str | torch.device) -> Iterator[None]:
    """Leave torch's stream of random numbers as it was, whatever is drawn within."""
    device = torch.device(device)
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
        yield


#: What the seeds of environments for tests lie above those for training.
TEST_SEEDS = 1_000_000


class VectorRunner:
    """Mixed in before a host's ``ParallelRunner``, which brings ``setup`` and the logging of statistics.

    Environment b is seeded with ``env_args.seed + b``, as the host's parallel runner seeds its workers. Tests
    have environments and random numbers of their own: one more or less changes nothing in training.
    """

    host: Any
    # Set by the host's ``setup`` before the first run.
    new_batch: Any
    mac: Mac
    # The host's: logs and clears the statistics of some episodes.
    _log: Any

    def __init__(self, args: Args, logger: Logger) -> None:
        if not getattr(args, "common_reward", True):
            raise LimaskError(
                f"env={args.env} with common_reward=False: it rewards the team; set common_reward=True"
            )
        self.args, self.logger = args, logger
        self.batch_size = args.batch_size_run
        options = dict(args.env_args)
        check_options(options)
        seed = options.pop("seed")
        self.env, self.test_env = (
            VECTOR_REGISTRY[args.env](seeds=[first + b for b in range(self.batch_size)], **options)
            for first in (seed, seed + TEST_SEEDS)
        )
        self.episode_limit = self.env.episode_limit
        self.t = 0
        self.t_env = 0
        self.train_returns: list[float] = []
        self.test_returns: list[float] = []
        self.train_stats: dict[str, Any] = {}
        self.test_stats: dict[str, Any] = {}
        self.log_train_stats_t = -100000

    def get_env_info(self) -> dict[str, int]:
        """Sizes that the host builds its networks and its replay buffer from."""
        return env_info(self.env)

    def close_env(self) -> None:
        """Nothing to release."""

    def save_replay(self) -> None:
        """SMAX saves no replays."""

    def run(self, test_mode: bool = False) -> Any:
        """One episode in every environment; returns what the host's parallel runner returns."""
        with own_random_numbers(self.args.device) if test_mode else nullcontext():
            return self._run(test_mode)

    def _run(self, test_mode: bool) -> Any:
        env = self.test_env if test_mode else self.env
        self.host.before_episodes(self)
        self.batch = self.new_batch()
        self.t = 0
        self.mac.init_hidden(batch_size=self.batch_size)
        returns = np.zeros(self.batch_size)
        lengths = np.zeros(self.batch_size, dtype=int)
        infos: list[dict[str, Any]] = []
        is_active = np.ones(self.batch_size, dtype=bool)
        observation = env.reset()
        states, rewards, terminated = [observation.state], [], []
        actions = self._act(observation, test_mode)
        while is_active.any():
            transition = env.step(actions)
            is_over = transition.is_over & is_active
            returns[is_active] += transition.reward[is_active]
            lengths[is_active] += 1
            infos += [episode_info(transition, int(b)) for b in np.flatnonzero(is_over)]
            states.append(transition.observation.state)
            rewards.append(transition.reward)
            terminated.append(is_over & ~transition.info["episode_limit"])
            self.t += 1
            actions = self._act(transition.observation, test_mode)
            is_active &= ~is_over
        # What no action depends on is written at once: a write costs as much as a layer of the agent.
        for key, values in (("state", states), ("reward", rewards), ("terminated", terminated)):
            whole = self.batch.data.transition_data[key][:, : len(values)]
            whole.copy_(torch.from_numpy(np.stack(values, axis=1)).view_as(whole))
        self._clear_padding(lengths)
        if not test_mode:
            self.t_env += int(lengths.sum())
        self._log_episodes(returns.tolist(), int(lengths.sum()), infos, test_mode)
        return self.host.episodes_of_run(self.batch, returns.tolist())

    def _act(self, observation: Observation, test_mode: bool) -> np.ndarray:
        return act(self.host, self.mac, self.batch, self.t, observation, self.t_env, test_mode)

    def _clear_padding(self, lengths: np.ndarray) -> None:
        """Mark the filled steps (an episode's transitions and its last state), and zero all others.

        Until here every environment's row was written at every step, finished or not: a slice of all
        of them needs no indexed write.
        """
        data = self.batch.data.transition_data
        steps = torch.arange(data["filled"].shape[1], device=data["filled"].device)
        is_padding = steps > torch.as_tensor(lengths, device=steps.device).unsqueeze(1)
        data["filled"].fill_(1)
        for values in data.values():
            values[is_padding] = 0

    def _log_episodes(
        self, returns: list[float], n_steps: int, infos: list[dict[str, Any]], test_mode: bool
    ) -> None:
        stats = self.test_stats if test_mode else self.train_stats
        all_returns = self.test_returns if test_mode else self.train_returns
        for info in infos:
            for key, value in info.items():
                stats[key] = stats.get(key, 0) + value
        stats["n_episodes"] = stats.get("n_episodes", 0) + self.batch_size
        stats["ep_length"] = stats.get("ep_length", 0) + n_steps
        all_returns.extend(returns)
        n_test = max(1, self.args.test_nepisode // self.batch_size) * self.batch_size
        if test_mode:
            if len(all_returns) >= n_test:
                self._log(all_returns, stats, "test_")
        elif self.t_env - self.log_train_stats_t >= self.args.runner_log_interval:
            self._log(all_returns, stats, "")
            if hasattr(self.mac.action_selector, "epsilon"):
                self.logger.log_stat("epsilon", self.mac.action_selector.epsilon, self.t_env)
            self.log_train_stats_t = self.t_env


# The host's ``batch.update`` checks and reshapes: at every step that costs as much as the agent.
@torch.inference_mode()
def act(
    host: Any, mac: Mac, batch: Any, t: int, observation: Observation, t_env: int, test_mode: bool
) -> np.ndarray:
    """Write into the host's ``batch`` what is observed at time step ``t``, and the actions taken on it;
    returns them, (B, N)."""
    data = batch.data.transition_data
    data["obs"][:, t] = torch.from_numpy(observation.obs)
    data["avail_actions"][:, t] = torch.from_numpy(observation.avail_actions)
    actions = host.actions_of(mac.select_actions(batch, t_ep=t, t_env=t_env, test_mode=test_mode))
    data["actions"][:, t, :, 0] = actions
    data["actions_onehot"][:, t].scatter_(2, actions.unsqueeze(2), 1.0)
    chosen: np.ndarray = actions.cpu().numpy()
    return chosen
