"""What goes wrong for agents that are not trained any more: what they see (``limask.faults``), or who acts.

A perturbation changes observations or actions, never the battle's state, its reward or which actions are
available. Its random numbers for battle e come from a generator seeded by (evaluation seed, e) alone: every
arm meets the same draws, and a higher severity is more of the same draws.

Axes: B battles side by side, N agents, O features of an observation.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from limask import faults
from limask.envs.smax import Moment, Observation, SmaxVector, Transition
from limask.errors import LimaskError
from limask.faults import EpisodeSource, Faults, Severity
from limask.layouts import Layout
from limask.protocols import EpisodeBatch, Mac


class Perturbation:
    """Nothing goes wrong; the base of all others.

    Args:
        severity: 0 is nothing.
        layout: of the observations.
        n_agents: N.
        n_steps: of a battle at most.

    Raises:
        LimaskError: ``severity`` is out of range.
    """

    def __init__(self, severity: float, layout: Layout, n_agents: int, n_steps: int) -> None:
        self.severity, self.layout, self.n_agents, self.n_steps = severity, layout, n_agents, n_steps

    def start(self, generators: Sequence[np.random.Generator]) -> None:
        """New battles start, each with a generator of its own."""

    def observe(self, obs: torch.Tensor) -> torch.Tensor:
        """Observations (B, N, O) that the battles show → those that the agents get."""
        return obs

    def act(self, actions: np.ndarray) -> np.ndarray:
        """Actions (B, N) that the agents choose → those that are taken."""
        return actions


class SensorFault(Perturbation):
    """A kind of ``limask.faults``."""

    kind: type[faults.Fault]

    def __init__(self, severity: float, layout: Layout, n_agents: int, n_steps: int) -> None:
        super().__init__(severity, layout, n_agents, n_steps)
        self._faults = Faults([self.kind(Severity(severity, severity), layout, n_agents)])
        self._faults.check_length(n_steps, "--perturb")

    def start(self, generators: Sequence[np.random.Generator]) -> None:
        """See ``Perturbation.start``."""
        self._episodes = self._faults.draw(EpisodeSource(generators), self.n_steps)

    def observe(self, obs: torch.Tensor) -> torch.Tensor:
        """See ``Perturbation.observe``."""
        return self._episodes.observe_next(obs)


class DeadTeammate(Perturbation):
    """``severity`` agents, drawn anew for each battle, take SMAX's action "stop" from its start to its end.

    They stand where they are, are seen and can be shot, as "stop" is an action that every unit always has.
    """

    unit = "a whole number of teammates that do nothing, at most {mates}"

    def __init__(self, severity: float, layout: Layout, n_agents: int, n_steps: int) -> None:
        super().__init__(severity, layout, n_agents, n_steps)
        enemies = layout.group("enemy")
        if layout.name != "smax" or enemies is None:
            raise LimaskError(
                f"layout {layout.name!r} knows no action that does nothing and is always available, as "
                "SMAX's 'stop'; choose a fault of the sensors"
            )
        if severity not in range(n_agents):
            raise LimaskError(f"{severity:g}: expected {self.unit.format(mates=n_agents - 1)}")

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
    **{name: type(kind.__name__, (SensorFault,), {"kind": kind}) for name, kind in faults.REGISTRY.items()},
    "dead_teammate": DeadTeammate,
}


class PerturbedBattles:
    """``battles`` as perturbed agents meet them, in the form in which the ``vector`` runner steps them.

    Battle e of an evaluation, counted from 0 in order of the resets, is seeded by ``seed + e``: it is the
    same battle for every arm and severity, however long others last.

    Attributes:
        battles: as they really are.
    """

    def __init__(self, battles: SmaxVector, perturbation: Perturbation, seed: int) -> None:
        self.battles, self._perturbation, self._seed = battles, perturbation, seed
        self._n_started = 0

    def reset(self) -> Observation:
        """Start the next B battles."""
        numbers = range(self._n_started, self._n_started + self.battles.batch_size)
        self._n_started = numbers.stop
        self.battles.seed([self._seed + number for number in numbers])
        self._perturbation.start([np.random.default_rng([self._seed, number]) for number in numbers])
        return self._seen(self.battles.reset())

    def step(self, actions: np.ndarray) -> Transition:
        """See ``SmaxVector.step``."""
        transition = self.battles.step(self._perturbation.act(actions))
        return transition._replace(observation=self._seen(transition.observation))

    def moment(self) -> tuple[Moment, Perturbation]:
        """For ``go_back``."""
        return self.battles.moment(), self._kept(self._perturbation)

    def go_back(self, moment: tuple[Moment, Perturbation], draw: int = 0) -> None:
        """See ``SmaxVector.go_back``; what goes wrong is the same whatever the ``draw``."""
        battles, perturbation = moment
        self.battles.go_back(battles, draw)
        self._perturbation = self._kept(perturbation)

    @staticmethod
    def _kept(perturbation: Perturbation) -> Perturbation:
        """A copy that what comes does not change."""
        return copy.deepcopy(perturbation, {id(perturbation.layout): perturbation.layout})

    def _seen(self, observation: Observation) -> Observation:
        seen = self._perturbation.observe(torch.from_numpy(observation.obs))
        return observation._replace(obs=seen.numpy())


class PerturbedSensors:
    """A host's controller ``mac`` whose agents get perturbed observations: for environments that the host
    steps itself, one at a time. What they get is written into the episode.

    Episode e, counted from 0, has the draws of the pair (``seed``, e).
    """

    def __init__(self, mac: Mac, perturbation: Perturbation, seed: int) -> None:
        self._mac, self._perturbation, self._seed = mac, perturbation, seed
        self._n_started = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mac, name)

    def select_actions(self, ep_batch: EpisodeBatch, t_ep: int, *args: Any, **kwargs: Any) -> Any:
        """See the host's."""
        if t_ep == 0:
            self._perturbation.start([np.random.default_rng([self._seed, self._n_started])])
            self._n_started += 1
        obs = ep_batch.data.transition_data["obs"]
        obs[:, t_ep] = self._perturbation.observe(obs[:, t_ep])
        return self._mac.select_actions(ep_batch, t_ep, *args, **kwargs)
