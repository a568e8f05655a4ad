"""Three marines against three on a walled field. Units: lengths of the map, game loops, hit points."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Iterable

PLAYER, COMPUTER = 1, 2
MAP_SIZE = 32
#: First and last place, on either axis, that is not wall.
WALKABLE_X, WALKABLE_Y = (2, 29), (6, 25)
TEAM_SIZE = 3
#: Between the places of a team's units, on both axes: the computer's arrive one after the other, so that they
#: can be beaten.
SPACING = {PLAYER: (0.0, 1.5), COMPUTER: (2.0, 1.5)}
HOMES = {PLAYER: (9.0, 16.0), COMPUTER: (23.0, 16.0)}
#: The player's is the map's own kind of marine, which never acts by itself: its number is above the game's.
UNIT_TYPES = {PLAYER: 2005, COMPUTER: 48}

HEALTH, DAMAGE, RADIUS = 45.0, 6.0, 0.375
WEAPON_RANGE = 5.0  # between the edges of two marines
COOLDOWN = 14.0
SPEED = 3.15 / 22.4  # of a game loop: the game makes 22.4 a second
NOTICES = 9.0  # how near the computer's marines let others come

MOVE, ATTACK, STOP = 16, 23, 4  # the API's numbers of the abilities
JITTER = 0.5  # of a unit's first place, on the x axis


@dataclasses.dataclass
class Unit:
    """A marine. Its order is a place to walk to, a unit to attack, or nothing."""

    tag: int
    owner: int
    x: float
    y: float
    facing: float
    health: float = HEALTH
    cooldown: float = 0.0
    goal: tuple[float, float] | None = None
    target: Unit | None = None

    @property
    def unit_type(self) -> int:
        return UNIT_TYPES[self.owner]

    def distance(self, x: float, y: float) -> float:
        return math.hypot(x - self.x, y - self.y)


class Battle:
    """Units of both sides; when none is left, the next battle begins on the following game loop.

    Args:
        seed: of the units' starting places.
        first_tag: tags count up from it and are never used twice.
    """

    def __init__(self, seed: int, first_tag: int = 1) -> None:
        self._rng = random.Random(seed)
        self._tags = itertools.count(first_tag)
        self.loop = 0
        self.units: list[Unit] = []
        self._spawn()

    def team(self, owner: int) -> list[Unit]:
        """The living units of one side."""
        return [unit for unit in self.units if unit.owner == owner]

    def kill(self, tags: Iterable[int]) -> None:
        """Remove units; unknown tags are ignored."""
        gone = set(tags)
        self.units = [unit for unit in self.units if unit.tag not in gone]

    def command(
        self,
        ability: int,
        tags: Iterable[int],
        goal: tuple[float, float] | None = None,
        target_tag: int | None = None,
    ) -> bool:
        """Give living units of the player an order; returns whether it can be carried out."""
        own = {unit.tag: unit for unit in self.team(PLAYER)}
        target = next((unit for unit in self.team(COMPUTER) if unit.tag == target_tag), None)
        units = [own[tag] for tag in tags if tag in own]
        is_whole = {MOVE: goal is not None, ATTACK: target is not None, STOP: True}.get(ability, False)
        if not units or not is_whole:
            return False
        for unit in units:
            unit.goal = goal if ability == MOVE else None
            unit.target = target if ability == ATTACK else None
        return True

    def step(self, loops: int) -> None:
        """Let game loops pass."""
        for _ in range(loops):
            self.loop += 1
            if not self.units:
                self._spawn()
                continue
            for unit in self.team(COMPUTER):
                self._attack_move(unit)
            # All shots of a game loop are fired before any of them hits.
            hit = [target for unit in self.units if (target := self._act(unit))]
            for target in hit:
                target.health -= DAMAGE
            self.units = [unit for unit in self.units if unit.health > 0]

    def _spawn(self) -> None:
        for owner, (home_x, home_y) in HOMES.items():
            for i in range(TEAM_SIZE):
                x = home_x + SPACING[owner][0] * i + self._rng.uniform(-JITTER, JITTER)
                y = home_y + SPACING[owner][1] * (i - (TEAM_SIZE - 1) / 2)
                facing = 0.0 if owner == PLAYER else math.pi
                self.units.append(Unit(next(self._tags), owner, x, y, facing))

    def _attack_move(self, unit: Unit) -> None:
        """The computer's marines walk to the player's home, and fight the nearest unit that they meet."""
        if unit.target in self.units:
            return
        nearest = min(self.team(PLAYER), key=lambda other: unit.distance(other.x, other.y), default=None)
        if nearest and unit.distance(nearest.x, nearest.y) <= NOTICES:
            unit.goal, unit.target = None, nearest
        else:
            unit.goal, unit.target = HOMES[PLAYER], None

    def _act(self, unit: Unit) -> Unit | None:
        """One game loop of a unit; returns whom it shoots."""
        unit.cooldown = max(0.0, unit.cooldown - 1)
        target = unit.target
        if target is None:
            if unit.goal is not None:
                self._walk(unit, *unit.goal)
            return None
        if target.health <= 0 or target not in self.units:
            unit.target = None
            return None
        unit.facing = math.atan2(target.y - unit.y, target.x - unit.x)
        if unit.distance(target.x, target.y) > WEAPON_RANGE + 2 * RADIUS:
            self._walk(unit, target.x, target.y)
            return None
        if unit.cooldown > 0:
            return None
        unit.cooldown = COOLDOWN
        return target

    def _walk(self, unit: Unit, x: float, y: float) -> None:
        distance = unit.distance(x, y)
        if distance == 0:
            unit.goal = None
            return
        unit.facing = math.atan2(y - unit.y, x - unit.x)
        share = min(1.0, SPEED / distance)
        place = (unit.x + share * (x - unit.x), unit.y + share * (y - unit.y))
        if is_walkable(int(place[0]), int(place[1])):
            unit.x, unit.y = place
        else:
            unit.goal = None


def is_walkable(x: int, y: int) -> bool:
    """Whether the square of the map with that corner is not wall."""
    return WALKABLE_X[0] <= x <= WALKABLE_X[1] and WALKABLE_Y[0] <= y <= WALKABLE_Y[1]


def pathing_grid() -> bytes:
    """A bit for each square, set where one can walk: rows from y = 0 on, in a byte the lowest x first."""
    rows = range(MAP_SIZE)
    return bytes(
        sum(is_walkable(x + bit, y) << (7 - bit) for bit in range(8))
        for y in rows
        for x in range(0, MAP_SIZE, 8)
    )
