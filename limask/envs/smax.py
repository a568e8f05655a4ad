"""SMAX (JaxMARL's StarCraft-like battles) for PyMARL-family hosts: many battles in one compiled call."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from limask.envs.smax_battle import battle, check_ranges
from limask.errors import LimaskError
from limask.protocols import Block


class Observation(NamedTuple):
    """What the battles show, before an action: arrays of B battles and N agents.

    ``state`` (B, S) float32, ``obs`` (B, N, O) float32, ``avail_actions`` (B, N, A) int32.
    """

    state: np.ndarray
    obs: np.ndarray
    avail_actions: np.ndarray


class Transition(NamedTuple):
    """One step of B battles.

    ``reward`` (B,) float32 on SMAC's scale, ``is_over`` (B,) bool, ``info`` of (B,) arrays:
    ``battle_won``, ``episode_limit`` (bool), ``dead_allies``, ``dead_enemies`` (counts).
    """

    observation: Observation
    reward: np.ndarray
    is_over: np.ndarray
    info: dict[str, np.ndarray]


class UnitStates(NamedTuple):
    """The units of B battles as they really are, the N agents and then the enemies: arrays (B, U) float32.

    ``health`` and ``full_health`` are in the game's points; ``cooldown`` is in seconds, how long until the
    unit can shoot, or below 0 for how long it could have; ``between_shots`` is in seconds; ``damage`` is what
    a shot takes of its target's health.
    """

    health: np.ndarray
    full_health: np.ndarray
    cooldown: np.ndarray
    between_shots: np.ndarray
    damage: np.ndarray


class Moment(NamedTuple):
    """Where B battles are, and what they will draw next."""

    keys: Any
    rows: Any
    chances: Sequence[np.random.Generator]


class SmaxVector:
    """B battles of one scenario, stepped in one compiled call.

    Battle b is seeded by ``seeds[b]`` alone: it plays exactly as a ``SmaxEnv`` of that seed would.

    Args:
        map_name: any scenario of jaxmarl, or one of ``smax_battle.EXTRA_SCENARIOS``.
        seeds: one integer for each battle.
        sight_range: factor on the agents' sight range (1 = as published).
        enemy_sight_range: factor on that of the scripted enemy; ``None`` is the agents'.
        see_enemy_actions: whether an enemy's last action is observed.
        walls_cause_death: whether a unit that touches the border of the map dies.
        attack_mode: how the scripted enemy chooses its target, ``closest`` or ``random``.
        full_observation: whether agents see every living unit, wherever it stands; the enemy does not.
            Relative positions are in units of the published sight range, whatever ``sight_range`` is, and
            reach the size of the map in these units where all else is in [-1, 1].
        flipped: probability with which an agent's whole observation is negated, at each step, in training
            and in tests (the task of MessySMAC, Phan et al., ICML 2023: 0.15).
        random_steps: steps of random actions after each reset, before anybody acts (there: 10).

    Raises:
        LimaskError: jaxmarl is missing, or an argument is out of range.
    """

    def __init__(
        self,
        map_name: str,
        seeds: Sequence[int],
        sight_range: float = 1.0,
        enemy_sight_range: float | None = None,
        see_enemy_actions: bool = True,
        walls_cause_death: bool = True,
        attack_mode: str = "closest",
        full_observation: bool = False,
        flipped: float = 0.0,
        random_steps: int = 0,
    ) -> None:
        check_ranges(sight_range, enemy_sight_range, attack_mode)
        _check_mess(flipped, random_steps)
        self._flipped, self._random_steps = float(flipped), int(random_steps)
        self._battle = battle(
            map_name,
            float(sight_range),
            float(sight_range if enemy_sight_range is None else enemy_sight_range),
            bool(see_enemy_actions),
            bool(walls_cause_death),
            attack_mode,
            bool(full_observation),
        )
        self.sizes = self._battle.sizes
        self.batch_size = len(seeds)
        self.n_agents = self.sizes.n_agents
        self.n_actions = self.sizes.n_moves + self.sizes.n_enemies
        self.episode_limit = self._battle.episode_limit
        self.obs_size = self.sizes.obs_size
        self.state_size = self._battle.state_size
        self._seed_keys(seeds)

    def _seed_keys(self, seeds: Sequence[int]) -> None:
        # numpy accepts seeds of up to 32 bits; so do jax's keys without 64-bit mode.
        jax = self._battle.jax
        self._keys = jax.numpy.stack([jax.random.PRNGKey(int(seed) % 2**32) for seed in seeds])
        # What goes wrong has random numbers of its own: without it the battles are what they were.
        self._chances = [np.random.default_rng([int(seed) % 2**32, 1]) for seed in seeds]

    def seed(self, seeds: Sequence[int]) -> None:
        """Restart every battle's stream of random numbers; takes effect at the next ``reset``."""
        if len(seeds) != self.batch_size:
            raise LimaskError(f"{len(seeds)} seeds given for {self.batch_size} battles")
        self._seed_keys(seeds)

    def reset(self) -> Observation:
        """Start B new battles."""
        self._keys, self._rows = self._battle.reset(self._keys)
        observation = self._unpack()[0]
        for _ in range(self._random_steps):
            observation = self._at_random(observation)
        return self._shown(observation)

    def _at_random(self, observation: Observation) -> Observation:
        """Step with random available actions; a battle that is over then starts anew."""
        shape = observation.avail_actions.shape[1:]
        draws = np.stack([chance.random(shape) for chance in self._chances])
        actions = np.where(observation.avail_actions > 0, draws, -1.0).argmax(axis=2)
        self._keys, rows = self._battle.step(self._keys, self._rows, actions.astype(np.int32))
        self._rows = rows
        observation, outcome = self._unpack()
        if not (is_over := outcome[:, 1] > 0).any():
            return observation
        # Only what is over draws new numbers: a battle does not depend on those beside it.
        keys, new = self._battle.reset(self._keys)
        where, over = self._battle.jax.numpy.where, is_over[:, None]
        self._keys, self._rows = where(over, keys, self._keys), where(over, new, rows)
        return self._unpack()[0]

    def _shown(self, observation: Observation) -> Observation:
        """What the agents get of what they would see."""
        if self._flipped == 0:
            return observation
        draws = np.stack([chance.random(self.n_agents) for chance in self._chances])
        signs = np.where(draws < self._flipped, -1.0, 1.0).astype(np.float32)
        return observation._replace(obs=observation.obs * signs[:, :, None])

    def step(self, actions: np.ndarray) -> Transition:
        """Step all battles once; ``actions`` (B, N) integers.

        A battle that is over goes on being stepped (its outputs mean nothing) until the next ``reset``.
        """
        self._keys, self._rows = self._battle.step(self._keys, self._rows, np.asarray(actions, np.int32))
        observation, outcome = self._unpack()
        reward, is_over, *info = outcome.T
        return Transition(
            self._shown(observation),
            np.ascontiguousarray(reward),
            is_over > 0,
            {
                "battle_won": info[0] > 0,
                "episode_limit": info[1] > 0,
                "dead_allies": info[2].astype(int),
                "dead_enemies": info[3].astype(int),
            },
        )

    @property
    def step_seconds(self) -> float:
        """Seconds of the game in a step."""
        return self._battle.step_seconds

    def units(self) -> UnitStates:
        """The units as they really are, after the ``reset`` or ``step`` just made."""
        return UnitStates(*np.array(self._battle.units(self._rows)).swapaxes(0, 1))

    def moment(self) -> Moment:
        """For ``go_back``."""
        return Moment(self._keys, self._rows, copy.deepcopy(self._chances))

    def go_back(self, moment: Moment, draw: int = 0) -> None:
        """Go on from an earlier moment: with what was drawn then, or, for each ``draw`` above 0, with other
        random numbers."""
        self._keys, self._rows = moment.keys, moment.rows
        self._chances = copy.deepcopy(list(moment.chances))
        if draw:
            self._keys = self._battle.branch(self._keys, draw)
            self._chances = [
                np.random.default_rng(chance.integers(2**32, size=draw)) for chance in self._chances
            ]

    def _unpack(self) -> tuple[Observation, np.ndarray]:
        """The observation, and the outcomes (B, 6), in the rows of the step just made."""
        rows = np.array(self._rows)  # a copy: what jax hands out itself cannot be written to
        obs_from = self._battle.size + self.state_size
        avail_from = obs_from + self.n_agents * self.obs_size
        outcome_from = avail_from + self.n_agents * self.n_actions
        by_agent = (self.batch_size, self.n_agents, -1)
        observation = Observation(
            rows[:, self._battle.size : obs_from],
            rows[:, obs_from:avail_from].reshape(by_agent),
            rows[:, avail_from:outcome_from].reshape(by_agent).astype(np.int32),
        )
        return observation, rows[:, outcome_from:]


