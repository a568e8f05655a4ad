"""Whether the mixer credits agents with what their actions bring, which branched battles tell.

At some steps of a battle an agent's action is replaced by another available one, and both battles are fought
on by the same agents with the same random numbers. What the return differs by is held against what the mixer
credits: Q_tot(s, …, a_i, …) − Q_tot(s, …, b_i, …).

The counterfactual is that of Foerster et al., "Counterfactual Multi-Agent Policy Gradients" (2018), played
instead of estimated.

Axes: B battles side by side, N agents, A actions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from limask.envs.smax import Observation, Transition
from limask.errors import LimaskError
from limask.experiments.evaluation.trained import Frozen
from limask.experiments.statistics import rank_correlation
from limask.learning.td_loss import mix

#: Steps of each battle at which it is branched; and of each branch, how often it is fought on, with random
#: numbers of its own each time.
STEPS, DRAWS = 8, 4

#: Mixers of nothing but the agents' values and the state.
_MIXERS = (None, "", "qmix", "vdn")


class Branchable(Protocol):
    """Battles that can go back: SMAX's."""

    def reset(self) -> Observation:
        """Start B new battles."""

    def step(self, actions: np.ndarray) -> Transition:
        """Step them with actions (B, N)."""

    def moment(self) -> Any:
        """For ``go_back``."""

    def go_back(self, moment: Any, draw: int) -> None:
        """See ``SmaxVector.go_back``."""


