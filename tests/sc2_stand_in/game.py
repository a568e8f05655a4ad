"""Answers requests of the StarCraft II API about one battle."""

from __future__ import annotations

from typing import Any

from s2clientprotocol import raw_pb2, sc2api_pb2

from sc2_stand_in import battle
from sc2_stand_in.battle import PLAYER, Battle

_MAP = "3m.SC2Map"
_TERRAIN_HEIGHT = 127


class RequestError(Exception):
    """A request that cannot be met; the text goes to the client."""


class Game:
    """The game's state behind the connection: launched, then a game created, then joined.

    Args:
        first_tag: where the units' tags begin; another process should begin elsewhere, as no tag of a dead
            game ought to mean a unit of the next.
    """

    def __init__(self, first_tag: int = 1) -> None:
        self.status = sc2api_pb2.launched
        self._first_tag = first_tag
        self._seed = 0
        self._battle: Battle | None = None

    def answer(self, message: bytes) -> bytes:
        """The serialised response to a serialised request."""
        request = sc2api_pb2.Request.FromString(message)
        response = sc2api_pb2.Response(id=request.id)
        kind = request.WhichOneof("request")
        try:
            answer = getattr(self, f"_{kind}", None)
            if answer is None:
                raise RequestError(f"the stand-in does not know the request {kind}")
            getattr(response, kind).SetInParent()
            answer(getattr(request, kind), getattr(response, kind))
        except RequestError as error:
            response.error.append(str(error))
        response.status = self.status
        return response.SerializeToString()

    @property
    def battle(self) -> Battle:
        """The battle that is fought; a request error outside of a game."""
        if self._battle is None:
            raise RequestError("no game has been joined")
        return self._battle

    def _ping(self, request: Any, response: Any) -> None:
        response.game_version = "stand-in"

    def _quit(self, request: Any, response: Any) -> None:
        self.status = sc2api_pb2.quit

    def _create_game(self, request: Any, response: Any) -> None:
        sides = [setup.type for setup in request.player_setup]
        if not request.local_map.map_path.endswith(_MAP) or not request.local_map.map_data:
            response.error = sc2api_pb2.ResponseCreateGame.InvalidMapPath
            response.error_details = f"the stand-in plays {_MAP} alone"
        elif sides != [sc2api_pb2.Participant, sc2api_pb2.Computer]:
            response.error = sc2api_pb2.ResponseCreateGame.InvalidPlayerSetup
        else:
            self._seed = request.random_seed
            self.status = sc2api_pb2.init_game

    def _join_game(self, request: Any, response: Any) -> None:
        if self.status != sc2api_pb2.init_game:
            raise RequestError("no game has been created")
        if not request.options.raw:
            raise RequestError("the stand-in has no interface but the raw one")
        self._start()
        response.player_id = PLAYER

    def _restart_game(self, request: Any, response: Any) -> None:
        self._first_tag += 2**10
        self.battle  # noqa: B018  refuses outside of a game
        self._start()

    def _start(self) -> None:
        self._battle = Battle(self._seed, self._first_tag)
        self.status = sc2api_pb2.in_game

    def _game_info(self, request: Any, response: Any) -> None:
        self.battle  # noqa: B018  refuses outside of a game
        size = battle.MAP_SIZE
        response.map_name = "3m (stand-in)"
        start = response.start_raw
        start.map_size.x = start.map_size.y = size
        heights = bytes([_TERRAIN_HEIGHT]) * size**2
        for image, bits, data in (
            (start.pathing_grid, 1, battle.pathing_grid()),
            (start.terrain_height, 8, heights),
        ):
            image.bits_per_pixel, image.data = bits, data
            image.size.x = image.size.y = size
        area = start.playable_area
        (area.p0.x, area.p1.x), (area.p0.y, area.p1.y) = battle.WALKABLE_X, battle.WALKABLE_Y

    def _step(self, request: Any, response: Any) -> None:
        self.battle.step(request.count)
        response.simulation_loop = self.battle.loop

    def _action(self, request: Any, response: Any) -> None:
        for action in request.actions:
            order = action.action_raw.unit_command
            place, aims = order.target_world_space_pos, order.WhichOneof("target")
            goal = (place.x, place.y) if aims == "target_world_space_pos" else None
            target = order.target_unit_tag if aims == "target_unit_tag" else None
            done = self.battle.command(order.ability_id, order.unit_tags, goal, target)
            # 1 is Success, 2 NotSupported in the API's list of action results.
            response.result.append(1 if done else 2)

    def _debug(self, request: Any, response: Any) -> None:
        for command in request.debug:
            if command.WhichOneof("command") != "kill_unit":
                raise RequestError("the stand-in has no debug command but kill_unit")
            self.battle.kill(command.kill_unit.tag)

    def _save_replay(self, request: Any, response: Any) -> None:
        response.data = f"{self.battle.loop} loops of {_MAP}".encode()

    def _observation(self, request: Any, response: Any) -> None:
        observation = response.observation
        observation.game_loop = self.battle.loop
        observation.player_common.player_id = PLAYER
        for unit in self.battle.units:
            _write_unit(unit, observation.raw_data.units.add())


def _write_unit(unit: battle.Unit, seen: Any) -> None:
    is_own = unit.owner == PLAYER
    seen.display_type = raw_pb2.Visible
    seen.alliance = raw_pb2.Self if is_own else raw_pb2.Enemy
    seen.tag, seen.unit_type, seen.owner = unit.tag, unit.unit_type, unit.owner
    seen.pos.x, seen.pos.y, seen.pos.z = unit.x, unit.y, 0.0
    seen.facing, seen.radius, seen.build_progress = unit.facing, battle.RADIUS, 1.0
    seen.health, seen.health_max = unit.health, battle.HEALTH
    if is_own:  # the game does not tell what an enemy is about to do
        seen.weapon_cooldown = unit.cooldown
