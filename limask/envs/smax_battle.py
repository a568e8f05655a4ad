"""One SMAX battle as functions that jax compiles.

SMAX is published by Rutherford et al., "JaxMARL: Multi-Agent RL Environments and Algorithms in JAX"
(2023); the enemy team is its scripted ``HeuristicEnemySMAX``.
"""

from __future__ import annotations

import difflib
import functools
import importlib
from collections.abc import Mapping
from typing import NamedTuple

from limask.envs.smax_import import import_smax
from limask.envs.smax_random import Array, unrolled_threefry
from limask.errors import LimaskError

#: SMAC's episode return is at most 20; SMAX's is at most 2 (1 for the damage, 1 for the victory).
REWARD_SCALE = 10.0

#: Scenarios that jaxmarl does not list: unit types by SMAX's index (0 marine, 2 stalker, 3 zealot), allies,
#: enemies, and whether the teams start spread over the map (one around the other, or mirrored), as in SMACv2.
EXTRA_SCENARIOS: Mapping[str, tuple[tuple[int, ...], int, int, bool]] = {
    "3s_vs_3z": ((2,) * 3 + (3,) * 3, 3, 3, False),
    "3s_vs_4z": ((2,) * 3 + (3,) * 4, 3, 4, False),
    "4m": ((0,) * 8, 4, 4, False),
    "3m_spread": ((0,) * 6, 3, 3, True),
    "5m_spread": ((0,) * 10, 5, 5, True),
    "2s3z_spread": ((2, 2, 3, 3, 3) * 2, 5, 5, True),
}

#: Sight range, in map units, that reaches everywhere. Dividing by a power of two loses no digits.
_UNLIMITED_SIGHT = 1024.0

ATTACK_MODES = ("closest", "random")

#: The actions before the first attack.
MOVES = ("north", "east", "south", "west", "stop")


class SmaxScenario(NamedTuple):
    """Sizes of a scenario.

    ``n_agents`` and ``n_enemies`` count units; ``own_width`` and ``unit_width`` count the features of an
    agent's own block and of one other unit; ``n_moves`` counts the actions before the first attack.
    """

    n_agents: int
    n_enemies: int
    own_width: int
    unit_width: int
    n_moves: int

    @property
    def obs_size(self) -> int:
        """Features of one agent's observation."""
        return (self.n_agents - 1 + self.n_enemies) * self.unit_width + self.own_width


