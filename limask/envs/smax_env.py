"""One SMAX battle in the host's ``MultiAgentEnv`` interface."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from limask.envs.smax import Observation, SmaxVector, check_options, env_info, episode_info
from limask.errors import LimaskError


class SmaxEnv:
    """One battle in the interface of PyMARL's ``MultiAgentEnv`` (``step`` returns three values).

    Args:
        map_name: see ``SmaxVector``.
        seed: seeds the battles; ``None`` draws one from the operating system.
        **options: the other options of ``SmaxVector``.

    Raises:
        LimaskError: see ``SmaxVector``; also for an option that does not exist.
    """

    def __init__(self, map_name: str, seed: int | None = None, **options: Any) -> None:
        check_options(options)
        seed = int.from_bytes(os.urandom(4), "big") if seed is None else seed
        self._vector = SmaxVector(map_name, [seed], **options)
        self.n_agents = self._vector.n_agents
        self.episode_limit = self._vector.episode_limit
        self._now: Observation | None = None

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[list[np.ndarray], np.ndarray]:
        """Start a battle; returns the observations, a list of N arrays (O,), and the state (S,)."""
        if seed is not None:
            self._vector.seed([seed])
        self._now = self._vector.reset()
        return self.get_obs(), self.get_state()

    def step(self, actions: Sequence[int]) -> tuple[float, bool, dict[str, Any]]:
        """Act with N integers; returns the team's reward, whether the battle is over, and its info."""
        chosen = np.asarray([int(action) for action in actions])[None]
        transition = self._vector.step(chosen)
        self._now = transition.observation
        is_over = bool(transition.is_over[0])
        return float(transition.reward[0]), is_over, episode_info(transition, 0) if is_over else {}

    def _current(self) -> Observation:
        if self._now is None:
            raise LimaskError("SMAX was observed before its first reset(): call reset() first")
        return self._now

    def get_obs(self) -> list[np.ndarray]:
        """Observations of all agents, a list of N arrays (O,)."""
        return list(self._current().obs[0])

    def get_obs_agent(self, agent_id: int) -> np.ndarray:
        """Observation (O,) of one agent."""
        return self._current().obs[0, agent_id]

    def get_obs_size(self) -> int:
        """O, the number of features of an observation."""
        return self._vector.obs_size

    def get_state(self) -> np.ndarray:
        """Global state (S,)."""
        return self._current().state[0]

    def get_state_size(self) -> int:
        """S, the number of features of the state."""
        return self._vector.state_size

    def get_avail_actions(self) -> list[np.ndarray]:
        """Available actions of all agents, a list of N arrays (A,) of 0 and 1."""
        return list(self._current().avail_actions[0])

    def get_avail_agent_actions(self, agent_id: int) -> np.ndarray:
        """Available actions (A,) of one agent."""
        return self._current().avail_actions[0, agent_id]

    def get_total_actions(self) -> int:
        """A, the number of actions of an agent."""
        return self._vector.n_actions

    def get_env_info(self) -> dict[str, int]:
        """Sizes that the host builds its networks and its replay buffer from."""
        return env_info(self._vector)

    def get_stats(self) -> dict[str, Any]:
        """Statistics beside those in ``info``: none."""
        return {}

    def get_print_info(self) -> None:
        """Nothing to print (asked for by pymarlzooplus at every step)."""

    def seed(self, seed: int | None = None) -> None:
        """Restart the stream of random numbers."""
        if seed is not None:
            self._vector.seed([seed])

    def render(self) -> None:
        """SMAX draws nothing inside a host's run loop."""

    def save_replay(self) -> None:
        """SMAX saves no replays inside a host's run loop."""

    def close(self) -> None:
        """Nothing to release."""
