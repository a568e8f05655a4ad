"""Layouts against arithmetic by hand, against the environments' own sizes, and against what they observe.

The tests on SMAC need its package (and pysc2) but no StarCraft II: the game's units are stood in for.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from limask.autoencoder.options import known_layout, resolve
from limask.config import LimConfig, MaskerOptions
from limask.envs import smax_battle
from limask.envs.smax_import import import_smax
from limask.errors import LimaskError
from limask.layouts import (
    SMAC_FLAGS,
    Frame,
    Layout,
    flat_layout,
    layout_name,
    smac_layout,
    smac_layout_of,
    smax_layout,
    tokens,
)
from limask.layouts.teammates import known_from_teammates


def sizes(layout: Layout) -> dict[str, tuple[int, int]]:
    """Kind → (tokens, features of one token)."""
    return {group.kind: (group.count, group.width) for group in layout.groups}


def smac_map(
    n_agents: int, n_enemies: int, a_race: str, b_race: str, unit_type_bits: int, map_type: str
) -> dict[str, Any]:
    """A map as SMAC's registry describes it."""
    return {
        "n_agents": n_agents,
        "n_enemies": n_enemies,
        "a_race": a_race,
        "b_race": b_race,
        "unit_type_bits": unit_type_bits,
        "map_type": map_type,
    }


# --- SMAC by hand ---------------------------------------------------------------------

#: What SMAC's registry says of a map; features of one enemy, one ally and the agent itself; O.
#: Another unit has 4 features (attackable or visible, distance, x, y), health, the shield of Protoss, and
#: the type bits; the agent itself has all but the 4; 4 directions come first.
SMAC_BY_HAND: dict[str, tuple[dict[str, Any], int, int, int, int]] = {
    "3m": (smac_map(3, 3, "T", "T", 0, "marines"), 5, 5, 1, 4 + 3 * 5 + 2 * 5 + 1),
    "8m": (smac_map(8, 8, "T", "T", 0, "marines"), 5, 5, 1, 80),
    "5m_vs_6m": (smac_map(5, 6, "T", "T", 0, "marines"), 5, 5, 1, 55),
    "27m_vs_30m": (smac_map(27, 30, "T", "T", 0, "marines"), 5, 5, 1, 285),
    "2s3z": (smac_map(5, 5, "P", "P", 2, "stalkers_and_zealots"), 8, 8, 4, 80),
    "3s5z": (smac_map(8, 8, "P", "P", 2, "stalkers_and_zealots"), 8, 8, 4, 128),
    "MMM": (smac_map(10, 10, "T", "T", 3, "MMM"), 8, 8, 4, 160),
    "MMM2": (smac_map(10, 12, "T", "T", 3, "MMM"), 8, 8, 4, 176),
    "corridor": (smac_map(6, 24, "P", "Z", 0, "zealots"), 5, 6, 2, 4 + 24 * 5 + 5 * 6 + 2),
    "6h_vs_8z": (smac_map(6, 8, "Z", "P", 0, "hydralisks"), 6, 5, 1, 4 + 8 * 6 + 5 * 5 + 1),
    "2c_vs_64zg": (smac_map(2, 64, "P", "Z", 0, "colossus"), 5, 6, 2, 332),
    "bane_vs_bane": (smac_map(24, 24, "Z", "Z", 2, "bane"), 7, 7, 3, 336),
}


@pytest.mark.parametrize("name", SMAC_BY_HAND)
def test_smac_sizes_by_hand(name: str) -> None:
    """Shields belong to one race, so allies and enemies may differ in width."""
    params, enemy, ally, own, obs_size = SMAC_BY_HAND[name]
    layout = smac_layout_of(params, {"map_name": name})
    assert sizes(layout) == {
        "move": (1, 4),
        "enemy": (params["n_enemies"], enemy),
        "ally": (params["n_agents"] - 1, ally),
        "own": (1, own),
    }
    assert layout.obs_size == obs_size
    assert layout.n_tokens == params["n_agents"] + params["n_enemies"] + 1


def test_smac_order_and_features_by_hand() -> None:
    """The names stand where SMAC puts the numbers: 6h_vs_8z, whose enemies alone have shields."""
    layout = smac_layout_of(SMAC_BY_HAND["6h_vs_8z"][0], {})
    assert [(group.kind, group.features) for group in layout.groups] == [
        ("move", ("north", "south", "east", "west")),
        ("enemy", ("attackable", "distance", "relative_x", "relative_y", "health", "shield")),
        ("ally", ("visible", "distance", "relative_x", "relative_y", "health")),
        ("own", ("health",)),
    ]
    assert layout.has_entities