class Team(Protocol):
    """Who fights in B battles at once."""

    memory: Any

    def start(self) -> None:
        """Remember nothing."""

    def values(self, t: int, observation: Observation) -> np.ndarray:
        """Values (B, N, A) of all actions at step ``t``; the memory goes on by a step."""

    def act(self, t: int, actions: np.ndarray) -> None:
        """Take actions (B, N) at step ``t``."""

    def total(self, chosen: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Q_tot (B,) of chosen values (B, N) in states (B, S)."""


class _Moment(NamedTuple):
    """Of a battle that may be branched there."""

    battles: Any
    memory: Any
    observation: Observation
    is_active: np.ndarray


class Credited(NamedTuple):
    """Over R branches: what the mixer credits the action with (R,), and what it brought with each of the
    draws (R, ``DRAWS``)."""

    credited: np.ndarray
    brought: np.ndarray

    def measures(self) -> dict[str, float]:
        """``CREDIT``; NaN where one of the two is always the same."""
        halves = self.brought[:, ::2].mean(axis=1), self.brought[:, 1::2].mean(axis=1)
        return {
            "credit": _correlation(self.credited, self.brought.mean(axis=1)),
            "repeated": _correlation(*halves),
            "branches": float(len(self.credited)),
        }


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    return rank_correlation(first, second) if len(first) > 1 else math.nan


def best(values: np.ndarray, avail: np.ndarray) -> np.ndarray:
    """Values (B, N, A) → the best available actions (B, N)."""
    taken: np.ndarray = np.where(avail > 0, values, -np.inf).argmax(axis=2)
    return taken


def credited(
    battles: Branchable, team: Team, gamma: float, generator: np.random.Generator, n_groups: int
) -> Credited:
    """Fight ``n_groups`` times B battles, and branch them.

    Args:
        battles: where ``team`` fights, always by its best actions.
        team: who fights.
        gamma: discount of the returns.
        generator: draws steps, agents and the actions instead.
        n_groups: how often B battles are fought.
    """
    parts = [_of_group(battles, team, gamma, generator) for _ in range(n_groups)]
    return Credited(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _of_group(battles: Branchable, team: Team, gamma: float, generator: np.random.Generator) -> Credited:
    moments = _moments(battles, team)
    steps = generator.choice(len(moments), size=min(STEPS, len(moments)), replace=False)
    # The last first: a branch overwrites what the team remembers of the steps behind it.
    parts = [
        _at(battles, team, int(t), moments[t], gamma, generator) for t in sorted(steps.tolist(), reverse=True)
    ]
    return Credited(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _moments(battles: Branchable, team: Team) -> list[_Moment]:
    """B battles from beginning to end."""
    observation = battles.reset()
    team.start()
    is_active = np.ones(len(observation.state), dtype=bool)
    moments: list[_Moment] = []
    while is_active.any():
        moments.append(_Moment(battles.moment(), team.memory, observation, is_active.copy()))
        t = len(moments) - 1
        actions = best(team.values(t, observation), observation.avail_actions)
        team.act(t, actions)
        transition = battles.step(actions)
        observation = transition.observation
        is_active &= ~transition.is_over
    return moments


def _at(
    battles: Branchable, team: Team, t: int, moment: _Moment, gamma: float, generator: np.random.Generator
) -> Credited:
    """Replace an agent's action in each of the battles that last until step ``t``."""
    avail = moment.observation.avail_actions
    team.memory = moment.memory
    values = team.values(t, moment.observation)
    taken = best(values, avail)
    agent, other = replaced(taken, avail, generator)
    rows = np.arange(len(taken))
    instead = taken.copy()
    instead[rows, agent] = other
    is_branched = moment.is_active & (other != taken[rows, agent])
    chosen = (np.take_along_axis(values, actions[..., None], 2)[..., 0] for actions in (taken, instead))
    ours, theirs = (team.total(of, moment.observation.state) for of in chosen)
    brought = np.zeros((len(taken), DRAWS))
    for draw in range(DRAWS):
        for sign, actions in ((1, taken), (-1, instead)):
            team.memory = moment.memory
            team.values(t, moment.observation)
            battles.go_back(moment.battles, draw)
            brought[:, draw] += sign * _fought_on(battles, team, t, actions, moment.is_active, gamma)
    return Credited((ours - theirs)[is_branched], brought[is_branched])


def replaced(
    taken: np.ndarray, avail: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """An agent of each battle that could have done otherwise, and what: both (B,), drawn evenly. Where none
    could, it is what an agent did.

    Args:
        taken: (B, N) actions.
        avail: (B, N, A), above 0 = available.
        generator: draws.
    """
    is_other = (avail > 0) & (np.arange(avail.shape[2]) != taken[..., None])
    agent = np.where(is_other.any(axis=2), generator.random(taken.shape), -1.0).argmax(axis=1)
    rows = np.arange(len(taken))
    is_other = is_other[rows, agent]
    other = np.where(is_other, generator.random(is_other.shape), -1.0).argmax(axis=1)
    return agent, np.where(is_other.any(axis=1), other, taken[rows, agent])


def _fought_on(
    battles: Branchable, team: Team, t: int, actions: np.ndarray, is_active: np.ndarray, gamma: float
) -> np.ndarray:
    """Discounted returns (B,) from step ``t`` on, where ``actions`` are taken and then the best ones."""
    is_active, returns, discount = is_active.copy(), np.zeros(len(actions)), 1.0
    while True:
        team.act(t, actions)
        transition = battles.step(actions)
        returns[is_active] += discount * transition.reward[is_active]
        is_active &= ~transition.is_over
        if not is_active.any():
            return returns
        t, discount = t + 1, discount * gamma
        actions = best(team.values(t, transition.observation), transition.observation.avail_actions)


class FrozenTeam:
    """A ``Team``: a run's agents and mixer, both with the checkpoint's weights.

    Args:
        frozen: whose ``learner`` has the checkpoint's mixer, see ``load_learner``.
        new_batch: of the host's runner; gives episodes (B, T, …) to write into.

    Raises:
        LimaskError: see ``check_mixer``.
    """

    def __init__(self, frozen: Frozen, new_batch: Callable[[], Any]) -> None:
        check_mixer(frozen)
        self._frozen, self._new_batch = frozen, new_batch

    @property
    def memory(self) -> torch.Tensor:
        """Hidden states, as the host has them."""
        return self._frozen.mac.hidden_states

    @memory.setter
    def memory(self, memory: torch.Tensor) -> None:
        self._frozen.mac.hidden_states = memory

    def start(self) -> None:
        """See ``Team``."""
        self._batch = self._new_batch()
        self._frozen.mac.init_hidden(batch_size=self._batch.batch_size)

    @torch.no_grad()
    def values(self, t: int, observation: Observation) -> np.ndarray:
        """See ``Team``."""
        data = self._batch.data.transition_data
        data["obs"][:, t] = torch.from_numpy(observation.obs)
        data["avail_actions"][:, t] = torch.from_numpy(observation.avail_actions)
        values: np.ndarray = self._frozen.mac.forward(self._batch, t, test_mode=True).numpy()
        return values

    def act(self, t: int, actions: np.ndarray) -> None:
        """See ``Team``."""
        taken, data = torch.from_numpy(actions), self._batch.data.transition_data
        data["actions"][:, t, :, 0] = taken
        data["actions_onehot"][:, t] = torch.nn.functional.one_hot(taken, self._frozen.shape.n_actions)

    @torch.no_grad()
    def total(self, chosen: np.ndarray, state: np.ndarray) -> np.ndarray:
        """See ``Team``; without a mixer the values' sum."""
        mixed = mix(self._frozen.learner.mixer, torch.from_numpy(chosen), torch.from_numpy(state))
        total: np.ndarray = mixed.sum(dim=1).numpy()
        return total


def check_mixer(frozen: Frozen) -> None:
    """Refuse agents that no mixer of values credits.

    Raises:
        LimaskError: the run's learner has another mixer, or its agents have no values.
    """
    run, args = frozen.run, frozen.args
    mixer = getattr(args, "mixer", None)
    if args.agent_output_type != "q" or mixer not in _MIXERS:
        has = f"mixer={mixer}" if args.agent_output_type == "q" else "agents that have no values"
        raise LimaskError(
            f"--credit: {run.name} has {has}, and expected is a mixer of the agents' values and the state: "
            "qmix or vdn"
        )
