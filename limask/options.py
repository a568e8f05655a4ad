"""Options of the ``lim:`` block one by one: what each may be, and what is said of a value that it may not."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from limask.errors import LimaskError


def option(default: Any, **allowed: Any) -> Any:
    """A field of a dataclass of options: ``choices``, or bounds ``low``, ``above``, ``high``, ``below``;
    ``block`` says what a block of options looks like where one may stand here."""
    return dataclasses.field(default=default, metadata=allowed)


def nearest(name: object, known: Iterable[str]) -> str:
    """Words that point to the nearest of the ``known`` names, or none."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def checked(field: dataclasses.Field[Any], value: Any) -> Any:
    """``value`` in the type of an option's field.

    Raises:
        LimaskError: the value is not allowed; the message names the key and what is.
    """
    allowed = field.metadata
    choices = allowed.get("choices", ())
    types = _TYPES[str(field.type).split(" ")[0]]
    if isinstance(value, str) and value in choices:
        return value
    if "block" in allowed and isinstance(value, Mapping):
        return value
    is_number = isinstance(value, (int, float)) and isinstance(value, types) and not isinstance(value, bool)
    is_number = is_number and math.isfinite(value)
    is_right = is_number and _is_inside(value, allowed) if bool not in types else isinstance(value, bool)
    if not is_right:
        raise LimaskError(
            f"lim.{field.name}={value!r} ({type(value).__name__}): expected {_expected(types, allowed)}"
            f"{nearest(value, choices) if isinstance(value, str) else ''}"
        )
    return float(value) if float in types else value


#: Annotation of a field → what a YAML value may be.
_TYPES: dict[str, tuple[type, ...]] = {"str": (), "bool": (bool,), "int": (int,), "float": (float, int)}

_BOUNDS = {"low": "at least", "above": "above", "high": "at most", "below": "below"}


def _is_inside(value: float, allowed: Mapping[str, Any]) -> bool:
    return (
        value >= allowed.get("low", value)
        and value <= allowed.get("high", value)
        and ("above" not in allowed or value > allowed["above"])
        and ("below" not in allowed or value < allowed["below"])
    )


def _expected(types: tuple[type, ...], allowed: Mapping[str, Any]) -> str:
    choices = ", ".join(allowed.get("choices", ()))
    if not types:
        return f"one of {choices}" + (f" or a block {allowed['block']}" if "block" in allowed else "")
    if bool in types:
        return "True or False"
    number = "a number such as 0.0005" if float in types else "an integer"
    bounds = " and ".join(f"{word} {allowed[key]}" for key, word in _BOUNDS.items() if key in allowed)
    return f"{number} {bounds}" + (f" or {choices}" if choices else "")