#: Flags that are set → what becomes of 3s5z's groups.
SMAC_FLAG_BY_HAND: list[tuple[dict[str, bool], dict[str, tuple[int, int]]]] = [
    ({"obs_all_health": False}, {"enemy": (8, 6), "ally": (7, 6)}),
    # Own health is part of "all health", so that alone it changes nothing.
    ({"obs_own_health": False}, {}),
    ({"obs_all_health": False, "obs_own_health": False}, {"enemy": (8, 6), "ally": (7, 6), "own": (1, 2)}),
    # 6 actions without a target and 8 enemies.
    ({"obs_last_action": True}, {"ally": (7, 22)}),
    ({"obs_pathing_grid": True}, {"move": (1, 12)}),
    ({"obs_terrain_height": True}, {"move": (1, 13)}),
    ({"obs_pathing_grid": True, "obs_terrain_height": True}, {"move": (1, 21)}),
    ({"obs_timestep_number": True}, {"own": (1, 5)}),
]


@pytest.mark.parametrize(("flags", "changed"), SMAC_FLAG_BY_HAND, ids=lambda value: "-".join(value))
def test_smac_flags_by_hand(flags: dict[str, bool], changed: dict[str, tuple[int, int]]) -> None:
    """Each flag changes its own group and no other."""
    plain = {"move": (1, 4), "enemy": (8, 8), "ally": (7, 8), "own": (1, 4)}
    assert sizes(smac_layout_of(SMAC_BY_HAND["3s5z"][0], flags)) == plain | changed


def test_smac_optional_features_stand_where_smac_puts_them() -> None:
    """Points come after the directions, last actions and the time step come last."""
    layout = smac_layout_of(
        SMAC_BY_HAND["2s3z"][0],
        {name: True for name in SMAC_FLAGS},
    )
    features = {group.kind: group.features for group in layout.groups}
    assert features["move"][3:6] == ("west", "pathing_0", "pathing_1")
    assert features["move"][11:] == ("pathing_7", *(f"height_{i}" for i in range(9)))
    assert features["enemy"][4:] == ("health", "shield", "unit_type_0", "unit_type_1")
    assert features["ally"][4:9] == ("health", "shield", "unit_type_0", "unit_type_1", "last_action_0")
    assert features["ally"][-1] == "last_action_10"
    assert features["own"] == ("health", "shield", "unit_type_0", "unit_type_1", "timestep")


def test_smac_group_without_features_is_left_out() -> None:
    """A token of no features would be nothing to embed, hide or score."""
    layout = smac_layout_of(SMAC_BY_HAND["3m"][0], {"obs_all_health": False, "obs_own_health": False})
    assert sizes(layout) == {"move": (1, 4), "enemy": (3, 4), "ally": (2, 4)}
    assert layout.obs_size == 4 + 3 * 4 + 2 * 4
    assert layout.group("own") is None


@pytest.mark.parametrize("name", SMAC_BY_HAND)
def test_smac_targets_and_healers(name: str) -> None:
    """Attacks follow no-op, stop and 4 moves; only the MMM maps have a Medivac, sorted last."""
    layout = smac_layout_of(SMAC_BY_HAND[name][0], {})
    assert {group.kind: group.first_action for group in layout.groups} == {
        "move": None,
        "enemy": 6,
        "ally": None,
        "own": None,
    }
    assert layout.healers == ((9,) if name in ("MMM", "MMM2") else ())
    assert layout.kinds == {"ally", "enemy"}


# --- SMAC against its own package -----------------------------------------------------


@pytest.fixture(scope="module")
def starcraft() -> Iterator[Any]:
    """SMAC's `StarCraft2Env`, which can be made without the game."""
    try:
        from smac.env import StarCraft2Env
    except (
        ImportError,
        TypeError,
    ) as error:  # TypeError: of protobuf, where it is too new for s2clientprotocol
        pytest.skip(f"needs the smac package and pysc2: {error}")
    yield StarCraft2Env


def test_smac_every_map_with_every_combination_of_flags(starcraft: Any) -> None:
    """Each group's tokens and width, and O, as the environment itself counts them."""
    from smac.env.starcraft2.maps.smac_maps import get_smac_map_registry

    registry = get_smac_map_registry()
    assert set(registry) >= set(SMAC_BY_HAND)
    wrong = []
    for name in registry:
        for values in itertools.product((False, True), repeat=len(SMAC_FLAGS)):
            flags = dict(zip(SMAC_FLAGS, values, strict=True))
            if flags["obs_timestep_number"]:  # refused: SMAC's own numbers do not agree
                continue
            env = starcraft(map_name=name, **flags)
            layout = smac_layout({"map_name": name, **flags})
            expected = {
                "move": (1, env.get_obs_move_feats_size()),
                "enemy": env.get_obs_enemy_feats_size(),
                "ally": env.get_obs_ally_feats_size(),
                "own": (1, env.get_obs_own_feats_size()),
            }
            expected = {kind: size for kind, size in expected.items() if size[1]}
            target = layout.group("enemy")
            agrees = (
                sizes(layout) == expected
                and layout.obs_size == env.get_obs_size()
                and target is not None
                and target.first_action == env.n_actions_no_attack
                and target.first_action + target.count == env.get_total_actions()
            )
            if not agrees:
                wrong.append((name, flags, sizes(layout), expected))
    assert wrong == []


