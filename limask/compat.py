"""Lets hosts written for older packages start on current ones: shims for this process alone, asked for by
``--compat``, each told in one log line. It imports neither hosts nor torch, to come before them.

The hosts concerned are PyMARL, PyMARL2, PyMARL3 and EPyMARL before 2.0.0. Their code is not touched.
"""

from __future__ import annotations

import ast
import collections
import collections.abc
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from limask.errors import LimaskError

_log = logging.getLogger("limask.compat")

#: Imported by hosts at start, whichever environment is played.
_GAMES = ("smac", "pysc2", "s2clientprotocol", "pygame", "gym", "smaclite", "pettingzoo")


class Shim(NamedTuple):
    """``name``; what it does; how it is applied; and whether the host stops at its start without it, whatever
    the environment."""

    name: str
    effect: str
    apply: Callable[[], None]
    is_needed: bool = True


def needed(source: Path) -> list[Shim]:
    """Shims without which the host in ``source``, a checkout's ``src``, does not start here."""
    return [shim for shim in _shims(source) if shim.is_needed]


def apply(source: Path) -> None:
    """Apply every shim that the host in ``source``, or one of its environments, needs."""
    for shim in _shims(source):
        shim.apply()
        _log.warning("limask compat: %s: %s", shim.name, shim.effect)


def _shims(source: Path) -> Iterator[Shim]:
    main = _text(source / "main.py")
    if re.search(r"yaml\.load\(\w+\)", main):
        yield Shim("yaml.load", "a Loader is chosen for calls that name none (yaml.SafeLoader)", _yaml_load)
    if re.search(r"collections\.Mapping\b", main) and not hasattr(collections, "Mapping"):
        yield Shim("collections.Mapping", "points at collections.abc.Mapping again", _mapping)
    imported = _imports(source)
    for name in _GAMES:
        if name in imported and importlib.util.find_spec(name) is None:
            effect = (
                f"stands in for the package {name}, which is not installed: its environments cannot be played"
            )
            yield Shim(name, effect, _StandIns(name).install)
    if _protobuf_is_newer():
        effect = "reads StarCraft II's messages in Python (PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python)"
        is_needed = bool(imported & {"smac", "pysc2", "s2clientprotocol"})
        yield Shim("protobuf", effect, _protobuf, is_needed)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _imports(source: Path) -> set[str]:
    """Packages that are imported, without a ``try`` around it, when ``main.py`` starts."""
    found: set[str] = set()
    seen: set[Path] = set()
    ahead = [source / "main.py"]
    while ahead:
        path = ahead.pop()
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        for folder, names in _imported_by(path, source):
            own = [file for name in names for file in _files_of(folder / Path(*name.split(".")))]
            ahead += own
            found |= {name.split(".")[0] for name in names if folder == source and not own}
    return found


def _imported_by(path: Path, source: Path) -> Iterator[tuple[Path, list[str]]]:
    """Of each import at the left margin: the folder that it starts from, and the modules it may mean."""
    try:
        statements = ast.parse(path.read_bytes()).body
    except SyntaxError:
        return
    for node in statements:
        if isinstance(node, ast.Import):
            yield source, [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            folder = path.parents[node.level - 1] if node.level else source
            module = node.module or ""
            names = [f"{module}.{alias.name}".lstrip(".") for alias in node.names]
            yield folder, [*([module] if module else []), *names]


def _files_of(module: Path) -> list[Path]:
    """What is executed when a module of the host's is imported: packages around it too."""
    candidates = (
        module.with_name(f"{module.name}.py"),
        module / "__init__.py",
        module.parent / "__init__.py",
    )
    is_own = any(path.is_file() for path in candidates[:2])
    return [path for path in candidates if path.is_file()] if is_own else []


# -- the shims --------------------------------------------------------------------------------


def _yaml_load() -> None:
    import yaml

    load = yaml.load

    def with_default(stream: Any, Loader: Any = yaml.SafeLoader) -> Any:  # noqa: N803 - yaml's own name
        return load(stream, Loader)

    yaml.load = with_default


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


class _Missing(type):
    """A class of a package that is not installed: it has every attribute, can be derived from, not used."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _missing(f"{cls.__qualname__}.{name}", cls.__module__)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if sys._getframe(1).f_code.co_name == "<module>":  # while the host is imported, nothing is played
            return _missing(f"{cls.__qualname__}()", cls.__module__)
        missing = next(base for base in cls.__mro__ if "is_stand_in" in vars(base))  # cls may derive from it
        raise LimaskError(
            f"{missing.__module__}.{missing.__qualname__} was used, and the package "
            f"{missing.__module__.split('.')[0]} is not installed: install it, or choose another environment"
        )


def _missing(name: str, module: str) -> type:
    return _Missing(name, (), {"__module__": module, "is_stand_in": True})


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds ``package`` and all modules in it, empty but for classes of whatever names are asked for."""

    def __init__(self, package: str) -> None:
        self.package = package

    def install(self) -> None:
        """Ask this finder after all others."""
        sys.meta_path.append(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """See ``MetaPathFinder``."""
        if name.split(".")[0] != self.package:
            return None
        spec = importlib.machinery.ModuleSpec(name, self, is_package=True)
        # Hosts look for environments in the package's folder: here is none.
        spec.submodule_search_locations = [f"<stand-in for {name}>"]
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """See ``Loader``."""
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """See ``Loader``."""


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = _missing(name, self.__name__)
        setattr(self, name, value)
        return value
