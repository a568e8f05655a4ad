"""How agents fight, whether they win or not: read off SMAX's battles as they really are.

Axes: B battles side by side, N agents, K enemies, A actions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from limask.envs.smax import Observation, SmaxVector, Transition, UnitStates
from limask.experiments.evaluation.units import TACTICS

#: How often targets are drawn for ``focus_by_chance``, in each step.
_DRAWS = 64


class Sums:
    """What ``TACTICS`` are the quotients of, added up over steps, kills or battles.

    Args:
        generator: draws targets for ``focus_by_chance``.
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self._sums = dict.fromkeys(TACTICS, 0.0)
        self._counts = dict.fromkeys(TACTICS, 0.0)

    def add(self, name: str, total: float, count: float) -> None:
        """``count`` more, that are ``total`` together."""
        self._sums[name] += total
        self._counts[name] += count

    def add_targets(self, targets: np.ndarray, in_reach: np.ndarray) -> None:
        """Steps in each of which one agent or more aims at an enemy; those with one say nothing of focus.

        Args:
            targets: (B, N) the enemy that each agent aims at, from 0; below 0 = none.
            in_reach: (B, N, K) bool, True = the agent could aim at that enemy.
        """
        several = (targets >= 0).sum(axis=1) > 1
        targets, in_reach = targets[several], in_reach[several]
        is_aiming = targets >= 0
        self.add("focus", _largest_share(targets[None], is_aiming, in_reach.shape[2]).sum(), len(targets))
        drawn = np.where(in_reach, self._generator.random((_DRAWS, *in_reach.shape)), -1.0).argmax(axis=3)
        shares = _largest_share(np.where(is_aiming, drawn, -1), is_aiming, in_reach.shape[2])
        self.add("focus_by_chance", shares.mean(axis=0).sum(), len(targets))

    def means(self) -> dict[str, float]:
        """Each of ``TACTICS``; NaN where it never came to that."""
        return {
            name: total / self._counts[name] if self._counts[name] else math.nan
            for name, total in self._sums.items()
        }


def _largest_share(targets: np.ndarray, is_aiming: np.ndarray, n_enemies: int) -> np.ndarray:
    """Targets (..., B, N) → share of those who aim that aim at the same enemy, (..., B)."""
    counts = (targets[..., None] == np.arange(n_enemies)).sum(axis=-2)
    shares: np.ndarray = counts.max(axis=-1) / is_aiming.sum(axis=-1)
    return shares


def aimed_damage(
    before: UnitStates, after: UnitStates, targets: np.ndarray, step_seconds: float
) -> np.ndarray:
    """What each agent's shot in a step takes of each enemy, if the enemy has as much: (B, N, K).

    Who shoots waits anew, for at least as long as is between two shots. A unit that shoots twice in a step
    (the zergling) counts as one that shoots once.

    Args:
        before: the units before the step.
        after: the units after it.
        targets: (B, N) the enemy that each agent aims at, from 0; below 0 = none.
        step_seconds: of the game in a step.
    """
    n_agents, n_units = targets.shape[1], before.health.shape[1]
    has_shot = after.cooldown - before.cooldown + step_seconds > before.between_shots / 2
    damage = np.where(has_shot, before.damage, 0.0)[:, :n_agents, None]
    aimed: np.ndarray = damage * (targets[..., None] == np.arange(n_units - n_agents))
    return aimed


class WatchedBattles:
    """``battles``, in the form in which they are stepped, with a look at every step; ``tactics`` tells.

    Args:
        battles: B of them.
        seed: of what is drawn for ``focus_by_chance``.
    """

    def __init__(self, battles: SmaxVector, seed: int) -> None:
        self._battles = battles
        self._sums = Sums(np.random.default_rng(seed))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._battles, name)

    def tactics(self) -> dict[str, float]:
        """``TACTICS`` of all battles that are over."""
        return self._sums.means()

    def reset(self) -> Observation:
        """See ``SmaxVector.reset``."""
        observation = self._battles.reset()
        self._units, self._avail = self._battles.units(), observation.avail_actions
        n_battles, n_agents = self._avail.shape[:2]
        self._is_active = np.ones(n_battles, dtype=bool)
        #: Steps (B, K) since an enemy was first wounded.
        self._wounded_for = np.zeros((n_battles, self._units.health.shape[1] - n_agents), dtype=int)
        return observation

    def step(self, actions: np.ndarray) -> Transition:
        """See ``SmaxVector.step``."""
        transition = self._battles.step(actions)
        before, self._units = self._units, self._battles.units()
        n_agents, after, active = actions.shape[1], self._units, self._is_active
        n_moves = self._avail.shape[2] - self._wounded_for.shape[1]
        targets = np.asarray(actions) - n_moves
        in_reach = self._avail[..., n_moves:] > 0
        self._sums.add_targets(targets[active], in_reach[active])
        lost = (before.health - after.health)[:, n_agents:]
        aimed = np.maximum(aimed_damage(before, after, targets, self._battles.step_seconds).sum(axis=1), lost)
        self._sums.add("overkill", (aimed - lost)[active].sum(), aimed[active].sum())
        self._add_kills(before.health[:, n_agents:], after.health[:, n_agents:])
        is_over = transition.is_over & active
        health, full = (values[is_over, :n_agents] for values in (after.health, after.full_health))
        self._sums.add("damage_taken", (1 - health.sum(axis=1) / full.sum(axis=1)).sum(), is_over.sum())
        self._sums.add("survivors", (health > 0).mean(axis=1).sum(), is_over.sum())
        self._is_active &= ~is_over
        self._avail = transition.observation.avail_actions
        return transition

    def _add_kills(self, before: np.ndarray, after: np.ndarray) -> None:
        """Enemies' health (B, K) before a step and after it."""
        is_wounded = (before < self._units.full_health[:, -before.shape[1] :]) & (before > 0)
        self._wounded_for += is_wounded
        is_killed = (after <= 0) & (before > 0) & self._is_active[:, None]
        # Of who dies of the first shots, wound and death fall into one step.
        self._sums.add("steps_to_kill", self._wounded_for[is_killed].sum(), is_killed.sum())