@pytest.mark.parametrize("name", SMAC_BY_HAND)
def test_smac_defaults_are_the_environments_own(starcraft: Any, name: str) -> None:
    """A flag that `env_args` leaves out has SMAC's default; and the table above is right."""
    env = starcraft(map_name=name)
    assert smac_layout({"map_name": name}).obs_size == env.get_obs_size() == SMAC_BY_HAND[name][-1]
    assert {flag: getattr(env, flag) for flag in SMAC_FLAGS} == SMAC_FLAGS


@pytest.mark.parametrize(
    ("frame", "told"),
    [(None, "own"), (Frame(("x", "y")), "team"), (Frame(("x", "y"), in_state=("x", "y")), "state")],
)
def test_targets_are_as_much_as_a_layout_can_tell(frame: Frame | None, told: str) -> None:
    layout = Layout("units", (), frame=frame)
    assert layout.rec_targets("auto") == told
    assert layout.rec_targets("own") == "own"
    assert layout.targets == set(["own", "team", "state"][: ["own", "team", "state"].index(told) + 1])


@pytest.mark.parametrize("name", SMAC_BY_HAND)
def test_smac_state_begins_with_the_agents(starcraft: Any, name: str) -> None:
    """Of a battle without enemies the state holds the agents' features alone."""
    env = starcraft(map_name=name, state_last_action=False)
    layout = smac_layout({"map_name": name})
    env.n_enemies = 0
    assert env.get_state_size() == env.n_agents * layout.state_width
    assert smac_layout({"map_name": name, "obs_instead_of_state": True}).state_width == 0


# --- what SMAC observes ---------------------------------------------------------------

SIGHT, SHOOT = 9.0, 6.0
MAP_SIZE = 32


@dataclass(frozen=True)
class Army:
    """Units of one side: for each its type, its type bit, full health, and full shield."""

    units: tuple[tuple[int, int | None, float, float], ...]


MARAUDER, MARINE, MEDIVAC = (0, 125.0, 0.0), (1, 45.0, 0.0), (2, 150.0, 0.0)
STALKER, ZEALOT = (80.0, 80.0), (100.0, 50.0)
# SMAC's own unit types of a map lie side by side in the order of the type bits; enemies have the game's.
ARMIES: dict[str, tuple[Army, Army]] = {
    "MMM2": (
        Army(((2000, *MARAUDER),) * 2 + ((2001, *MARINE),) * 7 + ((2002, *MEDIVAC),)),
        Army(((51, *MARAUDER),) * 3 + ((48, *MARINE),) * 8 + ((54, *MEDIVAC),)),
    ),
    # SMAC numbers the types of these enemies the other way round than those of the agents.
    "3s5z_vs_3s6z": (
        Army(((2000, 0, *STALKER),) * 3 + ((2001, 1, *ZEALOT),) * 5),
        Army(((74, 1, *STALKER),) * 3 + ((73, 0, *ZEALOT),) * 6),
    ),
    "2m_vs_1z": (
        Army(((2000, None, 45.0, 0.0),) * 2),
        Army(((73, None, *ZEALOT),)),
    ),
}
# Not the time step: with it SMAC's observations have one feature more than SMAC itself reports, and no host
# could store them.
ALL_FLAGS = {name: name != "obs_timestep_number" for name in SMAC_FLAGS}


def stand_in(rng: np.random.Generator, owner: int, tag: int, unit: tuple[Any, ...]) -> SimpleNamespace:
    """A unit with the attributes that SMAC reads, at a random place near the centre, sometimes dead."""
    unit_type, bit, health, shield = unit
    x, y = rng.uniform(9.0, 23.0, size=2)
    return SimpleNamespace(
        tag=tag,
        owner=owner,
        unit_type=unit_type,
        bit=bit,
        pos=SimpleNamespace(x=x, y=y),
        health=0.0 if rng.random() < 0.15 else health * rng.uniform(0.1, 1.0),
        health_max=health,
        shield=shield * rng.uniform(0.1, 1.0),
        shield_max=shield,
    )


def battle(starcraft: Any, map_name: str, seed: int) -> Any:
    """A `StarCraft2Env` in the middle of a battle of units that stand in for the game's."""
    rng = np.random.default_rng(seed)
    env = starcraft(map_name=map_name, **ALL_FLAGS)
    allies, enemies = ARMIES[map_name]
    units = [stand_in(rng, 1, 100 + i, unit) for i, unit in enumerate(allies.units)]
    units += [stand_in(rng, 2, 200 + i, unit) for i, unit in enumerate(enemies.units)]
    rng.shuffle(units)
    env._obs = SimpleNamespace(observation=SimpleNamespace(raw_data=SimpleNamespace(units=units)))
    env.init_units()
    env.map_x = env.map_y = MAP_SIZE
    env.pathing_grid = rng.random((MAP_SIZE, MAP_SIZE)) < 0.5
    env.terrain_height = rng.random((MAP_SIZE, MAP_SIZE))
    env.last_action = np.eye(env.n_actions)[rng.integers(env.n_actions, size=env.n_agents)]
    return env


