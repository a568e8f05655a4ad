"""jax and jaxmarl's SMAX, imported without what only takes time, and compiled once for all processes."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from typing import Any, NamedTuple

from limask.cache import own_folder
from limask.errors import LimaskError

#: Bytes of compiled battles that are kept: those of one scenario take some 0.3 MB.
CACHE_SIZE = 256 * 2**20

#: The packages around SMAX.
_AROUND = ("jaxmarl", "jaxmarl.environments")


class Smax(NamedTuple):
    """``jax``, the package ``jaxmarl.environments.smax``, and its scenarios by name."""

    jax: Any
    package: Any
    scenarios: Mapping[str, Any]


@functools.cache
def import_smax() -> Smax:
    """Import what SMAX takes.

    Raises:
        LimaskError: jax or jaxmarl is missing, or cannot be imported.
    """
    # A battle is a few hundred small operations: on a GPU it is slower, and an accelerator's memory belongs
    # to the learner. A choice of the user's own stands.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    # Hosts put the root logger at DEBUG, and jax says there what it compiles, from its import on. A level
    # that somebody has chosen stands.
    if (log := logging.getLogger("jax")).level == logging.NOTSET:
        log.setLevel(logging.WARNING)
    try:
        import jax

        _keep_what_is_compiled(jax)
        with _silence(), _alone():
            package = importlib.import_module("jaxmarl.environments.smax")
            scenarios = importlib.import_module("jaxmarl.environments.smax.smax_env").MAP_NAME_TO_SCENARIO
    except ImportError as error:
        raise LimaskError(
            f"env=smax needs jax and jaxmarl, and importing them failed ({error}): "
            "install them with `pip install 'limask[smax]'`"
        ) from error
    # Each step's result is awaited at once: handing the step to another thread only delays it.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return Smax(jax, package, scenarios)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """For jaxmarl, which prints what optional parts it lacks, and undoes redirected streams on the way."""
    nowhere: Any = io.StringIO()
    streams = sys.stdout, sys.stderr, sys.__stdout__
    sys.stdout = sys.__stdout__ = nowhere  # type: ignore[misc]
    try:
        yield
    finally:
        sys.stdout, sys.stderr, sys.__stdout__ = streams  # type: ignore[misc]


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Import parts of jaxmarl without running the packages around them, which import every environment.

    Some of those compile for seconds while they are imported. Afterwards no module of jaxmarl is left in
    ``sys.modules``: whoever imports it gets all of it. What is there already is used.
    """
    if any(name in sys.modules for name in _AROUND):
        yield
        return
    before = set(sys.modules)
    try:
        path = None
        for name in _AROUND:
            spec = PathFinder.find_spec(name, path)
            if spec is None:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            sys.modules[name] = module_from_spec(spec)
            path = spec.submodule_search_locations
        yield
    finally:
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "jaxmarl":
                del sys.modules[name]


def _keep_what_is_compiled(jax: Any) -> None:
    """Compile a battle once, not in every process.

    Only in a folder that nobody else can write to, as jax runs what it finds there. Choices of the user's own
    (``JAX_COMPILATION_CACHE_DIR``, ``JAX_ENABLE_COMPILATION_CACHE``) stand.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return
    folder = own_folder("smax")
    if folder is None:
        return
    # With a bound jax locks the folder: processes side by side do not read what is half-written.
    jax.config.update("jax_compilation_cache_max_size", CACHE_SIZE)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_compilation_cache_dir", str(folder))
