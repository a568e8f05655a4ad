"""Observation layouts: which slice of the flat observation is which entity.

A layout is derived from the run's ``env_args`` alone; no environment is started.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from limask.config import LimConfig
from limask.envs.smax_battle import scenario_sizes, sight_ranges
from limask.errors import LimaskError


@dataclasses.dataclass(frozen=True)
class TokenGroup:
    """Tokens of one kind, side by side in the observation.

    Attributes:
        kind: ``own`` and ``move`` (the agent itself), ``ally``, ``enemy``, or ``group_i``.
        count: number of tokens K_kind.
        features: names of the D features of one token.
        is_hideable: whether a masker may hide these tokens.
        first_action: token k is the target of action ``first_action + k``; None where no action has
            these tokens as its target.
    """

    kind: str
    count: int
    features: tuple[str, ...]
    is_hideable: bool = True
    first_action: int | None = None

    @property
    def width(self) -> int:
        """D, the features of one token."""
        return len(self.features)

    @property
    def size(self) -> int:
        """Features of the whole group."""
        return self.count * self.width


@dataclasses.dataclass(frozen=True)
class Frame:
    """Where tokens say that their units stand, so that what an agent sees can be put as another would see it.

    Attributes:
        place: features of an ally's or enemy's token with its position relative to the viewer, in units of
            the viewer's sight range.
        origin: features of the own token with the agent's position on the map; none where the agent does not
            know it, and places its teammates by the tokens that show them.
        sights: sight range of each unit type, in units of ``origin``; none where it is the same for all.
        distance: feature with the length of ``place``, or None.
        within_sight: features that are 0 for whoever is out of sight.
    """

    place: tuple[str, str]
    origin: tuple[str, ...] = ()
    sights: tuple[float, ...] = ()
    distance: str | None = None
    within_sight: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Layout:
    """Token groups in the order in which the observation holds them.

    Attributes:
        name: the layout's name in ``REGISTRY``.
        groups: the token groups; their sizes add up to the observation.
        zeros_mean_unseen: whether a token of zeros is a unit that the agent does not see.
        healers: agents whose target actions aim at allies instead of enemies (SMAC's Medivacs).
        frame: how tokens place their units, or None where what teammates see cannot be put in other terms.
    """

    name: str
    groups: tuple[TokenGroup, ...]
    zeros_mean_unseen: bool = True
    healers: tuple[int, ...] = ()
    frame: Frame | None = None

    @property
    def obs_size(self) -> int:
        """O, the features of an observation."""
        return sum(group.size for group in self.groups)

    @property
    def hideable_size(self) -> int:
        """P, the features of the tokens that a masker may hide."""
        return sum(group.size for group in self.groups if group.is_hideable)

    @property
    def n_tokens(self) -> int:
        """K, the tokens of an observation."""
        return sum(group.count for group in self.groups)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of entity that the layout knows; empty for ``flat``."""
        return frozenset({"ally", "enemy"} & {group.kind for group in self.groups})

    def group(self, kind: str) -> TokenGroup | None:
        """The group of that kind, or None."""
        return next((group for group in self.groups if group.kind == kind), None)

    def check_obs_size(self, obs_size: int) -> None:
        """Compare with the size that the host reports.

        Raises:
            LimaskError: the layout adds up to another number; both are shown.
        """
        if obs_size != self.obs_size:
            parts = " + ".join(f"{g.kind} {g.count}×{g.width}" for g in self.groups)
            raise LimaskError(
                f"layout {self.name!r} adds up to {parts} = {self.obs_size} features, and the environment "
                f"reports observations of {obs_size}; set lim.layout=flat, or check env_args"
            )


def smax_layout(env_args: Mapping[str, Any]) -> Layout:
    """SMAX's ``unit_list`` observation: allies in order, enemies in order, the agent itself."""
    map_name = _required(env_args, "map_name")
    sizes = scenario_sizes(map_name)
    unit: tuple[str, ...] = (
        "health", "position_x", "position_y", "last_movement_x", "last_movement_y", "last_targeted",
        "weapon_cooldown",
    )  # fmt: skip
    own: tuple[str, ...] = ("health", "position_x", "position_y", "weapon_cooldown")
    unit += _type_bits(sizes.unit_width - len(unit))
    own += _type_bits(sizes.own_width - len(own))
    place = ("position_x", "position_y")
    sights = sight_ranges(map_name, env_args.get("sight_range", 1.0))
    return Layout(
        name="smax",
        groups=(
            TokenGroup("ally", sizes.n_agents - 1, unit),
            TokenGroup("enemy", sizes.n_enemies, unit, first_action=sizes.n_moves),
            TokenGroup("own", 1, own, is_hideable=False),
        ),
        frame=Frame(place, origin=place, sights=sights),
    )


#: Defaults of the flags of oxwhirl/smac's ``StarCraft2Env`` that shape its observation.
SMAC_FLAGS = {
    "obs_all_health": True,
    "obs_own_health": True,
    "obs_last_action": False,
    "obs_pathing_grid": False,
    "obs_terrain_height": False,
    "obs_timestep_number": False,
}
_SMAC_MOVES: tuple[str, ...] = ("north", "south", "east", "west")
_SMAC_FIRST_ATTACK = 6
_PATHING_POINTS, _HEIGHT_POINTS = 8, 9


def smac_layout(env_args: Mapping[str, Any]) -> Layout:
    """SMAC's observation: movement, enemies, allies, the agent itself.

    The map's sizes are asked of the installed ``smac`` package, so that maps registered there by a user
    are known; StarCraft II itself is not started.
    """
    try:
        from smac.env.starcraft2.maps import get_map_params
    except ImportError as error:
        raise LimaskError(
            f"lim.layout='smac' needs the smac package, and importing it failed ({error}): install the "
            "host's StarCraft requirements (`pip install 'limask[smac]'` and smac from its git repository)"
        ) from error
    map_name = _required(env_args, "map_name")
    try:
        params = get_map_params(map_name)
    except KeyError:
        raise LimaskError(f"env_args.map_name={map_name!r} is no map of the installed smac package") from None
    if env_args.get("obs_timestep_number"):
        # Seen in smac 1.0: get_obs_agent() appends a feature that get_obs_size() does not count twice.
        raise LimaskError(
            "env_args.obs_timestep_number=True: smac then returns one feature more than the size it reports; "
            "set it to False, or set lim.layout=flat"
        )
    return smac_layout_of(params, env_args)


def smac_layout_of(params: Mapping[str, Any], env_args: Mapping[str, Any]) -> Layout:
    """Layout of a SMAC map from its registry entry (``n_agents``, ``n_enemies``, ``a_race``, ``b_race``,
    ``unit_type_bits``, ``map_type``) and the ``obs_*`` flags in ``env_args``."""
    flags = {name: bool(env_args.get(name, default)) for name, default in SMAC_FLAGS.items()}
    types = _type_bits(params["unit_type_bits"])
    n_agents, n_enemies = params["n_agents"], params["n_enemies"]

    def health(race: str) -> tuple[str, ...]:
        return ("health", "shield") if race == "P" else ("health",)

    place = ("distance", "relative_x", "relative_y")
    ally_health, enemy_health = health(params["a_race"]), health(params["b_race"])
    move = _SMAC_MOVES
    if flags["obs_pathing_grid"]:
        move += tuple(f"pathing_{i}" for i in range(_PATHING_POINTS))
    if flags["obs_terrain_height"]:
        move += tuple(f"height_{i}" for i in range(_HEIGHT_POINTS))
    enemy = ("attackable", *place, *(enemy_health if flags["obs_all_health"] else ()), *types)
    ally: tuple[str, ...] = ("visible", *place, *(ally_health if flags["obs_all_health"] else ()), *types)
    if flags["obs_last_action"]:
        ally += tuple(f"last_action_{i}" for i in range(_SMAC_FIRST_ATTACK + n_enemies))
    own: tuple[str, ...] = (ally_health if flags["obs_own_health"] or flags["obs_all_health"] else ()) + types
    if flags["obs_timestep_number"]:
        own += ("timestep",)
    groups = [
        TokenGroup("move", 1, move, is_hideable=False),
        TokenGroup("enemy", n_enemies, enemy, first_action=_SMAC_FIRST_ATTACK),
        TokenGroup("ally", n_agents - 1, ally),
        TokenGroup("own", 1, own, is_hideable=False),
    ]
    # The Medivac is the last unit of the MMM maps: SMAC sorts units by type, and it is the last type.
    healers = (n_agents - 1,) if params["map_type"] == "MMM" else ()
    # Every unit of SMAC's agents sees as far as the others.
    frame = Frame(("relative_x", "relative_y"), distance="distance", within_sight=("attackable",))
    return Layout("smac", tuple(group for group in groups if group.size), healers=healers, frame=frame)


def flat_layout(obs_size: int, group_width: int) -> Layout:
    """One token for every ``group_width`` features (the last may be narrower), each a kind of its own."""
    starts = range(0, obs_size, group_width)
    groups = tuple(
        TokenGroup(
            f"group_{i}", 1, tuple(f"feature_{j}" for j in range(start, min(start + group_width, obs_size)))
        )
        for i, start in enumerate(starts)
    )
    return Layout("flat", groups, zeros_mean_unseen=False)


#: Layouts known from ``env_args`` alone; ``flat`` needs the size of the observation instead.
REGISTRY: dict[str, Callable[[Mapping[str, Any]], Layout]] = {"smax": smax_layout, "smac": smac_layout}

#: Host's name of an environment → layout.
_LAYOUT_OF_ENV = {"smax": "smax", "sc2": "smac"}


def layout_name(config: LimConfig, env: str) -> str:
    """The layout that ``config`` chooses for the environment that the host calls ``env``."""
    return _LAYOUT_OF_ENV.get(env, "flat") if config.layout == "auto" else config.layout


def known_layout(config: LimConfig, env: str, env_args: Mapping[str, Any]) -> Layout | None:
    """The run's layout where ``env_args`` determine it, None for ``flat``; combinations are checked.

    Raises:
        LimaskError: an unknown map, or options that the layout cannot carry.
    """
    name = layout_name(config, env)
    layout = REGISTRY[name](env_args) if name in REGISTRY else None
    has_frame = layout is not None and layout.frame is not None
    config.check_layout(name, layout.kinds if layout else frozenset(), has_frame)
    return layout


def resolve(config: LimConfig, env: str, env_args: Mapping[str, Any], obs_size: int) -> Layout:
    """The run's layout, checked against the observation size that the host reports.

    Raises:
        LimaskError: see ``known_layout`` and ``Layout.check_obs_size``.
    """
    layout = known_layout(config, env, env_args) or flat_layout(obs_size, config.group_width)
    layout.check_obs_size(obs_size)
    return layout


def _required(env_args: Mapping[str, Any], key: str) -> str:
    if not env_args.get(key):
        raise LimaskError(f"env_args.{key} is not set: name a map, as in `with env_args.{key}=3m`")
    return str(env_args[key])


def _type_bits(count: int) -> tuple[str, ...]:
    return tuple(f"unit_type_{i}" for i in range(count))


def token_starts(layout: Layout) -> tuple[int, ...]:
    """Index of each group's first token among the layout's K tokens."""
    return tuple(itertools.accumulate((g.count for g in layout.groups), initial=0))[:-1]
