"""The TD loss of QMIX, VDN and independent learners, as the host's own learner computes it, on filled steps.

Axes: B episodes, T time steps, M filled steps of all episodes, P transitions, N agents, A actions, D features
of an agent's input, V values of a state (1 with a mixer, N without), S features of a state.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from limask.acting.agent import LimAgent
from limask.learning import signals
from limask.learning.targets import lambda_returns
from limask.networks.packing import Packing
from limask.protocols import EpisodeBatch


class TdLoss(NamedTuple):
    """``loss``; over the transitions ``td_error``, ``q_taken`` and ``target``, each (P, V); and by agent,
    before any mixing, the values of the actions taken, ``chosen``, and of the best next ones, (P, N)."""

    loss: torch.Tensor
    td_error: torch.Tensor
    q_taken: torch.Tensor
    target: torch.Tensor
    chosen: torch.Tensor
    next_values: torch.Tensor


class Networks(NamedTuple):
    """What values states: agent and mixer (None = agents learn independently), and their target networks."""

    agent: LimAgent
    mixer: nn.Module | None
    target_agent: LimAgent
    target_mixer: nn.Module | None


class TdOptions(NamedTuple):
    """``gamma`` and ``double_q`` of the host, ``td_lambda`` and ``q_lambda`` of limask; ``weight`` of the
    squared error."""

    gamma: float
    double_q: bool
    td_lambda: float
    q_lambda: bool
    weight: float


def td_loss(
    batch: EpisodeBatch,
    packing: Packing,
    inputs: torch.Tensor,
    rewards: torch.Tensor,
    networks: Networks,
    options: TdOptions,
) -> TdLoss:
    """Mean squared TD error of the transitions, by the hosts' own arithmetic.

    Args:
        batch: the host's ``EpisodeBatch``.
        packing: of its filled steps.
        inputs: (M, N, D) agents' inputs, in the order of ``packing``.
        rewards: (B, T − 1, 1 or N), standardised where the host does.
        networks: of which the agent and the mixer get gradients.
        options: of the targets.
    """
    agent, mixer, target_agent, target_mixer = networks
    gathered = agent.gather(inputs, packing.counts)
    q_values, _ = agent.sequence(inputs, packing.counts, gathered)
    actions = packing.pack(batch["actions"])[packing.starts]
    chosen = q_values[packing.starts].gather(2, actions).squeeze(2)
    chosen.retain_grad()
    state = packing.pack(batch["state"])
    with torch.no_grad():
        q_target, _ = target_agent.sequence(inputs, packing.counts, gathered)
        best_at = partial(signals.best_values, batch, packing, q_values, q_target, double_q=options.double_q)
        next_values = best_at(packing.ends)
        q_next = mix(target_mixer, next_values, state[packing.ends])
        correction = None
        if options.q_lambda:
            taken = q_target[packing.starts].gather(2, actions).squeeze(2)
            best, taken = (
                mix(target_mixer, q, state[packing.starts]) for q in (best_at(packing.starts), taken)
            )
            correction = best - taken
        target = td_targets(rewards, batch["terminated"], packing, q_next, correction, options)
    q_taken = mix(mixer, chosen, state[packing.starts])
    td_error = q_taken - target
    loss = options.weight * td_error.square().mean()
    return TdLoss(loss, td_error.detach(), q_taken.detach(), target, chosen, next_values)


def td_targets(
    rewards: torch.Tensor,
    terminated: torch.Tensor,
    packing: Packing,
    q_next: torch.Tensor,
    correction: torch.Tensor | None,
    options: TdOptions,
) -> torch.Tensor:
    """TD(λ) targets (P, V), or Q(λ) targets where there is a ``correction``.

    Args:
        rewards: (B, T − 1, 1 or N).
        terminated: (B, T, 1), 1 where the episode ended there.
        packing: of the filled steps.
        q_next: (P, V) values of the next states.
        correction: (P, V), how far the best action's value lies above that of the one taken; it joins the
            rewards.
        options: of the targets.
    """

    def by_step(values: torch.Tensor) -> torch.Tensor:
        return signals.by_step(packing, values)[:, :-1]

    if correction is not None:
        rewards = rewards + by_step(correction)
    targets = lambda_returns(
        rewards,
        terminated[:, :-1].float(),
        by_step(q_next),
        by_step(torch.ones_like(q_next[:, :1])),
        options.gamma,
        options.td_lambda,
    )
    at = packing.index[packing.starts]
    return nn.functional.pad(targets, (0, 0, 0, 1)).flatten(0, 1)[at]


def mix(mixer: nn.Module | None, q_values: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    """Q_tot (P, 1) of agents' values (P, N) in states (P, S), or the values themselves without a mixer.

    The hosts' mixers take episodes, here of one step each.
    """
    if mixer is None:
        return q_values
    mixed: torch.Tensor = mixer(q_values.unsqueeze(1), state.unsqueeze(1)).squeeze(1)
    return mixed