def check_options(options: Block) -> None:
    """Refuse an ``env_args`` key that SMAX does not have.

    Raises:
        LimaskError: names the key, the known ones and the nearest.
    """
    known = (
        "map_name", "seed", "sight_range", "enemy_sight_range", "see_enemy_actions", "walls_cause_death",
        "attack_mode", "full_observation", "flipped", "random_steps",
    )  # fmt: skip
    for key in options:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise LimaskError(f"env_args.{key} is no option of env=smax{hint} (known: {', '.join(known)})")


def _check_mess(flipped: float, random_steps: int) -> None:
    if isinstance(flipped, bool) or not isinstance(flipped, (int, float)) or not 0 <= flipped <= 1:
        raise LimaskError(f"env_args.flipped={flipped!r}: expected a probability in [0, 1]")
    if isinstance(random_steps, bool) or not isinstance(random_steps, int) or random_steps < 0:
        raise LimaskError(f"env_args.random_steps={random_steps!r}: expected a whole number of 0 or more")


def env_info(vector: SmaxVector) -> dict[str, int]:
    """Sizes in the form of PyMARL's ``get_env_info``."""
    return {
        "state_shape": vector.state_size,
        "obs_shape": vector.obs_size,
        "n_actions": vector.n_actions,
        "n_agents": vector.n_agents,
        "episode_limit": vector.episode_limit,
    }


def episode_info(transition: Transition, battle: int) -> dict[str, Any]:
    """Statistics of one finished battle, as Python numbers, keyed as SMAC keys them.

    ``episode_limit`` is present only where time ran out: hosts then treat the last step as a cut and not
    as the end of the battle.
    """
    info = {key: value[battle].item() for key, value in transition.info.items()}
    if not info["episode_limit"]:
        del info["episode_limit"]
    return info
