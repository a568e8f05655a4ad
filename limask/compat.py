"""Lets hosts written for older packages start on current ones: shims for this process alone, asked for by
``--compat``, each told in one log line. It imports neither hosts nor torch, to come before them.

The hosts concerned are PyMARL, PyMARL2, PyMARL3 and EPyMARL before 2.0.0. Their code is not touched.
"""

from __future__ import annotations

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

#: Imported by old hosts at start, whichever environment is played.
_GAMES = ("smac", "pysc2", "s2clientprotocol", "gym")


class Shim(NamedTuple):
    """``name``; what the host would stop at, ``why``; and how it is put right, ``apply``."""

    name: str
    why: str
    apply: Callable[[], None]


def needed(source: Path) -> list[Shim]:
    """Shims without which the host in ``source``, a checkout's ``src``, does not start here."""
    return list(_shims(source))


def apply(source: Path) -> None:
    """Apply every shim that the host in ``source`` needs."""
    for shim in _shims(source):
        shim.apply()
        _log.warning("limask compat: %s: %s", shim.name, shim.why)


def _shims(source: Path) -> Iterator[Shim]:
    main = _text(source / "main.py")
    if re.search(r"yaml\.load\(\w+\)", main):
        yield Shim("yaml.load", "a Loader is chosen for calls that name none (yaml.SafeLoader)", _yaml_load)
    if re.search(r"collections\.Mapping\b", main) and not hasattr(collections, "Mapping"):
        yield Shim("collections.Mapping", "points at collections.abc.Mapping again", _mapping)
    imported = _imports(source)
    for name in _GAMES:
        if name in imported and importlib.util.find_spec(name) is None:
            why = (
                f"stands in for the package {name}, which is not installed: its environments cannot be played"
            )
            yield Shim(name, why, _StandIns(name).install)
    if "s2clientprotocol" in imported | _behind(imported) and _protobuf_is_newer():
        why = "reads StarCraft II's messages in Python (PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python)"
        yield Shim("protobuf", why, _protobuf)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _imports(source: Path) -> set[str]:
    """Packages of ``_GAMES`` that are imported at the left margin, somewhere below ``envs`` or in ``run``."""
    pattern = re.compile(rf"^(?:from|import) +({'|'.join(_GAMES)})\b", re.MULTILINE)
    files = [*(source / "envs").rglob("*.py"), *(source / "run").rglob("*.py"), source / "run.py"]
    return {name for path in files for name in pattern.findall(_text(path))}


def _behind(imported: set[str]) -> set[str]:
    """What the imported packages import themselves."""
    return {"s2clientprotocol"} if imported & {"smac", "pysc2"} else set()


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
        package = cls.__module__.split(".")[0]
        raise LimaskError(
            f"{cls.__module__}.{cls.__qualname__} was used, and the package {package} is not installed: "
            "install it, or choose another environment"
        )


def _missing(name: str, module: str) -> type:
    return _Missing(name, (), {"__module__": module})


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
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

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
