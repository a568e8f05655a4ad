"""Values of a campaign file; each function returns ``value`` if it is what is expected.

``where`` is the value's place in the file, as ``arms.qmix.config``. Every function raises ``LimaskError``,
which says the place, what was given and what is expected.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from limask.errors import LimaskError, nearest
from limask.protocols import Block, State

#: Options by name, block in block, as in the configs; leaves are what sacred's command line can carry.
Options: TypeAlias = Block

#: Names that are folders on every file system.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


def block(where: str, value: object, required: Iterable[str], optional: Options) -> State:
    """A mapping with all of the ``required`` keys; ``optional`` ones are filled in."""
    known = (*required, *optional)
    if not isinstance(value, Mapping):
        raise LimaskError(f"{where} is {value!r}: expected a block of {', '.join(known)}")
    for key in value:
        if key not in known:
            raise LimaskError(
                f"{key!r} is no key of {where}{nearest(key, known)} (known: {', '.join(known)})"
            )
    missing = [key for key in required if key not in value]
    if missing:
        raise LimaskError(f"{where} lacks {', '.join(missing)}")
    return {**optional, **value}


def named(where: str, value: object) -> list[tuple[str, object]]:
    """The items of a mapping whose keys can be names of folders."""
    if not isinstance(value, Mapping) or not value:
        raise LimaskError(f"{where} is {value!r}: expected at least one block, each under a name of its own")
    for name in value:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise LimaskError(
                f"{where}: {name!r} is no name: expected at most 100 letters, digits and . _ + - (it becomes "
                "a folder)"
            )
    return list(value.items())


def options(where: str, value: object) -> Options:
    """A mapping of options, block in block."""
    if not isinstance(value, Mapping):
        raise LimaskError(f"{where} is {value!r}: expected a block of options, as in the configs")
    for key, option in value.items():
        if not isinstance(key, str) or "." in key:
            raise LimaskError(f"{where}: {key!r} is no option: write `lim: {{trunk: fc}}`, not lim.trunk")
        if isinstance(option, Mapping):
            options(f"{where}.{key}", option)
        elif not _is_plain(option):
            raise LimaskError(
                f"{where}.{key} is {option!r}: expected a number, text, a list of these or null"
            )
    return value


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (str, int))


def text(where: str, value: object) -> str:
    """Text that is not empty."""
    if not isinstance(value, str) or not value:
        raise LimaskError(f"{where} is {value!r}: expected a name")
    return value


def truth(where: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise LimaskError(f"{where} is {value!r}: expected true or false")
    return value


def integer(where: str, value: object, low: int, high: int | None = None) -> int:
    """An integer of at least ``low`` and at most ``high``."""
    most = "" if high is None else f" and at most {high}"
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= (high or value):
        raise LimaskError(f"{where} is {value!r}: expected an integer, at least {low}{most}")
    return value


def win_rate(where: str, value: object) -> float:
    """A win rate in (0, 1]."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= 1:
        raise LimaskError(f"{where}: {value!r} is no win rate: expected a number above 0 and at most 1")
    return float(value)


def distinct(where: str, value: object) -> list[Any]:
    """A list of at least one, and nothing twice."""
    if not isinstance(value, list) or not value:
        raise LimaskError(f"{where} is {value!r}: expected a list of at least one")
    for i, item in enumerate(value):
        if item in value[:i]:
            raise LimaskError(f"{where}: {item!r} is there twice: give each once")
    return value


def choices(where: str, value: object, known: Iterable[str]) -> list[str]:
    """A list, perhaps empty, of ``known`` names, and nothing twice."""
    for name in value if isinstance(value, list) else [value]:
        if name not in (names := tuple(known)):
            raise LimaskError(
                f"{where}: {name!r} is none of {', '.join(names)}{nearest(name, names)} (expected a list)"
            )
    return distinct(where, value) if value else []
