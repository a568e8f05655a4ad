"""Layouts of SMACv2 and SMAClite against their own packages; no StarCraft II is needed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limask.autoencoder.options import known_layout
from limask.config import LimConfig
from limask.errors import LimaskError
from limask.hosts.epymarl import scenario_args
from limask.layouts import Layout, smaclite_layout, smacv2_layout, tokens

CHECKOUTS = [Path(path) for path in os.environ.get("LIMASK_TEST_HOSTS", "").split(os.pathsep) if path]
SCENARIOS = [path / "src/config" for path in CHECKOUTS if (path / "src/config/envs/smacv2_configs").is_dir()]


def sizes(layout: Layout) -> dict[str, tuple[int, int]]:
    """Kind → (tokens, features of one token)."""
    return {group.kind: (group.count, group.width) for group in layout.groups}


# --- SMACv2 ----------------------------------------------------------------------------

#: Options beside the map, on top of a team of 5 against 6.
V2_OPTIONS: list[dict[str, Any]] = [
    {},
    {"obs_own_pos": True},
    {"obs_own_pos": True, "conic_fov": True, "obs_last_action": True},
    {"conic_fov": True, "num_fov_actions": 4, "obs_all_health": False, "obs_own_health": False},
    {"obs_pathing_grid": True, "obs_terrain_height": True, "obs_timestep_number": True, "obs_own_pos": True},
]
#: Capabilities that SMACv2 draws anew in each battle.
CAPABILITIES: list[dict[str, Any]] = [
    {"team_gen": {"observe": True}},
    {"attack": {"observe": True}, "start_positions": {}},
    {"health": {"observe": False}},
]


@pytest.fixture(scope="module")
def starcraft2() -> Any:
    """SMACv2's ``StarCraft2Env``, which can be made without the game."""
    try:
        from smacv2.env.starcraft2.starcraft2 import StarCraft2Env
    except (ImportError, TypeError) as error:
        pytest.skip(f"needs the smacv2 package and a pysc2 that can be imported: {error}")
    return StarCraft2Env


def v2_env_args(map_name: str, options: dict[str, Any], capabilities: dict[str, Any]) -> dict[str, Any]:
    teams = {"n_units": 5, "n_enemies": 6}
    drawn = {name: config | teams for name, config in capabilities.items()}
    return {"map_name": map_name, "capability_config": drawn | teams, **options}


def v2_name(kind: str, name: str) -> str:
    """SMACv2's own name of a feature, less the number of the unit."""
    if kind == "move":
        if name in ("north", "south", "east", "west"):
            return f"move_action_{name}"
        return re.sub("pathing", "pathing_grid", re.sub("height", "terrain_height", name))
    if name == "timestep":
        return name
    own = {"attackable": "shootable", "attack_probability": "attack_prob", "total_health": "health_level"}
    name = own.get(name, name).replace("position_", "pos_")
    name = re.sub(r"unit_type_(\d+)", r"unit_type_bit_\1", name)
    return f"{kind}_" + re.sub(r"last_action_(.+)", r"last_action_action_\1", name)


@pytest.mark.parametrize("capabilities", CAPABILITIES, ids=lambda value: "-".join(value))
@pytest.mark.parametrize("options", V2_OPTIONS, ids=lambda value: "-".join(value) or "plain")
@pytest.mark.parametrize("map_name", ["10gen_protoss", "10gen_terran", "10gen_zerg", "3m"])
def test_smacv2_names_every_feature_as_smacv2_does(
    starcraft2: Any, map_name: str, options: dict[str, Any], capabilities: dict[str, Any]
) -> None:
    env_args = v2_env_args(map_name, options, capabilities)
    env = starcraft2(**env_args)
    layout = smacv2_layout(env_args)
    assert layout.obs_size == env.get_obs_size()
    ours = [
        v2_name(group.kind, name)
        for group in layout.groups
        for _ in range(group.count)
        for name in group.features
    ]
    # Units are numbered in the middle of SMACv2's names, or at their end.
    theirs = [re.sub(r"^((?:ally|enemy)_[a-z_]+?)_\d+(?=$|_bit|_action)", r"\1", name) for name in
              env.get_obs_feature_names()]  # fmt: skip
    assert ours == theirs
    target = layout.target
    assert target is not None and target.first_action == env.n_actions_no_attack
    layout.check_team(env.n_agents, env.n_actions)


