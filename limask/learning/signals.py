"""What the learner can tell a masker of an update, from tensors of that update.

Axes: B episodes, T time steps, M filled steps, P transitions, N agents, A actions, D features of an agent's
input, K tokens, V values of a state.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from limask.acting.agent import LimAgent
from limask.layouts import tokens
from limask.networks.packing import Packing
from limask.protocols import EpisodeBatch

#: Loses against the value of every available action; written as the hosts write it.
_NEVER = -9999999.0


def by_step(packing: Packing, values: torch.Tensor) -> torch.Tensor:
    """Values (P, …) of the transitions → (B, T, …) at the steps that they start from, zero elsewhere."""
    n_episodes, n_steps = packing.shape
    padded = values.new_zeros((n_episodes * n_steps, *values.shape[1:]))
    at = packing.index[packing.starts]
    return padded.index_copy(0, at, values).unflatten(0, (n_episodes, n_steps))


def best_values(
    batch: EpisodeBatch,
    packing: Packing,
    q_values: torch.Tensor,
    q_target: torch.Tensor,
    at: torch.Tensor,
    *,
    double_q: bool,
) -> torch.Tensor:
    """Target networks' value of each agent's best action at the packed steps ``at`` (P,): (P, N).

    Args:
        batch: the host's ``EpisodeBatch``.
        packing: of its episodes.
        q_values: (M, N, A) of the agent, which chooses the action where ``double_q``.
        q_target: (M, N, A) of the target agent.
        at: ``packing.ends`` are the states that transitions lead to.
        double_q: whether the agent chooses, or the target agent itself.

    An agent to whom no action is available, as some environments have it of the dead, does nothing: its value
    is that of action 0, which it is said to take.
    """
    is_unavailable = packing.pack(batch["avail_actions"])[at] == 0
    is_unavailable[..., 0] &= ~is_unavailable.all(dim=2)
    q_best = q_target[at].masked_fill(is_unavailable, _NEVER)
    if not double_q:
        return q_best.max(dim=2).values
    best = q_values[at].masked_fill(is_unavailable, _NEVER).argmax(dim=2, keepdim=True)
    return q_best.gather(2, best).squeeze(2)


def local_errors(
    chosen: torch.Tensor,
    reward: torch.Tensor,
    terminated: torch.Tensor,
    next_values: torch.Tensor,
    gamma: float,
) -> torch.Tensor:
    """abs(Q_i − (r + γ (1 − terminated) max Q̄_i')), as LI-MA²E scores agents: (P, N).

    Q_i is not trained towards that: with a mixer it is a heuristic and no residual.

    Args:
        chosen: (P, N) Q_i of the actions taken.
        reward: (P, 1).
        terminated: (P, 1), 1 where the episode ended there.
        next_values: (P, N) value of each agent's best next action.
        gamma: discount factor.
    """
    return (chosen - (reward + gamma * (1 - terminated) * next_values)).abs()


def token_gradients(
    agent: LimAgent,
    inputs: torch.Tensor,
    packing: Packing,
    actions: torch.Tensor,
    value: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """abs(∂V/∂token · token) of V = Σ value(Q of the actions taken), over all transitions: (M, N, K).

    How much the values would change, to first order, were the token not there; a step's token also counts for
    what later steps remember of it.

    Args:
        agent: acts on ``inputs``.
        inputs: (M, N, D) in the order of ``packing``.
        packing: of these episodes.
        actions: (M, N, 1) taken at each step.
        value: Q-values (P, N) of the actions taken → the values that are explained, summed over everything.
    """
    with torch.enable_grad():
        inputs = inputs.detach().requires_grad_()
        q_values, _ = agent.sequence(inputs, packing.counts)
        chosen = q_values[packing.starts].gather(2, actions[packing.starts]).squeeze(2)
        (gradient,) = torch.autograd.grad(value(chosen).sum(), inputs)
    obs_size = agent.layout.obs_size
    weighted = gradient[..., :obs_size] * tokens.above_unseen(inputs.detach()[..., :obs_size], agent.layout)
    parts = tokens.split(weighted, agent.layout).values()
    return torch.cat([part.sum(dim=-1).abs() for part in parts], dim=-1)
