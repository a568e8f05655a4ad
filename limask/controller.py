"""The multi-agent controller: the host's own, plus whole episodes at once."""

from __future__ import annotations

from typing import Any

import torch

from limask.agent import LimAgent
from limask.packing import Packing


class LimMac:
    """Mixed in before a host's ``BasicMAC``, which builds the agent and acts step by step."""

    agent: LimAgent
    n_agents: int
    args: Any
    hidden_states: torch.Tensor

    def init_hidden(self, batch_size: int) -> None:
        """Zero hidden states (B, N, H) at the start of ``batch_size`` episodes."""
        self.hidden_states = self.agent.init_hidden().unsqueeze(0).expand(batch_size, self.n_agents, -1)

    def sequence_inputs(self, batch: Any, packing: Packing) -> torch.Tensor:
        """Agent inputs of all filled steps: (M, N, D), in the order of the host's ``_build_inputs``."""
        taken = batch["actions_onehot"]
        last = torch.zeros_like(taken)
        last[:, 1:] = taken[:, :-1]
        return self._join(packing.pack(batch["obs"]), packing.pack(last))

    def _build_inputs(self, batch: Any, t: int) -> torch.Tensor:
        """Agent inputs (B · N, D) of time step ``t``; the host's method, with fewer operations."""
        taken = batch["actions_onehot"]
        last = taken[:, t - 1] if t else torch.zeros_like(taken[:, 0])
        return self._join(batch["obs"][:, t], last).flatten(0, 1)

    def _join(self, obs: torch.Tensor, last_actions: torch.Tensor) -> torch.Tensor:
        """Observations (M, N, O) and last actions (M, N, A) → inputs (M, N, D)."""
        inputs = [obs]
        if self.args.obs_last_action:
            inputs.append(last_actions)
        if self.args.obs_agent_id:
            inputs.append(torch.eye(self.n_agents, device=obs.device).expand(obs.shape[0], -1, -1))
        return torch.cat(inputs, dim=-1)
