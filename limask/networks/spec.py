"""Sizes of an agent."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class AgentSpec:
    """Sizes of the agent and of its input, which is [observation | last action | agent id].

    Attributes:
        n_agents: N.
        n_actions: A.
        hidden_dim: H.
        has_last_action: whether the one-hot last action follows the observation.
        has_agent_id: whether the one-hot agent id follows that.
        is_recurrent: whether a GRU (or a feed-forward layer) stands between trunk and head.
    """

    n_agents: int
    n_actions: int
    hidden_dim: int
    has_last_action: bool
    has_agent_id: bool
    is_recurrent: bool

    def input_size(self, obs_size: int) -> int:
        """D for observations of ``obs_size`` features."""
        return obs_size + self.has_last_action * self.n_actions + self.has_agent_id * self.n_agents