def seen_unit(observer: Any, unit: Any, first: str, is_marked: bool) -> dict[str, float]:
    """The features that SMAC shows of another unit; all 0 where it is dead or out of sight."""
    x, y = unit.pos.x - observer.pos.x, unit.pos.y - observer.pos.y
    distance = float(np.hypot(x, y))
    if unit.health <= 0 or observer.health <= 0 or distance >= SIGHT:
        return {}
    features = {
        first: float(is_marked),
        "distance": distance / SIGHT,
        "relative_x": x / SIGHT,
        "relative_y": y / SIGHT,
        "health": unit.health / unit.health_max,
    }
    if unit.shield_max:
        features["shield"] = unit.shield / unit.shield_max
    if unit.bit is not None:
        features[f"unit_type_{unit.bit}"] = 1.0
    return features


def own_features(unit: Any) -> dict[str, float]:
    """The features that SMAC shows of the agent itself; none where it is dead."""
    if unit.health <= 0:
        return {}
    features = {"health": unit.health / unit.health_max}
    if unit.shield_max:
        features["shield"] = unit.shield / unit.shield_max
    if unit.bit is not None:
        features[f"unit_type_{unit.bit}"] = 1.0
    return features


def by_name(token: torch.Tensor, names: tuple[str, ...]) -> dict[str, float]:
    """The features of a token that are not 0."""
    return {name: value for name, value in zip(names, token.tolist(), strict=True) if value != 0}


def is_in_range(observer: Any, unit: Any, reach: float) -> bool:
    """Whether two living units are no farther apart than ``reach``."""
    distance = np.hypot(unit.pos.x - observer.pos.x, unit.pos.y - observer.pos.y)
    return bool(unit.health > 0 and observer.health > 0 and distance <= reach)


@pytest.mark.parametrize("map_name", ARMIES)
def test_smac_features_land_in_the_right_tokens(starcraft: Any, map_name: str) -> None:
    """Every feature of every token by name, for every agent, in battles with the dead and the unseen."""
    layout = smac_layout({"map_name": map_name, **ALL_FLAGS})
    n_seen = n_unseen = 0
    for seed in range(6):
        env = battle(starcraft, map_name, seed)
        healers = [i for i in range(env.n_agents) if env.agents[i].unit_type == env.medivac_id]
        for i, slots in enumerate(tokens.teammate_slots(env.n_agents).tolist()):
            observer = env.agents[i]
            parts = tokens.split(torch.from_numpy(env.get_obs_agent(i)), layout)
            names = {group.kind: group.features for group in layout.groups}
            for k, unit in env.enemies.items():
                # What SMAC marks as attackable is whether action 6 + k is available: to a healer, to heal.
                target = env.agents.get(k) if i in healers else unit
                is_marked = target is not None and target is not observer
                is_marked = is_marked and is_in_range(observer, target, SHOOT)
                expected = {
                    name: value
                    for name, value in seen_unit(observer, unit, "attackable", is_marked).items()
                    if value
                }
                n_seen, n_unseen = n_seen + bool(expected), n_unseen + (not expected)
                assert by_name(parts["enemy"][k], names["enemy"]) == pytest.approx(expected, abs=1e-5)
            for slot, j in enumerate(slots):
                expected = seen_unit(observer, env.agents[j], "visible", True)
                if expected:
                    expected[f"last_action_{int(env.last_action[j].argmax())}"] = 1.0
                n_seen, n_unseen = n_seen + bool(expected), n_unseen + (not expected)
                assert by_name(parts["ally"][slot], names["ally"]) == pytest.approx(expected, abs=1e-5)
            own = by_name(parts["own"][0], names["own"])
            assert own == pytest.approx(own_features(observer), abs=1e-5)
            move = dict(zip(names["move"], parts["move"][0].tolist(), strict=True))
            height = env.terrain_height[int(observer.pos.x), int(observer.pos.y)]
            # The last of the heights is that of the agent's own place.
            assert move["height_8"] == pytest.approx(height if observer.health > 0 else 0.0, abs=1e-5)
            east = env.pathing_grid[int(observer.pos.x + 1), int(observer.pos.y)]
            assert move["east"] == float(observer.health > 0 and east)
    assert min(n_seen, n_unseen) > 5


