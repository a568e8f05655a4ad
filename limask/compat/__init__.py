"""Lets hosts start here that were written for older packages, or whose own packages are not installed: shims
for this process and its workers, each told in one log line. Those that change what a package does are asked
for by ``--compat``; stand-ins for packages that are not installed are not. It imports neither hosts nor
torch, to come before them.

PyMARL, PyMARL2, PyMARL3 and EPyMARL before 2.0.0 need it everywhere. No host's code is touched.
"""

from __future__ import annotations

import ast
import collections
import collections.abc
import functools
import logging
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import spawn
from pathlib import Path
from typing import Any, NamedTuple

from limask.compat.stand_ins import stand_in
from limask.compat.start import missing, start_of, statements_of

_log = logging.getLogger("limask.compat")

#: Sources of hosts for which the shims are applied in this process.
_applied: set[Path] = set()


class Shim(NamedTuple):
    """``name``; what it does; how it is applied (workers get that pickled); whether the host stops at its
    start without it, whatever the environment; and whether it changes what an installed package does."""

    name: str
    effect: str
    apply: Callable[[], None]
    is_needed: bool = True
    is_change: bool = True


def needed(source: Path) -> list[Shim]:
    """Shims without which the host in ``source``, a checkout's ``src``, does not start here."""
    return [shim for shim in _shims(source) if shim.is_needed]


def changes(source: Path) -> list[Shim]:
    """Those of ``needed`` that change what an installed package does: the user is to ask for them."""
    return [shim for shim in needed(source) if shim.is_change]


def missing_packages(source: Path) -> list[str]:
    """Packages without which the host in ``source`` stops at its start, and that are not installed."""
    return list(missing(source, start_of(source)))


def apply(source: Path, *, with_changes: bool = True) -> None:
    """Apply every shim that the host in ``source``, or one of its environments, needs; once in a process.

    Args:
        source: a checkout's ``src``.
        with_changes: also those that change what an installed package does.
    """
    source = source.resolve()
    if source in _applied:
        return
    shims = [shim for shim in _shims(source) if with_changes or not shim.is_change]
    for shim in shims:
        _log.warning("limask compat: %s: %s", shim.name, shim.effect)
    _bridge(source, [shim.apply for shim in shims])


def _bridge(source: Path, effects: list[Callable[[], None]]) -> None:
    """Apply shims here, and in every process that is started from here by ``multiprocessing``.

    One that is forked has them. Others unpickle what prepares them before they run anything of the host's,
    and that applies them. The block in ``main.py`` would not do: it is not there in ``limask run``, and a
    worker does not run it where ``main.py`` is imported by another program.
    """
    if source in _applied:
        return
    _applied.add(source)
    for effect in effects:
        effect()
    prepared = spawn.get_preparation_data

    def with_shims(name: str) -> dict[str, Any]:
        return {**prepared(name), f"limask compat: {source}": _Bridge(source, effects)}

    spawn.get_preparation_data = with_shims
    # Some Pythons have the fork server itself import the main program, before any worker is prepared.
    if "forkserver" in multiprocessing.get_all_start_methods():
        multiprocessing.set_forkserver_preload([])


class _Bridge:
    """Applies shims where it is unpickled."""

    def __init__(self, source: Path, effects: list[Callable[[], None]]) -> None:
        self.source, self.effects = source, effects

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Any, ...]]:
        return _bridge, (self.source, self.effects)


def _shims(source: Path) -> Iterator[Shim]:
    main = _text(source / "main.py")
    if re.search(r"yaml\.load\(\w+\)", main):
        yield Shim("yaml.load", "a Loader is chosen for calls that name none (yaml.SafeLoader)", _yaml_load)
    if _asks_for_mapping(main) and not hasattr(collections, "Mapping"):
        yield Shim("collections.Mapping", "points at collections.abc.Mapping again", _mapping)
    start = start_of(source)
    if lacking := missing(source, start):
        effect = "not installed, and stood in for: to use one is an error that names it"
        yield Shim(", ".join(lacking), effect, functools.partial(stand_in, lacking), is_change=False)
    if _protobuf_is_newer():
        effect = "reads StarCraft II's messages in Python (PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python)"
        is_needed = not start.packages.keys().isdisjoint(("smac", "pysc2", "s2clientprotocol"))
        yield Shim("protobuf", effect, _protobuf, is_needed)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


# -- the shims --------------------------------------------------------------------------------


def _yaml_load() -> None:
    import yaml

    load = yaml.load

    def with_default(stream: Any, Loader: Any = yaml.SafeLoader) -> Any:  # noqa: N803 - yaml's own name
        return load(stream, Loader)

    yaml.load = with_default


def _asks_for_mapping(main: str) -> bool:
    """Whether it takes ``Mapping`` from ``collections``, and has no other way where that fails."""
    ahead: list[ast.AST] = [*statements_of(main)]
    while ahead:
        node = ahead.pop()
        if isinstance(node, ast.ImportFrom) and node.module == "collections":
            if any(alias.name == "Mapping" for alias in node.names):
                return True
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "collections.Mapping":
            return True
        elif not isinstance(node, ast.Try):
            ahead += ast.iter_child_nodes(node)
    return False


def _mapping() -> None:
    collections.Mapping = collections.abc.Mapping  # type: ignore[attr-defined]


def _protobuf_is_newer() -> bool:
    """Whether s2clientprotocol is installed with a protobuf that refuses messages generated that long ago."""
    variable = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"
    try:
        version("s2clientprotocol")
        return int(version("protobuf").split(".")[0]) >= 4 and os.environ.get(variable) != "python"
    except PackageNotFoundError:
        return False


def _protobuf() -> None:
    os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"  # read when protobuf is first used