def test_smacv2_draws_the_teams_sizes_from_the_capabilities(starcraft2: Any) -> None:
    layout = smacv2_layout(v2_env_args("10gen_protoss", {}, {"team_gen": {"observe": True}}))
    assert {kind: count for kind, (count, _) in sizes(layout).items()} == {
        "move": 1,
        "enemy": 6,
        "ally": 4,
        "own": 1,
    }


@pytest.mark.skipif(not SCENARIOS, reason="LIMASK_TEST_HOSTS names no checkout with SMACv2's scenarios")
def test_smacv2_scenarios_of_the_checkout(starcraft2: Any) -> None:
    from smacv2.env.starcraft2.wrapper import StarCraftCapabilityEnvWrapper

    names = sorted(path.stem for path in (SCENARIOS[0] / "envs/smacv2_configs").glob("*.yaml"))
    assert names
    for name in names:
        env_args = scenario_args(SCENARIOS[0], "sc2v2", {"map_name": name, "time_limit": 150})
        env = StarCraftCapabilityEnvWrapper(**env_args)
        layout = known_layout(LimConfig(), "sc2v2", env_args)
        assert layout is not None and layout.obs_size == env.get_obs_size(), name
        layout.check_team(env.n_agents, env.n_actions)


#: Against the classes of a checkout that has a SMACv2 of its own; in a process of its own, for pysc2 takes no
#: two packages with the same maps.
OWN_SMACV2 = """
import importlib, pathlib, types, yaml
from envs.smac_v2 import StarCraft2Env2Wrapper
from limask.config import LimConfig
from limask.hosts.pymarl2 import Pymarl3Host
from limask.autoencoder.options import known_layout

host = Pymarl3Host()
host.module = importlib.import_module
for file in sorted(pathlib.Path("config/envs").glob("sc2_v2*.yaml")):
    for options in ({}, {"obs_last_action": True}, {"conic_fov": True}, {"obs_own_pos": False}):
        args = {**yaml.safe_load(file.read_text())["env_args"], **options}
        given = host.layout_args(types.SimpleNamespace(env="sc2_v2", env_args=args))
        layout = known_layout(LimConfig(), "sc2_v2", given)
        env = StarCraft2Env2Wrapper(**args).env
        assert layout.obs_size == env.get_obs_size(), (file.stem, options)
        layout.check_team(env.n_agents, env.n_actions)
        print("checked", file.stem, options)
"""
OWN = [path / "src" for path in CHECKOUTS if (path / "src/envs/smac_v2").is_dir()]