@pytest.mark.parametrize("map_name", ARMIES)
def test_smac_teammates_tell_what_the_agent_would_see(starcraft: Any, map_name: str) -> None:
    """What an agent sees itself its teammates know alike, but for whether it can be attacked."""
    layout = smac_layout({"map_name": map_name, **ALL_FLAGS})
    n_same, n_new = 0, 0
    for seed in range(12):
        env = battle(starcraft, map_name, seed)
        obs = torch.tensor(np.stack([env.get_obs_agent(agent) for agent in range(env.n_agents)])).float()
        told = known_from_teammates(obs, layout)
        is_visible = tokens.visibility(obs, layout)
        is_same = told.is_feature & (tokens.hide(torch.ones_like(obs), ~is_visible, layout) > 0)
        tokens.split(is_same, layout)["enemy"][..., 0] = False  # "attackable"
        assert ((told.obs - obs) * is_same).abs().max() < 1e-5
        n_same += int((told.is_token & is_visible).sum())
        n_new += int((told.is_token & ~is_visible).sum())
        enemies = tokens.split(told.obs, layout)["enemy"]
        is_new = (told.is_token & ~is_visible)[:, 1 : 1 + enemies.shape[1]]
        for agent, enemy in is_new.nonzero().tolist():
            me, unit = env.agents[agent].pos, env.enemies[enemy].pos
            away = [(unit.x - me.x) / SIGHT, (unit.y - me.y) / SIGHT]
            expected = [0.0, float(np.hypot(*away)), *away]
            assert enemies[agent, enemy, :4].tolist() == pytest.approx(expected, abs=1e-5)
    assert n_same > 5
    assert n_new > 0 or map_name == "2m_vs_1z"


@pytest.mark.parametrize("map_name", ARMIES)
def test_smac_attack_k_aims_at_enemy_token_k(starcraft: Any, map_name: str) -> None:
    """The order that SMAC sends to the game for action 6 + k names the unit that enemy token k shows."""
    layout = smac_layout({"map_name": map_name, **ALL_FLAGS})
    group = layout.group("enemy")
    assert group is not None and group.first_action is not None
    n_attacks = 0
    for seed in range(6):
        env = battle(starcraft, map_name, seed)
        for i in set(range(env.n_agents)) - set(layout.healers):
            parts = tokens.split(torch.from_numpy(env.get_obs_agent(i)), layout)
            for k in range(group.count):
                if not env.get_avail_agent_actions(i)[group.first_action + k]:
                    continue
                order = env.get_agent_action(i, group.first_action + k).action_raw.unit_command
                target = next(unit for unit in env.enemies.values() if unit.tag == order.target_unit_tag)
                health = parts["enemy"][k, group.features.index("health")].item()
                assert health == pytest.approx(target.health / target.health_max, abs=1e-5)
                n_attacks += 1
    assert n_attacks >= 3


def test_smac_healers_aim_at_allies(starcraft: Any) -> None:
    """On MMM the last agent's action 6 + k heals agent k, which is the ally token k that it sees."""
    layout = smac_layout({"map_name": "MMM2", **ALL_FLAGS})
    group = layout.group("ally")
    assert group is not None
    n_healed = 0
    for seed in range(6):
        env = battle(starcraft, "MMM2", seed)
        assert layout.healers == tuple(
            i for i, unit in env.agents.items() if unit.unit_type == env.medivac_id
        )
        (healer,) = layout.healers
        parts = tokens.split(torch.from_numpy(env.get_obs_agent(healer)), layout)
        for k in range(env.n_enemies):
            if not env.get_avail_agent_actions(healer)[6 + k]:
                continue
            order = env.get_agent_action(healer, 6 + k).action_raw.unit_command
            assert order.target_unit_tag == env.agents[k].tag
            health = parts["ally"][k, group.features.index("health")].item()
            assert health == pytest.approx(env.agents[k].health / env.agents[k].health_max, abs=1e-5)
            n_healed += 1
    assert n_healed >= 3


# --- SMAC's package present, absent, or with maps of the user's -----------------------


def test_smac_maps_of_the_user_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the installed package knows, limask knows; a map that it does not know is named."""
    package = stub_smac(monkeypatch)
    package.get_map_params = {"my_map": SMAC_BY_HAND["2s3z"][0]}.__getitem__  # type: ignore[attr-defined]
    assert smac_layout({"map_name": "my_map"}).obs_size == 80
    with pytest.raises(LimaskError, match=r"env_args\.map_name='your_map' is no map"):
        smac_layout({"map_name": "your_map"})


def test_smac_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do about it."""
    stub_smac(monkeypatch)
    monkeypatch.setitem(sys.modules, "smac.env.starcraft2.maps", None)
    with pytest.raises(LimaskError, match=r"needs the smac package.*limask\[smac\]"):
        smac_layout({"map_name": "3m"})


def stub_smac(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Empty modules in place of SMAC's; returns the one that knows the maps."""
    names = ("smac", "smac.env", "smac.env.starcraft2", "smac.env.starcraft2.maps")
    for name in names:
        module = ModuleType(name)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, name, module)
    return sys.modules[names[-1]]


