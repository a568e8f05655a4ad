"""``limask run``: a host's own main with limask registered in memory; nothing of the host is edited."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sacred.observers

from limask import compat, resources
from limask.config import LimConfig
from limask.errors import DIVERGED_FILE, DIVERGED_STATUS, DivergedError, LimaskError
from limask.hosts import Host, PymarlzooplusHost, host_of, import_maskers
from limask.hosts.sinks import REGISTRY as SINKS
from limask.hosts.sinks import Sink, attach, mirror_in_metrics
from limask.install import recognised
from limask.install.families import PYMARLZOOPLUS, pymarlzooplus_folder


def run_host(
    host: str,
    arguments: list[str],
    results: Path,
    sinks: Sequence[str] = (),
    *,
    with_compat: bool = False,
) -> None:
    """Run the main of ``host`` with ``arguments``, as its own command line would.

    Args:
        host: ``pymarlzooplus``, or the path of a checkout.
        arguments: ``--config=…``, ``--env-config=…`` and sacred's ``with …``; a config of limask's needs
            no file in the host.
        results: folder for everything the run writes.
        sinks: names of ``limask.hosts.sinks`` that take what the host logs as well.
        with_compat: whether an old host gets what it needs to start here (``limask.compat``).

    Raises:
        LimaskError: no such host or option, or a host that does not start here as it is; nothing has been
            run.
        SystemExit: the host ended with a status of its own; ``DIVERGED_STATUS`` where training diverged.
    """
    results = results.resolve()
    _check_option_names(arguments)
    if host == PYMARLZOOPLUS:
        folder = pymarlzooplus_folder("--host=pymarlzooplus")
        arguments = _resolve_configs(arguments, folder / "config")
        _redirect_results(results)
        with _divergence_told(results):
            _run_pymarlzooplus(arguments, _opened(sinks, results))
    else:
        source = _source_folder(Path(host))
        arguments = _resolve_configs(arguments, source / "config")
        _make_compatible(source, with_compat)
        _redirect_results(results)
        overridden = _with_override(arguments, f"local_results_path={results}")
        with _divergence_told(results):
            _run_checkout(source, overridden, _opened(sinks, results))


@contextmanager
def _divergence_told(results: Path) -> Iterator[None]:
    """End with a status of its own, and write down why: sacred ends with status 1 whatever was raised."""
    try:
        yield
    except (SystemExit, DivergedError) as end:
        cause: BaseException | None = end
        while cause is not None and not isinstance(cause, DivergedError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        (results / DIVERGED_FILE).write_text(f"{cause}\n", encoding="utf-8")
        raise SystemExit(DIVERGED_STATUS) from end


def _opened(sinks: Sequence[str], results: Path) -> list[Sink]:
    return [SINKS[name](results) for name in dict.fromkeys(sinks)]


def _make_compatible(source: Path, with_compat: bool) -> None:
    if with_compat:
        compat.apply(source)
    elif lacking := compat.needed(source):
        names = ", ".join(shim.name for shim in lacking)
        raise LimaskError(
            f"--host={source.parent}: it was written for older packages and does not start here ({names}); "
            "add --compat, as in `limask run --compat --host …`: that bridges these, for this run alone"
        )


def _run_pymarlzooplus(arguments: list[str], sinks: list[Sink]) -> None:
    _enter(PymarlzooplusHost(), sinks)
    from pymarlzooplus.main import pymarlzooplus

    pymarlzooplus(["pymarlzooplus/main.py", *arguments])


def _run_checkout(source: Path, arguments: list[str], sinks: list[Sink]) -> None:
    sys.path.insert(0, str(source))
    _enter(host_of(source.parent), sinks)
    import_maskers(source.parent)
    main = str(source / "main.py")
    sys.argv = [main, *arguments]
    runpy.run_path(main, run_name="__main__")


def _enter(host: Host, sinks: list[Sink]) -> None:
    host.register()
    if not host.has_metrics:
        mirror_in_metrics(host.logger())
    if sinks:
        attach(host.logger(), sinks)


def _source_folder(checkout: Path) -> Path:
    try:
        return recognised(checkout) / "src"
    except LimaskError as error:
        raise LimaskError(f"--host: expected pymarlzooplus or a checkout; {error}") from error


def _resolve_configs(arguments: list[str], config_root: Path) -> list[str]:
    """Give the full path of each config that limask has and the host has not."""
    resolved = []
    for argument in arguments:
        name, _, value = argument.partition("=")
        folder = {"--config": "algs", "--env-config": "envs"}.get(name)
        if folder and value and not os.path.isabs(value):
            ours = resources.config_dir() / folder / f"{value}.yaml"
            if not (config_root / folder / f"{value}.yaml").is_file():
                if not ours.is_file():
                    known = sorted(
                        {p.stem for d in (ours.parent, config_root / folder) for p in d.glob("*.yaml")}
                    )
                    raise LimaskError(f"{argument}: no such config (known: {', '.join(known)})")
                argument = f"{name}={ours.with_suffix('')}"
        resolved.append(argument)
    for name in ("--config", "--env-config"):
        if not any(argument.startswith(f"{name}=") for argument in arguments):
            raise LimaskError(
                f"{name}=… is missing, as in "
                "`limask run --host pymarlzooplus --config=qmix_lim --env-config=smax`"
            )
    return resolved


def _check_option_names(arguments: list[str]) -> None:
    """Refuse misspelt and old names of limask's options: sacred would not say what they are called."""
    for argument in arguments:
        name, is_set, _ = argument.partition("=")
        if is_set and name.startswith("lim."):
            LimConfig.check_name(name.removeprefix("lim."))


def _with_override(arguments: list[str], override: str) -> list[str]:
    return [*arguments, override] if "with" in arguments else [*arguments, "with", override]


def _redirect_results(results: Path) -> None:
    """Hosts choose a folder named ``results`` beside their own code: put ours in its place."""
    observers: Any = sacred.observers
    original = observers.FileStorageObserver

    class RedirectedObserver(original):  # type: ignore[misc, valid-type]
        def __init__(self, basedir: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
            super().__init__(results / _below_results(Path(basedir), results), *args, **kwargs)

    observers.FileStorageObserver = RedirectedObserver


def _below_results(folder: Path, results: Path) -> Path:
    """What follows ``results``, or else the last folder of that name, in a host's ``folder``."""
    if folder.is_relative_to(results):
        return folder.relative_to(results)
    parts = folder.parts
    return Path(*(parts[len(parts) - parts[::-1].index("results") :] if "results" in parts else parts[-1:]))
