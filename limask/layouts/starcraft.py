"""Layouts of the StarCraft-like environments: SMAX, SMAC, SMACv2, SMAClite."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from limask.envs.smax_battle import scenario_sizes, sight_ranges
from limask.errors import LimaskError
from limask.layouts.base import Frame, Layout, TokenGroup
from limask.protocols import Block


def smax_layout(env_args: Block) -> Layout:
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
    is_full = env_args.get("full_observation")
    sights = sight_ranges(map_name, 1.0 if is_full else env_args.get("sight_range", 1.0))
    return Layout(
        name="smax",
        groups=(
            TokenGroup("ally", sizes.n_agents - 1, unit),
            TokenGroup("enemy", sizes.n_enemies, unit, first_action=sizes.n_moves),
            TokenGroup("own", 1, own, is_hideable=False),
        ),
        frame=Frame(place, origin=place, sights=sights, in_state=own),
        state_width=len(own),
        limit=1.0,
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


#: Key of ``env_args`` under which a host gives what its own SMAC's registry says of the map.
SMAC_MAP = "smac_map"


def smac_layout(env_args: Block) -> Layout:
    """SMAC's observation: movement, enemies, allies, the agent itself.

    The map's sizes are asked of the installed ``smac`` package, so that maps registered there by a user
    are known; StarCraft II itself is not started. A host with a SMAC of its own gives them as ``SMAC_MAP``.
    """
    if SMAC_MAP in env_args:
        params = env_args[SMAC_MAP]
    else:
        try:
            from smac.env.starcraft2.maps import get_map_params
        except (ImportError, TypeError) as error:
            raise _missing("smac", error) from error
        params = map_params(get_map_params, env_args, "installed smac package")
    if env_args.get("obs_timestep_number"):
        # Seen in smac 1.0: get_obs_agent() appends a feature that get_obs_size() does not count twice.
        raise LimaskError(
            "env_args.obs_timestep_number=True: smac then returns one feature more than the size it reports; "
            "set it to False, or set lim.layout=flat"
        )
    return smac_layout_of(params, env_args)


def smacv2_layout(env_args: Block) -> Layout:
    """SMACv2's observation; ``env_args`` are those of its own environment, ``capability_config`` among them.

    The sizes of fixed teams are asked of the installed ``smacv2`` package. A host with a SMACv2 of its own
    gives them as ``SMAC_MAP``.
    """
    if SMAC_MAP in env_args:
        params = dict(env_args[SMAC_MAP])
    else:
        try:
            from smacv2.env.starcraft2.maps import get_map_params
        except (ImportError, TypeError) as error:
            raise _missing("smacv2", error) from error
        params = dict(map_params(get_map_params, env_args, "installed smacv2 package"))
    given = env_args.get("capability_config")
    capabilities: Block = given if isinstance(given, Mapping) else {"team_gen": {}}
    is_drawn = "team_gen" in capabilities
    sizes = {**capabilities.get("team_gen", {}), **capabilities}
    if is_drawn and not {"n_units", "n_enemies"} <= sizes.keys():
        raise LimaskError(
            f"env_args.capability_config={given!r}: lim.layout='smacv2' reads n_units and n_enemies "
            "there, as SMACv2 itself does; set them, or set lim.layout=flat"
        )
    if is_drawn:
        params |= {"n_agents": sizes["n_units"], "n_enemies": sizes["n_enemies"]}
    return smacv2_layout_of(params, env_args)


def smacv2_layout_of(params: Block, env_args: Block) -> Layout:
    """SMAC's layout, but teammates also show their capabilities, and the agent itself its own, its place on
    the map and its field of view; turning takes actions of its own.

    Medivacs, whose target actions aim at teammates, are other agents in every battle of teams that are drawn:
    no layout can name them.
    """
    layout, capabilities = smac_layout_of(params, env_args), env_args["capability_config"]
    n_turns = int(env_args.get("num_fov_actions", 12)) if env_args.get("conic_fov") else 0
    n_types = params["unit_type_bits"]
    names = {"attack": "attack_probability", "health": "total_health"}
    shown = tuple(name for capability, name in names.items() if capability in capabilities)
    own = shown + ("position_x", "position_y") * bool(env_args.get("obs_own_pos"))
    own += ("fov_x", "fov_y") * (n_turns > 0)
    # A group without features is none in SMAC's layout; here the agent itself may still get some.
    given = layout.groups if layout.group("own") else (*layout.groups, TokenGroup("own", 1, (), False))
    groups = []
    for group in given:
        features, first = group.features, group.first_action
        if group.kind == "own":
            features = _before_types(features, n_types, int("timestep" in features), own)
        elif group.kind == "ally":
            # Its last action, if shown, has one place for every action there is, turns included.
            n_last = sum(name.startswith("last_action") for name in features)
            features = _before_types(features, n_types, n_last, shown)
            features += tuple(f"last_action_{n_last + i}" for i in range(n_turns * bool(n_last)))
        elif first is not None:
            first += n_turns
        groups.append(dataclasses.replace(group, features=features, first_action=first))
    healers = () if "team_gen" in capabilities else layout.healers
    return Layout("smacv2", tuple(group for group in groups if group.size), healers=healers, limit=1.0)


def _before_types(
    features: tuple[str, ...], n_types: int, n_after: int, more: tuple[str, ...]
) -> tuple[str, ...]:
    """``features`` with ``more`` before the type bits, which ``n_after`` others follow."""
    place = len(features) - n_types - n_after
    return features[:place] + more + features[place:]


def smaclite_layout(env_args: Block) -> Layout:
    """SMAClite's observation, which is SMAC's with its default flags; the map's sizes are asked of the
    installed ``smaclite`` package, or read from ``env_args.map_file``."""
    try:
        from smaclite.env.maps.map import MapInfo, MapPreset
        from smaclite.env.units.unit_type import CombatType
        from smaclite.env.util.faction import Faction
    except ImportError as error:
        raise LimaskError(
            f"lim.layout='smaclite' needs the smaclite package, and importing it failed ({error}): install "
            "it with `pip install --no-deps` from its git repository, and rtree, pygame and scikit-learn"
        ) from error
    if file := env_args.get("map_file"):
        found = MapInfo.from_file(file)
    else:
        presets = {preset.value.name: preset.value for preset in MapPreset}
        name = _required(env_args, "map_name")
        if name not in presets:
            raise LimaskError(
                f"env_args.map_name={name!r} is no map of the installed smaclite package (known: "
                f"{', '.join(presets)})"
            )
        found = presets[name]
    allied = [group for group in found.groups if group.faction == Faction.ALLY]
    units = [unit for group in allied for unit, count in group.units for _ in range(count)]
    params = {
        "n_agents": found.num_allied_units,
        "n_enemies": found.num_enemy_units,
        "a_race": "P" if found.ally_has_shields else "T",
        "b_race": "P" if found.enemy_has_shields else "T",
        "unit_type_bits": found.num_unit_types,
        "map_type": "",
    }
    healers = tuple(i for i, unit in enumerate(units) if unit.combat_type == CombatType.HEALING)
    return dataclasses.replace(smac_layout_of(params, {}), name="smaclite", healers=healers, frame=None)


def smac_layout_of(params: Block, env_args: Block) -> Layout:
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
    # Health, cooldown or energy, and place; shield; type.
    in_state = 0 if env_args.get("obs_instead_of_state") else 3 + len(ally_health) + len(types)
    given = tuple(group for group in groups if group.size)
    return Layout("smac", given, healers=healers, frame=frame, state_width=in_state, limit=1.0)


def _missing(package: str, error: Exception) -> LimaskError:
    # A TypeError is protobuf's, where it is newer than StarCraft's messages.
    return LimaskError(
        f"lim.layout={package!r} needs the {package} package, and importing it failed "
        f"({' '.join(str(error).split())}): install the host's StarCraft requirements (`pip install "
        f"'limask[smac]'` and {package} from its git repository)"
    )


def map_params(get: Callable[[str], Any], env_args: Block, owner: str) -> Block:
    """What a registry of StarCraft's maps says of the run's.

    Raises:
        LimaskError: ``owner`` has no such map.
    """
    name = _required(env_args, "map_name")
    try:
        params: Block = get(name)
    except KeyError:
        raise LimaskError(f"env_args.map_name={name!r} is no map of the {owner}") from None
    return params


def _required(env_args: Block, key: str) -> str:
    if not env_args.get(key):
        raise LimaskError(f"env_args.{key} is not set: name a map, as in `with env_args.{key}=3m`")
    return str(env_args[key])


def _type_bits(count: int) -> tuple[str, ...]:
    return tuple(f"unit_type_{i}" for i in range(count))