# --- SMAX -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smax() -> Any:
    """jaxmarl's module of SMAX."""
    pytest.importorskip("jaxmarl", reason="needs jaxmarl, which SMAX is part of")
    return import_smax().package


def smax_scenario(smax: Any, name: str) -> Any:
    """jaxmarl's scenario; for the two that limask adds, the units that SMAC has there."""
    import jax.numpy as jnp

    stalker, zealot = 2, 3
    if name in ("3s_vs_3z", "3s_vs_4z"):
        n_enemies = int(name[-2])
        types = jnp.array([stalker] * 3 + [zealot] * n_enemies, dtype=jnp.uint8)
        return smax.Scenario(types, 3, n_enemies, False, False)
    return smax.map_name_to_scenario(name)


def test_smax_every_scenario(smax: Any) -> None:
    """O and the order of the features against the environment itself, for all scenarios."""
    names = {*import_smax().scenarios, "3s_vs_3z", "3s_vs_4z"}
    assert len(names) >= 16
    for name in sorted(names):
        env = smax.SMAX(scenario=smax_scenario(smax, name))
        layout = smax_layout({"map_name": name})
        (obs_size,) = env.observation_spaces["ally_0"].shape
        assert (name, layout.obs_size) == (name, obs_size)
        groups = [(group.kind, group.count, group.first_action) for group in layout.groups]
        assert groups == [
            ("ally", env.num_allies - 1, None),
            ("enemy", env.num_enemies, env.num_movement_actions),
            ("own", 1, None),
        ]
        assert env.action_spaces["ally_0"].n == env.num_movement_actions + env.num_enemies


@pytest.mark.parametrize("name", ["3s_vs_3z", "3s_vs_4z"])
def test_smax_added_scenarios_have_smacs_units(smax: Any, name: str) -> None:
    """Stalkers against zealots, as on SMAC's maps of these names."""
    added, expected = smax_battle.scenario(name), smax_scenario(smax, name)
    assert added.unit_types.tolist() == expected.unit_types.tolist()
    assert (added.num_allies, added.num_enemies) == (expected.num_allies, expected.num_enemies)


def test_smax_sizes_by_hand(smax: Any) -> None:
    """2s3z: 9 other units of 7 features and 6 type bits, own 4 and 6."""
    layout = smax_layout({"map_name": "2s3z"})
    assert sizes(layout) == {"ally": (4, 13), "enemy": (5, 13), "own": (1, 10)}
    assert layout.obs_size == 9 * 13 + 10
    assert layout.has_entities
    assert layout.healers == ()


@pytest.mark.parametrize("map_name", ["3mm", "MMM"])
def test_smax_unknown_map(smax: Any, map_name: str) -> None:
    """The message names the map and those that there are."""
    with pytest.raises(LimaskError, match=rf"env_args\.map_name='{map_name}'.*3s_vs_3z"):
        smax_layout({"map_name": map_name})


# Statistics of stalkers and zealots as SMAX publishes them; both sides of 2s3z are 2 and 3 of these.
STALKERS = {"type": 2, "health": 160.0, "damage": 13.0, "reach": 6.0, "sight": 10.0, "cooldown": 1.87}
ZEALOTS = {"type": 3, "health": 150.0, "damage": 8.0, "reach": 2.0, "sight": 9.0, "cooldown": 0.86}
TWO_S_THREE_Z = [STALKERS, STALKERS, ZEALOTS, ZEALOTS, ZEALOTS] * 2
N_SIDE = 5
STOP, FIRST_ATTACK = 4, 5


@dataclass(frozen=True)
class Skirmish:
    """One step of 5 battles of 2s3z: what agents were shown after it, and how the battles then stood.

    In battle k agent 0 has enemy k alone in range and attacks it, agent 1 walks, and the others stand still.
    """

    obs: torch.Tensor
    avail_actions: np.ndarray
    health_before: np.ndarray
    units: Any


