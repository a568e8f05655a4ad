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
        inputs = [packing.pack(batch["obs"])]
        if self.args.obs_last_action:
            last = torch.zeros_like(batch["actions_onehot"])
            last[:, 1:] = batch["actions_onehot"][:, :-1]
            inputs.append(packing.pack(last))
        if self.args.obs_agent_id:
            eye = torch.eye(self.n_agents, device=inputs[0].device)
            inputs.append(eye.expand(inputs[0].shape[0], -1, -1))
        return torch.cat(inputs, dim=-1)
