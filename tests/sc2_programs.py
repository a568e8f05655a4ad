"""What the tests on StarCraft II run in a process of its own: ``python -m sc2_programs NAME ARGUMENTS``.

Of its own, since the messages of s2clientprotocol need protobuf's pure-Python implementation, which a process
has to choose before its first message. Each program prints its findings as one line of JSON.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from typing import Any

import numpy as np


def _set_patience(seconds: int) -> None:
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["sc2_programs"])
    flags.FLAGS.sc2_timeout = seconds


def raw_session() -> dict[str, Any]:
    """A game by hand through pysc2: create, join, look, shoot until somebody dies, kill all, begin anew."""
    from pysc2 import run_configs
    from pysc2.lib import protocol, remote_controller
    from s2clientprotocol import common_pb2, debug_pb2, query_pb2, raw_pb2, sc2api_pb2

    _set_patience(20)
    config = run_configs.get()
    found: dict[str, Any] = {}
    with config.start(want_rgb=False) as controller:

        def create(name: str, data: bytes) -> None:
            game_map = sc2api_pb2.LocalMap(map_path=f"SMAC_Maps/{name}.SC2Map", map_data=data)
            request = sc2api_pb2.RequestCreateGame(local_map=game_map, random_seed=5)
            request.player_setup.add(type=sc2api_pb2.Participant)
            request.player_setup.add(type=sc2api_pb2.Computer, race=common_pb2.Terran)
            controller.create_game(request)

        def units(owner: int) -> list[Any]:
            return [u for u in controller.observe().observation.raw_data.units if u.owner == owner]

        def order(**command: Any) -> list[int]:
            raw = raw_pb2.ActionRaw(unit_command=raw_pb2.ActionRawUnitCommand(**command))
            actions = sc2api_pb2.RequestAction(actions=[sc2api_pb2.Action(action_raw=raw)])
            return list(controller.actions(actions).result)

        try:
            create("2s3z", b"other")
        except remote_controller.RequestError as error:
            found["other_map"] = str(error)
        create("3m", config.map_data("SMAC_Maps/3m.SC2Map"))
        join = sc2api_pb2.RequestJoinGame(race=common_pb2.Terran)
        join.options.raw = True
        controller.join_game(join)
        start = controller.game_info().start_raw
        found["sizes"] = [start.map_size.x, len(start.pathing_grid.data), len(start.terrain_height.data)]
        try:
            controller.query(query_pb2.RequestQuery())
        except protocol.ProtocolError as error:
            found["unknown"] = str(error)

        own, foes = units(1), units(2)
        found["types"] = sorted({(u.owner, u.unit_type, u.health, u.health_max) for u in own + foes})
        tag, place = own[0].tag, own[0].pos
        north = common_pb2.Point2D(x=place.x, y=place.y + 2)
        found["results"] = order(ability_id=16, unit_tags=[tag], target_world_space_pos=north)
        found["results"] += order(ability_id=23, unit_tags=[tag], target_unit_tag=1)
        controller.step(8)
        moved = next(u for u in units(1) if u.tag == tag)
        found["moved"] = [moved.pos.x - place.x, moved.pos.y - place.y]
        found["loop"] = controller.observe().observation.game_loop
        order(ability_id=23, unit_tags=[u.tag for u in own], target_unit_tag=foes[0].tag)
        while len(units(2)) == 3:
            controller.step(8)
        found["first_dead"] = foes[0].tag not in [u.tag for u in units(2)]

        tags = [u.tag for u in units(1) + units(2)]
        controller.debug(debug_pb2.DebugCommand(kill_unit=debug_pb2.DebugKillUnit(tag=tags)))
        found["all_killed"] = len(units(1) + units(2))
        controller.step(2)
        reborn = units(1) + units(2)
        found["next_battle"] = [len(reborn), bool({u.tag for u in reborn} & set(tags))]
        controller.step(5)
        controller.restart()
        found["replay"] = controller.save_replay().decode()
        found["loop_after_restart"] = controller.observe().observation.game_loop
    return found


def smac_battles(policy: str, n_battles: str, patience: str) -> dict[str, Any]:
    """Battles of 3m through smac.

    Args:
        policy: ``attack`` (smac's own: the nearest enemy), ``stop`` (do nothing) or ``random``.
        n_battles: how many.
        patience: seconds after which pysc2 gives up waiting for an answer.
    """
    from smac.env import StarCraft2Env

    from limask.layouts import smac_layout

    _set_patience(int(patience))
    env_args = {"map_name": "3m", "obs_pathing_grid": True, "obs_terrain_height": True}
    env = StarCraft2Env(**env_args, seed=1, heuristic_ai=policy == "attack")
    rng = np.random.default_rng(0)
    battles, sizes, first_obs = [], set(), None
    for _ in range(int(n_battles)):
        env.reset()
        is_over, total, n_steps, info = False, 0.0, 0, {}
        while not is_over:
            obs = np.stack(env.get_obs())
            first_obs = obs if first_obs is None else first_obs
            sizes.add((*obs.shape, *env.get_state().shape))
            avail = np.array(env.get_avail_actions())
            # The first possible action is to stop, or to be dead. With heuristic_ai smac chooses itself.
            choose = rng.choice if policy == "random" else min
            reward, is_over, info = env.step([int(choose(np.flatnonzero(row))) for row in avail])
            total, n_steps = total + reward, n_steps + 1
        battles.append({"return": total, "steps": n_steps, "won": info.get("battle_won")})
    assert first_obs is not None
    layout = smac_layout(env_args)
    found = {
        "battles": battles,
        "sizes": sorted(sizes),
        "expected_size": layout.obs_size,
        "first_obs": first_obs[0].tolist(),
        "features": [f"{g.kind}_{f}" for g in layout.groups for _ in range(g.count) for f in g.features],
        "pathing": [bool(env.pathing_grid[x, y]) for x, y in ((2, 6), (1, 6), (2, 5), (29, 25), (29, 26))],
        "restarts": env.force_restarts,
    }
    env.close()
    return found


def host(patience: str, *arguments: str) -> None:
    """The main of the checkout in this folder; it waits ``patience`` seconds for the game instead of 360."""
    import smac.env  # noqa: F401  parses the flags

    _set_patience(int(patience))
    sys.path.insert(0, os.path.abspath("src"))
    sys.argv = ["src/main.py", *arguments]
    runpy.run_path("src/main.py", run_name="__main__")


PROGRAMS = {"raw_session": raw_session, "smac_battles": smac_battles, "host": host}

if __name__ == "__main__":
    findings = PROGRAMS[sys.argv[1]](*sys.argv[2:])
    if findings is not None:
        print(json.dumps(findings))