@pytest.fixture(scope="module")
def skirmish(smax: Any) -> Skirmish:
    """Units are put where some see each other and some do not; some are wounded, and some are dead."""
    import jax
    import jax.numpy as jnp

    from limask.envs.smax import SmaxVector

    vector = SmaxVector("2s3z", seeds=range(N_SIDE))
    vector.reset()
    places = np.zeros((N_SIDE, 2 * N_SIDE, 2), dtype=np.float32)
    share = np.tile(np.linspace(0.3, 1.0, 2 * N_SIDE, dtype=np.float32), (N_SIDE, 1))
    others = [(16.0, 24.4), (23.0, 10.5), (29.0, 29.0), (3.0, 29.0)]
    for k in range(N_SIDE):
        places[k, :N_SIDE] = [(16.0, 16.0), (13.0, 16.0), (16.0, 13.0), (3.0, 3.0), (12.0, 12.0)]
        places[k, N_SIDE:] = np.insert(np.array(others), k, (20.0, 16.0), axis=0)
        share[k, N_SIDE + (k + 1) % N_SIDE] = 0.0
    share[0, 4] = share[1, 1] = 0.0
    health = share * np.array([unit["health"] for unit in TWO_S_THREE_Z], dtype=np.float32)
    battles = jax.vmap(vector._battle.battle_of)(vector._rows[:, : vector._battle.size])
    battles = battles.replace(
        state=battles.state.replace(
            unit_positions=jnp.asarray(places),
            unit_health=jnp.asarray(health),
            unit_alive=jnp.asarray(health > 0),
        )
    )
    flat = jax.vmap(lambda battle: vector._battle.flatten(battle)[0])(battles)
    vector._rows = vector._rows.at[:, : vector._battle.size].set(flat)
    actions = np.full((N_SIDE, N_SIDE), STOP)
    actions[:, 0] = FIRST_ATTACK + np.arange(N_SIDE)
    actions[:, 1] = 0
    observation = vector.step(actions).observation
    states = jax.vmap(vector._battle.battle_of)(vector._rows[:, : vector._battle.size]).state
    return Skirmish(torch.tensor(observation.obs), observation.avail_actions, health, states)


def test_smax_attack_k_hits_enemy_token_k(skirmish: Skirmish) -> None:
    """Action 5 + k wounds the unit that enemy token k shows, and no other."""
    layout = smax_layout({"map_name": "2s3z"})
    group = layout.group("enemy")
    assert group is not None and group.first_action == FIRST_ATTACK
    health = group.features.index("health")
    for k in range(N_SIDE):
        full = [unit["health"] for unit in TWO_S_THREE_Z[N_SIDE:]]
        expected = skirmish.health_before[k, N_SIDE:].copy()
        expected[k] -= STALKERS["damage"]
        assert np.asarray(skirmish.units.unit_health)[k, N_SIDE:] == pytest.approx(expected)
        token = tokens.split(skirmish.obs[k, 0], layout)["enemy"][k]
        assert token[health].item() == pytest.approx(expected[k] / full[k], abs=1e-6)


def smax_other(units: Any, b: int, observer: int, unit: int) -> dict[str, float]:
    """The features that SMAX shows of unit ``unit``; none where it is dead or out of sight."""
    place = np.asarray(units.unit_positions)[b]
    is_alive = np.asarray(units.unit_alive)[b]
    away = place[unit] - place[observer]
    own_kind, kind = TWO_S_THREE_Z[observer], TWO_S_THREE_Z[unit]
    if not (is_alive[observer] and is_alive[unit] and np.hypot(*away) < own_kind["sight"]):
        return {}
    walk = np.asarray(units.prev_movement_actions)[b, unit]
    return {
        "health": np.asarray(units.unit_health)[b, unit] / kind["health"],
        "position_x": away[0] / own_kind["sight"],
        "position_y": away[1] / own_kind["sight"],
        "last_movement_x": walk[0],
        "last_movement_y": walk[1],
        # Over the highest action: 5 that move and 5 that attack, counted from 0.
        "last_targeted": np.asarray(units.prev_attack_actions)[b, unit] / 9,
        "weapon_cooldown": min(
            max(np.asarray(units.unit_weapon_cooldowns)[b, unit] / kind["cooldown"], 0), 1
        ),
        f"unit_type_{kind['type']}": 1.0,
    }


def smax_own(units: Any, b: int, agent: int) -> dict[str, float]:
    """The features that SMAX shows of the agent itself; none where it is dead."""
    if not np.asarray(units.unit_alive)[b, agent]:
        return {}
    kind = TWO_S_THREE_Z[agent]
    x, y = np.asarray(units.unit_positions)[b, agent]
    return {
        "health": np.asarray(units.unit_health)[b, agent] / kind["health"],
        "position_x": x / MAP_SIZE,
        "position_y": y / MAP_SIZE,
        "weapon_cooldown": min(
            max(np.asarray(units.unit_weapon_cooldowns)[b, agent] / kind["cooldown"], 0), 1
        ),
        f"unit_type_{kind['type']}": 1.0,
    }


def test_smax_tokens_show_the_battle(skirmish: Skirmish) -> None:
    """Every feature of every token by name, recomputed from the units of the battle."""
    layout = smax_layout({"map_name": "2s3z"})
    names = {group.kind: group.features for group in layout.groups}
    is_visible = tokens.visibility(skirmish.obs, layout)
    n_seen = 0
    for b, i in itertools.product(range(N_SIDE), range(N_SIDE)):
        parts = tokens.split(skirmish.obs[b, i], layout)
        teammates = [j for j in range(N_SIDE) if j != i]
        expected = [smax_other(skirmish.units, b, i, j) for j in teammates]
        expected += [smax_other(skirmish.units, b, i, N_SIDE + k) for k in range(N_SIDE)]
        expected.append(smax_own(skirmish.units, b, i))
        shown = [by_name(token, names[kind]) for kind in ("ally", "enemy", "own") for token in parts[kind]]
        for token, features in zip(shown, expected, strict=True):
            assert token == pytest.approx({name: x for name, x in features.items() if x != 0}, abs=1e-5)
        assert is_visible[b, i].tolist() == [bool(features) for features in expected]
        n_seen += sum(map(bool, expected))
    assert 30 < n_seen < N_SIDE * N_SIDE * layout.n_tokens - 30