@pytest.mark.skipif(not OWN, reason="LIMASK_TEST_HOSTS names no checkout with a SMACv2 of its own (PyMARL3)")
def test_smacv2_of_a_host_that_has_its_own() -> None:
    pytest.importorskip("pysc2", reason="needs pysc2")
    env = os.environ | {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    env["PYTHONPATH"] = os.pathsep.join([str(OWN[0]), *filter(None, sys.path)])
    ran = subprocess.run(
        [sys.executable, "-c", OWN_SMACV2], cwd=OWN[0], env=env, text=True, capture_output=True
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("checked") == 12


def test_smacv2_scenario_that_the_host_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "envs/smacv2_configs").mkdir(parents=True)
    (tmp_path / "envs/smacv2_configs/zerg_5_vs_5.yaml").write_text("env_args: {map_name: 10gen_zerg}")
    assert scenario_args(tmp_path, "sc2v2", {"map_name": "zerg_5_vs_5"}) == {"map_name": "10gen_zerg"}
    assert scenario_args(tmp_path, "smax", {"map_name": "3m"}) == {"map_name": "3m"}
    with pytest.raises(LimaskError, match=r"env_args\.map_name='zerg_5'.*zerg_5_vs_5"):
        scenario_args(tmp_path, "sc2v2", {"map_name": "zerg_5"})


def test_smacv2_without_capabilities_is_told(starcraft2: Any) -> None:
    with pytest.raises(LimaskError, match="capability_config=None"):
        smacv2_layout({"map_name": "10gen_protoss"})
    with pytest.raises(LimaskError, match="n_units and n_enemies"):
        smacv2_layout({"map_name": "10gen_protoss", "capability_config": {"team_gen": {}, "n_units": 5}})
    with pytest.raises(LimaskError, match="map_name='3n' is no map of the installed smacv2"):
        smacv2_layout({"map_name": "3n", "capability_config": {}})


# --- SMAClite --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smaclite() -> Any:
    """SMAClite's environment, and its maps by name."""
    return pytest.importorskip("smaclite.env.smaclite", reason="needs the smaclite package")


def presets() -> dict[str, Any]:
    from smaclite.env.maps.map import MapPreset

    return {preset.value.name: preset.value for preset in MapPreset}


def test_smaclite_every_map(smaclite: Any) -> None:
    found = presets()
    assert {"MMM", "MMM2", "2s3z", "27m_vs_30m"} <= found.keys()
    for name, map_info in found.items():
        env = smaclite.SMACliteEnv(map_info=map_info, seed=1)
        layout = smaclite_layout({"map_name": name, "time_limit": 100, "use_cpp_rvo2": False})
        layout.check_obs_size(env.obs_size)
        layout.check_team(env.n_agents, env.n_actions)
        assert sizes(layout)["enemy"] == (env.n_enemies, env.enemy_feat_size), name
        assert sizes(layout)["ally"] == (env.n_agents - 1, env.ally_feat_size), name


@pytest.mark.parametrize("map_name", ["MMM", "2s3z"])
def test_smaclite_tokens_show_the_battle(smaclite: Any, map_name: str) -> None:
    """Who is seen, where, and in what health, in a battle at random."""
    rng = np.random.default_rng(3)
    env = smaclite.SMACliteEnv(map_info=presets()[map_name], seed=3)
    layout = smaclite_layout({"map_name": map_name})
    env.reset()
    n_seen = 0
    for _ in range(25):
        obs = torch.from_numpy(np.stack(env.get_obs()))
        parts, is_visible = tokens.split(obs, layout), tokens.visibility(obs, layout)
        for i, agent in env.agents.items():
            others = [j for j in range(env.n_agents) if j != i]
            seen = {"ally": [env.agents.get(j) for j in others]}
            seen["enemy"] = [env.enemies.get(j) for j in range(env.n_enemies)]
            for kind, units in seen.items():
                group = layout.group(kind)
                assert group is not None
                for k, unit in enumerate(units):
                    token = dict(zip(group.features, parts[kind][i, k].tolist(), strict=True))
                    gap = None if unit is None else (unit.pos - agent.pos) / 9
                    if gap is None or np.hypot(*gap) >= 1 or unit.hp == 0:
                        assert not any(token.values())
                        continue
                    n_seen += 1
                    assert (token["relative_x"], token["relative_y"]) == pytest.approx(tuple(gap), abs=1e-5)
                    assert token["health"] == pytest.approx(unit.hp / unit.max_hp, abs=1e-5)
        assert is_visible[:, tokens.hideable(layout)].sum() > 0
        available = np.stack(env.get_avail_actions())
        chosen = [int(rng.choice(np.flatnonzero(row))) for row in available]
        if env.step(chosen)[2]:
            break
    assert n_seen > 200


def test_smaclite_target_actions_of_healers_name_agents(smaclite: Any) -> None:
    """The Medivac is the first unit of MMM there; its k-th target action is for agent k."""
    layout = smaclite_layout({"map_name": "MMM"})
    env = smaclite.SMACliteEnv(map_info=presets()["MMM"], seed=1)
    env.reset()
    assert layout.healers == (0,)
    assert layout.target is not None and layout.target.first_action == 6
    available = env.get_avail_actions()[0][6:]
    in_reach = [
        j != 0 and np.hypot(*(unit.pos - env.agents[0].pos)) <= 6 for j, unit in sorted(env.agents.items())
    ]
    assert any(in_reach)
    assert [bool(value) for value in available[: env.n_agents]] == in_reach


def test_smaclite_unknown_map_is_told(smaclite: Any) -> None:
    with pytest.raises(LimaskError, match=r"map_name='mmm' is no map.*MMM2"):
        smaclite_layout({"map_name": "mmm"})
