"""Layouts for environments that limask does not know: ``flat``, and those declared in a YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import nn

from limask.errors import LimaskError
from limask.layouts.base import Layout, TokenGroup
from limask.protocols import Block

#: Kinds that show the agent itself: no masker hides them.
_OWN = ("own", "move")
_REQUIRED, _OPTIONAL = ("kind", "count", "width"), ("first_action",)
_EXAMPLE = "{entities: [{kind: own, count: 1, width: 4}, {kind: enemy, count: 3, width: 5, first_action: 6}]}"


def flat_layout(obs_size: int, group_width: int) -> Layout:
    """One token for every ``group_width`` features (the last may be narrower), each a kind of its own."""
    starts = range(0, obs_size, group_width)
    groups = tuple(
        TokenGroup(
            f"group_{i}", 1, tuple(f"feature_{j}" for j in range(start, min(start + group_width, obs_size)))
        )
        for i, start in enumerate(starts)
    )
    return Layout("flat", groups, has_entities=False)


def declared_layout(block: Block) -> Layout:
    """The layout that a YAML declares: ``{entities: [{kind, count, width, first_action}, …]}``, in the order
    of the observation.

    ``own`` and ``move`` show the agent itself, ``ally`` the others of its team in the team's order; other
    kinds are free. Action ``first_action + k`` aims at the group's entity k; at most one group has it. An
    entity out of sight is zeros.

    Raises:
        LimaskError: names the entry, what is wrong with it and what is expected.
    """
    if set(block) != {"entities"} or not _is_list(block["entities"]) or not block["entities"]:
        raise LimaskError(f"lim.layout={dict(block)!r}: expected a list of entities, as in {_EXAMPLE}")
    groups = [_group(i, entry) for i, entry in enumerate(block["entities"])]
    kinds = [group.kind for group in groups]
    for i, kind in enumerate(kinds):
        if kind in kinds[:i]:
            raise LimaskError(
                f"lim.layout.entities[{i}].kind={kind!r} stands there twice: expected each kind once, for "
                "its entities share weights"
            )
    if not any(group.is_hideable for group in groups):
        raise LimaskError(
            f"lim.layout.entities are all {' or '.join(_OWN)}, the agent itself: expected another kind, or "
            "set lim.layout=flat"
        )
    aimed = [group.kind for group in groups if group.first_action is not None]
    if len(aimed) > 1:
        raise LimaskError(
            f"lim.layout.entities {' and '.join(aimed)} all have first_action: expected it at one of them"
        )
    return Layout("declared", tuple(groups))


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _group(i: int, entry: object) -> TokenGroup:
    where = f"lim.layout.entities[{i}]"
    keys = f"the keys {', '.join(_REQUIRED)} and, where actions aim at them, {', '.join(_OPTIONAL)}"
    if not isinstance(entry, Mapping):
        raise LimaskError(f"{where}={entry!r}: expected {keys}, as in {_EXAMPLE}")
    unknown = [key for key in entry if key not in (*_REQUIRED, *_OPTIONAL)]
    missing = [key for key in _REQUIRED if key not in entry]
    if unknown or missing:
        wrong = f"{unknown[0]!r} is no key" if unknown else f"{missing[0]} is missing"
        raise LimaskError(f"{where}: {wrong}; expected {keys}")
    kind = entry["kind"]
    # The kind names a layer of the networks: torch takes no name that a module has already.
    is_name = isinstance(kind, str) and re.fullmatch("[a-z][a-z0-9_]*", kind)
    if not is_name or hasattr(nn.ModuleDict, str(kind)):
        raise LimaskError(
            f"{where}.kind={kind!r}: expected own, move, ally, enemy or a word of your own in small letters"
            + (", and this one is taken by torch" if is_name else "")
        )
    for key, low in (("count", 1), ("width", 1), ("first_action", 0)):
        value = entry.get(key, low)
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise LimaskError(
                f"{where}.{key}={value!r} ({type(value).__name__}): expected an integer of at least {low}"
            )
    if kind in _OWN and "first_action" in entry:
        raise LimaskError(f"{where}.first_action with kind {kind!r}: no action aims at the agent itself")
    features = tuple(f"feature_{j}" for j in range(entry["width"]))
    return TokenGroup(kind, entry["count"], features, kind not in _OWN, entry.get("first_action"))