def test_smax_attack_k_is_available_where_enemy_k_is_in_reach(skirmish: Skirmish) -> None:
    """The available attacks are those on enemies in reach, in the order of the enemy tokens."""
    place, is_alive = np.asarray(skirmish.units.unit_positions), np.asarray(skirmish.units.unit_alive)
    n_available = 0
    for b, i, k in itertools.product(range(N_SIDE), repeat=3):
        distance = np.hypot(*(place[b, N_SIDE + k] - place[b, i]))
        is_in_reach = distance < TWO_S_THREE_Z[i]["reach"] and is_alive[b, i] and is_alive[b, N_SIDE + k]
        assert skirmish.avail_actions[b, i, FIRST_ATTACK + k] == is_in_reach
        n_available += is_in_reach
    assert n_available >= N_SIDE


# --- flat, and which layout a run gets ------------------------------------------------


@pytest.mark.parametrize(
    ("obs_size", "group_width", "widths"),
    [(9, 3, [3, 3, 3]), (10, 3, [3, 3, 3, 1]), (2, 3, [2]), (3, 1, [1, 1, 1])],
)
def test_flat(obs_size: int, group_width: int, widths: list[int]) -> None:
    """One token for every so many features; the last takes what is left."""
    layout = flat_layout(obs_size, group_width)
    assert [(group.kind, group.count, group.width) for group in layout.groups] == [
        (f"group_{i}", 1, width) for i, width in enumerate(widths)
    ]
    features = [name for group in layout.groups for name in group.features]
    assert features == [f"feature_{i}" for i in range(obs_size)]
    assert layout.obs_size == obs_size
    assert layout.n_tokens == len(widths)
    assert layout.kinds == frozenset()
    assert not layout.has_entities
    assert layout.group("enemy") is None


@pytest.mark.parametrize(
    ("layout", "env", "expected"),
    [
        ("auto", "smax", "smax"),
        ("auto", "sc2", "smac"),
        ("auto", "gymma", "flat"),
        ("flat", "smax", "flat"),
        ("smac", "my_own_smac", "smac"),
    ],
)
def test_layout_of_an_environment(layout: str, env: str, expected: str) -> None:
    """`auto` goes by the host's name of the environment; a layout that is named is taken."""
    assert layout_name(LimConfig(layout=layout), env, {}) == expected


def test_unknown_environment_gets_groups_of_features() -> None:
    """Of the width that the config names."""
    config = LimConfig(group_width=4)
    assert known_layout(config, "gymma", {}) is None
    assert resolve(config, "gymma", {}, 10) == flat_layout(10, 4)


def test_masker_that_the_layout_cannot_carry_is_refused() -> None:
    """Before an environment is started."""
    with pytest.raises(LimaskError, match=r"lim\.masker\.name='random_agent' on layout 'flat'"):
        known_layout(LimConfig(masker=MaskerOptions(name="random_agent")), "gymma", {})


@pytest.mark.parametrize("env_args", [{}, {"map_name": None}, {"map_name": ""}])
def test_map_that_is_not_named(env_args: dict[str, Any]) -> None:
    """The hosts' YAML files leave `map_name: null` to the command line."""
    for layout in (smax_layout, smac_layout):
        with pytest.MonkeyPatch.context() as monkeypatch:
            stub_smac(monkeypatch).get_map_params = {}.__getitem__  # type: ignore[attr-defined]
            with pytest.raises(LimaskError, match=r"env_args\.map_name is not set"):
                layout(env_args)


def test_mismatch_shows_both_sums() -> None:
    """The parts of the sum say which group is off."""
    layout = smac_layout_of(SMAC_BY_HAND["3m"][0], {})
    layout.check_obs_size(30)
    with pytest.raises(LimaskError) as caught:
        layout.check_obs_size(42)
    message = str(caught.value)
    assert "'smac'" in message
    assert "move 1×4 + enemy 3×5 + ally 2×5 + own 1×1 = 30" in message
    assert "42" in message
    assert "lim.layout=flat" in message


def test_resolve_compares_with_the_hosts_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host's wrapper may add features: then the slices would lie."""
    package = stub_smac(monkeypatch)
    package.get_map_params = {"3m": SMAC_BY_HAND["3m"][0]}.__getitem__  # type: ignore[attr-defined]
    assert resolve(LimConfig(), "sc2", {"map_name": "3m"}, 30).name == "smac"
    with pytest.raises(LimaskError, match="observations of 33"):
        resolve(LimConfig(), "sc2", {"map_name": "3m"}, 33)
