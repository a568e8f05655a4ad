"""What goes wrong for agents that are not trained any more: what they see, or who still acts.

A perturbation changes observations or actions, never the battle's state, its reward or which actions are
available. Its random numbers for battle e come from a generator seeded by (evaluation seed, e) alone: every
arm meets the same draws, and a higher severity is more of the same draws.

Axes: B battles side by side, N agents, K tokens of an observation, O its features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from limask.envs.smax import Observation, SmaxVector, Transition
from limask.errors import LimaskError
from limask.layouts import Layout, tokens


class Perturbation:
    """Nothing goes wrong; the base of all others.

    Args:
        severity: 0 is nothing.
        layout: of the observations.
        n_agents: N.

    Raises:
        LimaskError: ``severity`` is out of range.
    """

    #: What ``severity`` has to be, for a team of ``mates`` and one more.
    expected = "0"

    def __init__(self, severity: float, layout: Layout, n_agents: int) -> None:
        self.severity, self.layout, self.n_agents = severity, layout, n_agents
        if not (math.isfinite(severity) and self._is_allowed()):
            raise LimaskError(f"--severity {severity:g}: expected {self.expected.format(mates=n_agents - 1)}")

    def _is_allowed(self) -> bool:
        return self.severity == 0

    def start(self, generators: Sequence[np.random.Generator]) -> None:
        """New battles start, each with a generator of its own."""
        self.generators = generators

    def observe(self, obs: torch.Tensor) -> torch.Tensor:
        """Observations (B, N, O) that the battles show → those that the agents get."""
        return obs

    def act(self, actions: np.ndarray) -> np.ndarray:
        """Actions (B, N) that the agents choose → those that are taken."""
        return actions

    def _draw(self, size: int, *, is_normal: bool) -> torch.Tensor:
        """Numbers (B, N, size), of standard normal distribution or uniform in [0, 1)."""
        shape = (self.n_agents, size)
        drawn = [
            generator.standard_normal(shape, np.float32) if is_normal else generator.random(shape, np.float32)
            for generator in self.generators
        ]
        return torch.from_numpy(np.stack(drawn))


class Noise(Perturbation):
    """Gaussian noise of standard deviation ``severity`` on every feature of what is shown.

    A unit that is not shown stays zeros. Observations are in [-1, 1], and are clipped to it again.
    """

    expected = "a standard deviation of 0 or more (observations are in [-1, 1])"

    def _is_allowed(self) -> bool:
        return self.severity >= 0

    def observe(self, obs: torch.Tensor) -> torch.Tensor:
        """See ``Perturbation.observe``."""
        noise = self._draw(self.layout.obs_size, is_normal=True)
        noise = tokens.hide(noise, ~tokens.visibility(obs, self.layout), self.layout)
        return (obs + self.severity * noise).clamp_(-1.0, 1.0)


class Dropout(Perturbation):
    """At every step each ally and enemy that an agent sees is lost from its sight with that probability."""

    expected = "a probability in [0, 1]"

    def _is_allowed(self) -> bool:
        return 0 <= self.severity <= 1

    def observe(self, obs: torch.Tensor) -> torch.Tensor:
        """See ``Perturbation.observe``."""
        is_lost = self._draw(self.layout.n_tokens, is_normal=False) < self.severity
        return tokens.hide(obs, is_lost & tokens.hideable(self.layout), self.layout)


class Sight(Perturbation):
    """The agents' sight range times ``1 - severity``: who stands farther away is not seen.

    The environment's own ``sight_range`` would also stretch the positions of all who are still seen, as SMAX
    gives positions in units of the sight range.
    """

    expected = "the lost share of the sight range, at least 0 and below 1"

    def _is_allowed(self) -> bool:
        return 0 <= self.severity < 1

    def observe(self, obs: torch.Tensor) -> torch.Tensor:
        """See ``Perturbation.observe``."""
        if not self.severity:  # at the full range, rounding could hide a unit
            return obs
        is_far = []
        for group in self.layout.groups:
            seen = tokens.split(obs, self.layout)[group.kind]
            if group.is_hideable:
                x, y = (group.features.index(f"position_{axis}") for axis in "xy")
                is_far.append(torch.hypot(seen[..., x], seen[..., y]) >= 1 - self.severity)
            else:
                is_far.append(torch.zeros(seen.shape[:-1], dtype=torch.bool))
        return tokens.hide(obs, torch.cat(is_far, dim=-1), self.layout)


class DeadTeammate(Perturbation):
    """``severity`` agents, drawn anew for each battle, take SMAX's action "stop" from its start to its end.

    They stand where they are, are seen and can be shot, as "stop" is an action that every unit always has.
    """

    expected = "a whole number of teammates, at most {mates}"

    def _is_allowed(self) -> bool:
        return self.severity in range(self.n_agents)

    def start(self, generators: Sequence[np.random.Generator]) -> None:
        """See ``Perturbation.start``."""
        order = np.stack([generator.permutation(self.n_agents) for generator in generators])
        self._is_frozen = order < self.severity

    def act(self, actions: np.ndarray) -> np.ndarray:
        """See ``Perturbation.act``."""
        enemies = self.layout.group("enemy")
        assert enemies is not None and enemies.first_action is not None
        return np.where(self._is_frozen, enemies.first_action - 1, actions)


#: What ``--perturb`` names.
REGISTRY: dict[str, type[Perturbation]] = {
    "noise": Noise,
    "dropout": Dropout,
    "sight": Sight,
    "dead_teammate": DeadTeammate,
}


class PerturbedBattles:
    """``battles`` as perturbed agents meet them, in the form in which the ``vector`` runner steps them.

    Battle e of an evaluation, counted from 0 in order of the resets, is seeded by ``seed + e``: it is the
    same battle for every arm and severity, however long others last.
    """

    def __init__(self, battles: SmaxVector, perturbation: Perturbation, seed: int) -> None:
        self._battles, self._perturbation, self._seed = battles, perturbation, seed
        self._n_started = 0

    def reset(self) -> Observation:
        """Start the next B battles."""
        numbers = range(self._n_started, self._n_started + self._battles.batch_size)
        self._n_started = numbers.stop
        self._battles.seed([self._seed + number for number in numbers])
        self._perturbation.start([np.random.default_rng([self._seed, number]) for number in numbers])
        return self._seen(self._battles.reset())

    def step(self, actions: np.ndarray) -> Transition:
        """See ``SmaxVector.step``."""
        transition = self._battles.step(self._perturbation.act(actions))
        return transition._replace(observation=self._seen(transition.observation))

    def _seen(self, observation: Observation) -> Observation:
        seen = self._perturbation.observe(torch.from_numpy(observation.obs))
        return observation._replace(obs=seen.numpy())
