"""Stand-ins for packages that a host imports when it starts, and that are not installed."""

from __future__ import annotations

import builtins
import copyreg
import functools
import inspect
import operator
import sys
from abc import ABCMeta
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from limask.compat.start import Statement
from limask.errors import LimaskError


def stand_in(missing: Mapping[str, set[Statement]]) -> None:
    """From now on these statements, each of which would stop the host's start, get modules that are empty but
    for classes of whatever names are asked for.

    They alone: what a host or a library tries, and can do without, stays missing to it. That is why these
    modules are not in ``sys.modules``, and why the built-in import is wrapped: no other hook knows who asks.

    Args:
        missing: names of packages, and where each is imported.
    """
    original = builtins.__import__

    def import_(
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        try:
            return original(name, globals, locals, fromlist or (), level)
        except ModuleNotFoundError as error:
            package = name.split(".")[0]
            asks = sys._getframe(1)
            at = (Path(asks.f_code.co_filename).resolve(), asks.f_lineno)
            if level or error.name != package or at not in missing.get(package, ()):
                raise
        return _module(name if fromlist else package)

    builtins.__import__ = import_


class _StandIn(ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        # Hosts look for environments in the package's folder: here is none.
        self.__path__ = [f"<stand-in for {name}>"]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(_error(f"{self.__name__}.{name}", self.__name__))
        value = _missing(name, self.__name__)
        setattr(self, name, value)
        return value


_module = functools.cache(_StandIn)


class _Missing(ABCMeta):
    """A class of a package that is not installed: it has every attribute, can be derived from, not used.

    ABCMeta, so that a class may be derived from it and from an abstract one.
    """

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        origin = _origin(cls)
        value = _missing(f"{origin.__qualname__}.{name}", origin.__module__)
        setattr(origin, name, value)
        return value

    def __bool__(cls) -> bool:
        return True


def _missing(name: str, module: str) -> _Missing:
    return _Missing(name, (), {"__module__": module, "is_stand_in": True})


def _reduced(cls: type) -> str | tuple[Any, ...]:
    """How a class is pickled: a stand-in to be found where imports find it, the host's own by its name."""
    return (_found, (cls.__module__, cls.__qualname__)) if "is_stand_in" in vars(cls) else cls.__qualname__


def _found(module: str, name: str) -> Any:
    return operator.attrgetter(name)(_module(module))


copyreg.pickle(_Missing, _reduced)


def _origin(cls: type) -> type:
    """The stand-in that a class is derived from, or is."""
    return next(base for base in cls.__mro__ if "is_stand_in" in vars(base))


def _error(what: str, module: str) -> str:
    package = module.split(".")[0]
    return f"{what} was used, and the package {package} is not installed: install it, or do without it"


def _refuse(cls: type, *args: Any) -> Any:
    origin = _origin(cls)
    raise LimaskError(_error(f"{origin.__module__}.{origin.__qualname__}", origin.__module__))


def _use(cls: type, *args: Any, **kwargs: Any) -> Any:
    return _origin(cls) if _is_start(sys._getframe(1)) else _refuse(cls)


def _is_start(frame: FrameType | None) -> bool:
    """Whether code at the left margin or of a class runs: decorators and constants, not an environment."""
    while frame is not None and frame.f_code.co_name in _COMPREHENSIONS:
        frame = frame.f_back
    return frame is not None and not frame.f_code.co_flags & inspect.CO_OPTIMIZED


_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")

for _name in "call getitem setitem delitem add radd sub rsub mul rmul truediv rtruediv neg".split():
    setattr(_Missing, f"__{_name}__", _use)
_Missing.register = _use  # type: ignore[method-assign]  # an environment's: ABCMeta has another
for _name in "iter len contains int float index lt le gt ge enter exit".split():
    setattr(_Missing, f"__{_name}__", _refuse)
