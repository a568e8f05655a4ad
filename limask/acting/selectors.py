"""Action selector ``lim_epsilon_greedy``: the hosts' ε-greedy choice in fewer operations."""

from __future__ import annotations

from typing import Any

import torch

from limask.protocols import Args


class EpsilonGreedy:
    """Mixed in before a host's ``EpsilonGreedyActionSelector``, which brings the ε schedule.

    The hosts draw from a ``torch.distributions.Categorical``, whose checks cost as much as the agent. The
    largest of uniform random numbers, one for each available action, is as uniform a choice.
    """

    # Set by the host's selector.
    args: Args
    schedule: Any
    epsilon: float

    def select_action(
        self, agent_inputs: torch.Tensor, avail_actions: torch.Tensor, t_env: int, test_mode: bool = False
    ) -> torch.Tensor:
        """Q-values (B, N, A) and available actions (B, N, A) → actions (B, N).

        With probability ε an agent takes a uniformly random available action, else the one of highest value;
        ε follows the schedule at ``t_env``, in tests it is ``evaluation_epsilon``. Action 0 stands for doing
        nothing where none is available.
        """
        self.epsilon = self.args.evaluation_epsilon if test_mode else self.schedule.eval(t_env)
        explores = torch.rand(agent_inputs.shape[:2], device=agent_inputs.device) < self.epsilon
        scores = torch.where(explores.unsqueeze(-1), torch.rand_like(agent_inputs), agent_inputs)
        return scores.masked_fill(avail_actions == 0, -torch.inf).argmax(dim=-1)
