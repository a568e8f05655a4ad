"""Runner ``vector``: steps ``batch_size_run`` environments in one call, in the host's run loop.

For an environment that cannot be stepped so, the name stands for the host's own parallel runner.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from limask.envs import VECTOR_REGISTRY
from limask.envs.smax import Observation, check_options, env_info, episode_info


class VectorRunner:
    """Mixed in before a host's ``ParallelRunner``, which brings ``setup`` and the logging of statistics.

    Environment b is seeded with ``env_args.seed + b``, as the host's parallel runner seeds its workers.
    """

    host: Any
    # Set by the host's ``setup`` before the first run.
    new_batch: Any
    mac: Any
    # The host's: logs and clears the statistics of some episodes.
    _log: Any

    def __init__(self, args: Any, logger: Any) -> None:
        self.args, self.logger = args, logger
        self.batch_size = args.batch_size_run
        options = dict(args.env_args)
        check_options(options)
        seed = options.pop("seed")
        seeds = [seed + b for b in range(self.batch_size)]
        self.env = VECTOR_REGISTRY[args.env](seeds=seeds, **options)
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

    @torch.no_grad()
    def run(self, test_mode: bool = False) -> Any:
        """One episode in every environment; returns what the host's parallel runner returns."""
        self.batch = self.new_batch()
        self.t = 0
        self.mac.init_hidden(batch_size=self.batch_size)
        self._observe(self.env.reset(), slice(None))
        returns = np.zeros(self.batch_size)
        lengths = np.zeros(self.batch_size, dtype=int)
        infos: list[dict[str, Any]] = []
        active = list(range(self.batch_size))
        over: list[int] = []
        all_actions = np.zeros((self.batch_size, self.env.n_agents), dtype=np.int32)
        while True:
            actions = self._act(active, test_mode)
            all_actions[active] = actions
            # Like the host's runner: a battle that is over still gets actions in its last state.
            active = [b for b in active if b not in over]
            if not active:
                break
            transition = self.env.step(all_actions)
            over = [b for b in active if transition.is_over[b]]
            returns[active] += transition.reward[active]
            lengths[active] += 1
            infos += [episode_info(transition, b) for b in over]
            cut = transition.info["episode_limit"]
            self.batch.update(
                {
                    "reward": torch.from_numpy(transition.reward[active]).unsqueeze(-1),
                    "terminated": torch.from_numpy(
                        (transition.is_over & ~cut)[active].astype(np.uint8)
                    ).unsqueeze(-1),
                },
                bs=active,
                ts=self.t,
                mark_filled=False,
            )
            self.t += 1
            self._observe(transition.observation, active)
        if not test_mode:
            self.t_env += int(lengths.sum())
        self._log_episodes(returns.tolist(), int(lengths.sum()), infos, test_mode)
        return self.host.episodes_of_run(self.batch, returns.tolist())

    def _act(self, active: list[int], test_mode: bool) -> np.ndarray:
        chosen = self.mac.select_actions(
            self.batch, t_ep=self.t, t_env=self.t_env, bs=active, test_mode=test_mode
        )
        actions = self.host.actions_of(chosen)
        self.batch.update({"actions": actions.unsqueeze(1)}, bs=active, ts=self.t, mark_filled=False)
        return actions.cpu().numpy()

    def _observe(self, observation: Observation, active: Any) -> None:
        data = {key: torch.from_numpy(getattr(observation, key)[active]) for key in Observation._fields}
        self.batch.update(data, bs=active, ts=self.t, mark_filled=True)

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
            self.logger.log_stat("epsilon", self.mac.action_selector.epsilon, self.t_env)
            self.log_train_stats_t = self.t_env