def scenario(map_name: str) -> Array:
    """jaxmarl's scenario, or one of ``EXTRA_SCENARIOS``.

    Raises:
        LimaskError: jaxmarl is missing, or there is no such scenario.
    """
    jax, smax, published = import_smax()
    if map_name in published:
        return published[map_name]
    if map_name in EXTRA_SCENARIOS:
        types, n_allies, n_enemies, is_spread = EXTRA_SCENARIOS[map_name]
        return smax.Scenario(jax.numpy.array(types, jax.numpy.uint8), n_allies, n_enemies, is_spread, False)
    known = sorted({*published, *EXTRA_SCENARIOS})
    close = difflib.get_close_matches(str(map_name), known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise LimaskError(f"env_args.map_name={map_name!r} is no SMAX scenario{hint} (known: {', '.join(known)})")


def _published(map_name: str) -> Array:
    """The scenario as jaxmarl plays it; it is never stepped."""
    return import_smax().package.SMAX(scenario=scenario(map_name))


def scenario_sizes(map_name: str) -> SmaxScenario:
    """Sizes of ``map_name``, without building a battle.

    Raises:
        LimaskError: jaxmarl is missing, or there is no such scenario.
    """
    return _sizes(_published(map_name))


def sight_ranges(map_name: str, factor: float) -> tuple[float, ...]:
    """Sight range of each unit type, times ``factor``, over the size of the (square) map.

    Raises:
        LimaskError: see ``scenario_sizes`` and ``check_ranges``.
    """
    check_ranges(factor, None, ATTACK_MODES[0])
    env = _published(map_name)
    assert env.map_width == env.map_height
    return tuple(float(sight) * factor / env.map_width for sight in env.unit_type_sight_ranges)


def map_size(map_name: str) -> float:
    """Length of the (square) map's sides, in the game's own units.

    Raises:
        LimaskError: see ``scenario_sizes``.
    """
    return float(_published(map_name).map_width)


def _sizes(env: Array) -> SmaxScenario:
    return SmaxScenario(
        n_agents=int(env.num_allies),
        n_enemies=int(env.num_enemies),
        own_width=len(env.own_features),
        unit_width=len(env.unit_features),
        n_moves=int(env.num_movement_actions),
    )


def _check_factor(name: str, value: object, allowed: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise LimaskError(f"env_args.{name}={value!r}: expected {allowed}")


def check_ranges(sight_range: object, enemy_sight_range: object, attack_mode: object) -> None:
    """Refuse options out of range; ``None`` is no ``sight_range``, but an ``enemy_sight_range``.

    Raises:
        LimaskError: names the option, its value and what is allowed.
    """
    _check_factor("sight_range", sight_range, "a factor above 0 (1 = as published)")
    if enemy_sight_range is not None:
        allowed = "a factor above 0 (1 = as published), or null (the agents' sight_range)"
        _check_factor("enemy_sight_range", enemy_sight_range, allowed)
    if attack_mode not in ATTACK_MODES:
        raise LimaskError(f"env_args.attack_mode={attack_mode!r}: expected one of {', '.join(ATTACK_MODES)}")


class Battle:
    """One battle of a scenario; see ``SmaxVector`` for the options.

    ``reset`` (keys (B, 2)) and ``step`` (keys, rows, actions (B, N)) return keys, and rows (B, C) as ``_row``
    lays them out. ``branch`` (keys, number) returns other keys. ``units`` (rows) returns (B, 5, U), see
    ``_units_one``.
    """

    #: Seconds of the game in a step of the agents.
    step_seconds: float

    def __init__(
        self,
        map_name: str,
        sight_range: float,
        enemy_sight_range: float,
        see_enemy_actions: bool,
        walls_cause_death: bool,
        attack_mode: str,
        full_observation: bool,
    ) -> None:
        units = scenario(map_name)
        self.jax, smax, _ = import_smax()
        published = smax.SMAX(scenario=units)
        self._env = smax.HeuristicEnemySMAX(
            attack_mode=attack_mode,
            scenario=units,
            see_enemy_actions=see_enemy_actions,
            walls_cause_death=walls_cause_death,
            unit_type_sight_ranges=published.unit_type_sight_ranges * enemy_sight_range,
        )
        # Who sees everywhere sees near units as one of the published sight range does.
        self._sights = published.unit_type_sight_ranges * (1.0 if full_observation else sight_range)
        self._is_full = full_observation
        # Shows the battles to agents that see otherwise than the enemy does; it never steps them.
        self._view = self._env
        if full_observation or sight_range != enemy_sight_range:
            everywhere = self.jax.numpy.full_like(self._sights, _UNLIMITED_SIGHT)
            self._view = smax.SMAX(
                scenario=units,
                see_enemy_actions=see_enemy_actions,
                unit_type_sight_ranges=everywhere if full_observation else self._sights,
            )
        self.sizes = _sizes(published)
        # SMAX compares the number of steps before the step it has just made: battles last one more.
        self.episode_limit = int(published.max_steps) + 1
        self.state_size = int(published.state_size)
        self.flatten = importlib.import_module("jax.flatten_util").ravel_pytree
        _, shapes = self.jax.eval_shape(self._env.reset, self.jax.random.PRNGKey(0))
        zeros = self.jax.tree.map(lambda leaf: self.jax.numpy.zeros(leaf.shape, leaf.dtype), shapes)
        flat, self.battle_of = self.flatten(zeros)
        self.size: int = flat.size
        self.reset = self.jax.jit(self.jax.vmap(self._reset_one))
        self.step = self.jax.jit(self.jax.vmap(self._step_one))
        self.units = self.jax.jit(self.jax.vmap(self._units_one))
        self.branch = self.jax.jit(self.jax.vmap(self._branch_one, in_axes=(0, None)))
        self.step_seconds = float(published.time_per_step) * int(published.world_steps_per_env_step)

    # -- one battle; these are vmapped and compiled ---------------------------------------------------
    # A battle is one row of numbers, what is in it and what it shows: passing and fetching each of two dozen
    # small arrays would cost more than the step. All of them are exact in float32.

    def _reset_one(self, key: Array) -> tuple[Array, Array]:
        key, reset_key = self._split(key)
        obs, battle = self._env.reset(reset_key)
        return key, self._row(battle, obs, (0.0,) * 6)

    def _split(self, key: Array) -> tuple[Array, Array]:
        """Key data (2,) → key data to keep (2,), and a key to use up."""
        random = self.jax.random
        key, used = random.split(random.wrap_key_data(key, impl=unrolled_threefry()))
        return random.key_data(key), used

    def _branch_one(self, key: Array, number: int) -> Array:
        random = self.jax.random
        data: Array = random.key_data(
            random.fold_in(random.wrap_key_data(key, impl=unrolled_threefry()), number)
        )
        return data

    def _units_one(self, row: Array) -> Array:
        """Of every unit, the agents first: health, full health, seconds until it can shoot (below 0: for how
        long it could have), seconds between its shots, and what a shot takes of its target's health."""
        jnp, env, units = self.jax.numpy, self._env, self.battle_of(row[: self.size]).state
        by_type = (env.unit_type_health, env.unit_type_weapon_cooldowns, env.unit_type_attacks)
        full, between, damage = (values[units.unit_types] for values in by_type)
        return jnp.stack([units.unit_health, full, units.unit_weapon_cooldowns, between, damage])

    def _step_one(self, key: Array, row: Array, actions: Array) -> tuple[Array, Array]:
        key, step_key = self._split(key)
        chosen = {agent: actions[i] for i, agent in enumerate(self._env.agents)}
        battle = self.battle_of(row[: self.size])
        obs, battle, reward, done, _ = self._env.step_env(step_key, battle, chosen)
        alive = battle.state.unit_alive
        allies, enemies = alive[: self.sizes.n_agents], alive[self.sizes.n_agents :]
        is_decided = ~allies.any() | ~enemies.any()
        outcome = (
            reward[self._env.agents[0]] * REWARD_SCALE,
            done["__all__"],
            ~enemies.any() & allies.any(),
            done["__all__"] & ~is_decided,
            (~allies).sum(),
            (~enemies).sum(),
        )
        return key, self._row(battle, obs, outcome)

    def _row(self, battle: Array, obs: Array, outcome: Array) -> Array:
        """[battle | state | observations | available actions | outcome]: (C,) float32."""
        jnp = self.jax.numpy
        flat, _ = self.flatten(battle)
        return jnp.concatenate(
            [flat, self._observe(obs, battle), *(jnp.float32(value)[None] for value in outcome)]
        )

    def _observe(self, obs: Array, battle: Array) -> Array:
        """State, observations and available actions side by side: (S + N·O + N·A,) float32."""
        jnp = self.jax.numpy
        avail = self._env.get_avail_actions(battle)
        seen = self._stacked(obs if self._view is self._env else self._view.get_obs(battle.state))
        if self._is_full:
            seen = self._rescaled(seen, battle.state)
        parts = (
            self._global_state(battle.state),
            seen.reshape(-1),
            jnp.stack([avail[agent] for agent in self._env.agents]).reshape(-1),
        )
        return jnp.concatenate([part.astype(jnp.float32) for part in parts])

    def _stacked(self, obs: Array) -> Array:
        """Observations (N, O) in [-1, 1]."""
        stacked = self.jax.numpy.stack([obs[agent] for agent in self._env.agents])
        # Units pushed apart at the border may stand just outside the map: positions are clipped.
        return self.jax.numpy.clip(stacked, -1.0, 1.0)

    def _rescaled(self, seen: Array, battle: Array) -> Array:
        """Observations (N, O) at unlimited sight → with relative positions in published sight ranges, at most
        the size of the map."""
        jnp, env = self.jax.numpy, self._env
        n_agents, own_from = self.sizes.n_agents, self.sizes.obs_size - self.sizes.own_width
        x = env.unit_features.index("position_x")
        others = seen[:, :own_from].reshape(n_agents, -1, self.sizes.unit_width)
        size = jnp.array([env.map_width, env.map_height])
        away = jnp.clip(others[..., x : x + 2] * _UNLIMITED_SIGHT, -size, size)
        sight = self._sights[battle.unit_types[:n_agents]]
        others = others.at[..., x : x + 2].set(away / sight[:, None, None])
        return jnp.concatenate([others.reshape(n_agents, -1), seen[:, own_from:]], axis=1)

    def _global_state(self, battle: Array) -> Array:
        """World state (S,) in [0, 1]: SMAX's own features with positions over the size of the map, weapon
        cooldowns over the unit type's longest and never below 0 (raw, they fall for as long as a unit does
        not shoot), and unit types over the largest type index."""
        jnp, env = self.jax.numpy, self._env
        n_units = env.num_allies + env.num_enemies
        raw = env._env.get_world_state(battle)
        n_own = n_units * len(env.own_features)
        units = raw[:n_own].reshape(n_units, len(env.own_features))
        size = jnp.array([env.map_width, env.map_height])
        longest = env.unit_type_weapon_cooldowns[battle.unit_types]
        units = units.at[:, 1:3].set(units[:, 1:3] / size)
        units = units.at[:, 3].set(units[:, 3] / longest)
        teams, types = raw[n_own : n_own + n_units], raw[n_own + n_units :]
        types = types / (env.unit_type_bits - 1)
        return jnp.clip(jnp.concatenate([units.reshape(-1), teams, types]), 0.0, 1.0).astype(jnp.float32)


#: A scenario compiles for ten seconds: everything in one process that plays it shares the result.
battle = functools.cache(Battle)
