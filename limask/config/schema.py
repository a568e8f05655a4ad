"""Dataclasses of options: what a field says of its option, and how a block of YAML is read into them.

Options are named with dots, as ``masker.ratio``: what stands before the dot is a group.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

from limask.errors import LimaskError, nearest
from limask.protocols import Block

T = TypeVar("T")

#: How strong a fault is: a number, or a range [low, high] of which each episode draws its own.
Severity: TypeAlias = float | list[float]

#: A field of a dataclass of options.
Field: TypeAlias = dataclasses.Field[Any]


def option(default: Any, meaning: str, *, unit: str = "", used_by: str = "all", **allowed: Any) -> Any:
    """A field of a dataclass of options.

    Args:
        default: the value of ``qmix_lim``.
        meaning: what it is.
        unit: of its value.
        used_by: which autoencoders, maskers or trunks have a use for it.
        **allowed: ``choices``, or bounds ``low``, ``above``, ``high``, ``below``; ``block``, what a block of
            options looks like where one may stand here; ``is_registered``, that a registry has the choices;
            ``is_path``, that it is a path, empty for none;
            ``is_severity``, that it is a ``Severity``; ``experimental``, why it stays though no config,
            campaign or page uses it.
    """
    about = {"meaning": meaning, "unit": unit, "used_by": used_by}
    return dataclasses.field(default=default, metadata=about | allowed)


def group(options: type[Any]) -> Any:
    """A field that holds a group of options."""
    return dataclasses.field(default_factory=options, metadata={"group": options})


def fields(options: type[object], prefix: str = "") -> Iterator[tuple[str, Field]]:
    """All options of a dataclass with their names, those of a group where the group stands."""
    for field in dataclasses.fields(options):  # type: ignore[arg-type]
        if "group" in field.metadata:
            yield from fields(field.metadata["group"], f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field


def read(options: type[T], block: Block, renamed: Mapping[str, str]) -> T:
    """An instance of a dataclass of options.

    Args:
        options: the dataclass.
        block: as YAML holds it.
        renamed: names by those that options had before.

    Raises:
        LimaskError: a name is unknown or an old one, a group is no block, or a value is not allowed.
    """
    return _read(options, block, "", lambda name: unknown_name(options, name, renamed))


def _read(options: type[T], block: Block, prefix: str, unknown: Callable[[str], LimaskError]) -> T:
    """``read`` of the group whose names begin with ``prefix``; ``unknown`` says what is wrong with a name."""
    own = {field.name: field for field in dataclasses.fields(options)}  # type: ignore[arg-type]
    values = {}
    for key, value in block.items():
        name = f"{prefix}{key}"
        if key not in own:
            raise unknown(name)
        if (inner := own[key].metadata.get("group")) is None:
            values[key] = checked(name, own[key], value)
        elif isinstance(value, Mapping):
            values[key] = _read(inner, value, f"{name}.", unknown)
        else:
            hint = f"; set lim.{name}.name={value!r}" if hasattr(inner, "name") else ""
            raise LimaskError(f"lim.{name}={value!r}: expected a block of options{hint}")
    return options(**values)


def unknown_name(options: type[object], name: str, renamed: Mapping[str, str]) -> LimaskError:
    """That there is no option ``name``, with the one that had that name before, or else the nearest."""
    group, _, inner = name.rpartition(".")
    if inner in renamed:
        return LimaskError(f"lim.{name} is lim.{renamed[inner]} now")
    known = [known for known, _ in fields(options)]
    # Among those of its group, where it stands in one: what they have in common makes nothing near.
    peers = {peer.rpartition(".")[2]: peer for peer in known if not group or peer.startswith(f"{group}.")}
    peers |= {} if group else {name: name for name in (known.partition(".")[0] for known in known)}
    if group and not peers:  # there is no such group
        peers, inner = {peer: peer for peer in known}, name
    peers = dict(renamed) | peers
    close = difflib.get_close_matches(inner, peers, n=1, cutoff=0.5)
    hint = f"; did you mean 'lim.{peers[close[0]]}'?" if close else ""
    return LimaskError(f"lim.{name} is no option{hint} (known: {', '.join(known)})")


def checked(name: str, field: Field, value: Any) -> Any:
    """``value`` in the type of the field of the option ``name``.

    Raises:
        LimaskError: the value is not allowed; the message names the key and what is.
    """
    allowed = field.metadata
    choices = allowed.get("choices", ())
    if allowed.get("is_severity"):
        ends = value if isinstance(value, (list, tuple)) and len(value) == 2 else [value]
        are_numbers = all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in ends)
        if not are_numbers or not all(_is_inside(end, allowed) for end in ends) or ends[0] > ends[-1]:
            raise not_allowed(name, value, expected(field))
        return value
    types = _TYPES[str(field.type).split(" ")[0]]
    if allowed.get("is_path") and not isinstance(value, str):
        raise not_allowed(name, value, expected(field))
    if (
        allowed.get("is_path")
        or allowed.get("is_registered")
        or (isinstance(value, str) and value in choices)
    ):
        return value
    if "block" in allowed and isinstance(value, Mapping):
        return value
    is_number = isinstance(value, (int, float)) and isinstance(value, types) and not isinstance(value, bool)
    is_number = is_number and math.isfinite(value)
    is_right = is_number and _is_inside(value, allowed) if bool not in types else isinstance(value, bool)
    if not is_right:
        raise not_allowed(name, value, expected(field), choices)
    return float(value) if float in types else value


def not_allowed(name: str, value: object, expected: str, choices: Iterable[str] = ()) -> LimaskError:
    """That ``value`` is not allowed for an option, with what is and the nearest of the ``choices``."""
    close = nearest(value, choices) if isinstance(value, str) else ""
    return LimaskError(f"lim.{name}={value!r} ({type(value).__name__}): expected {expected}{close}")


def expected(field: Field) -> str:
    """In words what an option may be."""
    if field.metadata.get("is_path"):
        return "a path"
    if field.metadata.get("is_severity"):
        bounds = _bounds(field.metadata)
        return f"a number{bounds and ' '}{bounds}, or a range [low, high]"
    return _expected(_TYPES[str(field.type).split(" ")[0]], field.metadata)


#: Annotation of a field → what a YAML value may be.
_TYPES: dict[str, tuple[type, ...]] = {"str": (), "bool": (bool,), "int": (int,), "float": (float, int)}

_BOUNDS = {"low": "at least", "above": "above", "high": "at most", "below": "below"}


def _is_inside(value: float, allowed: Block) -> bool:
    return (
        value >= allowed.get("low", value)
        and value <= allowed.get("high", value)
        and ("above" not in allowed or value > allowed["above"])
        and ("below" not in allowed or value < allowed["below"])
    )


def _bounds(allowed: Block) -> str:
    return " and ".join(f"{word} {allowed[key]}" for key, word in _BOUNDS.items() if key in allowed)


def _expected(types: tuple[type, ...], allowed: Block) -> str:
    choices = ", ".join(allowed.get("choices", ()))
    if not types:
        return f"one of {choices}" + (f" or a block {allowed['block']}" if "block" in allowed else "")
    if bool in types:
        return "True or False"
    number = "a number such as 0.0005" if float in types else "an integer"
    return f"{number} {_bounds(allowed)}" + (f" or {choices}" if choices else "")
