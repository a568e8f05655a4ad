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

from limask import compat
from limask.config.nested import merged
from limask.errors import DIVERGED_FILE, DIVERGED_STATUS, UNTRAINED_FILE, DivergedError, LimaskError
from limask.hosts.base import Host
from limask.hosts.options import checked_arguments, configs_of, find_config, read_config
from limask.hosts.pymarlzooplus import PymarlzooplusHost, begin_at_once, end_at_once
from limask.hosts.registry import host_of, import_maskers
from limask.hosts.resume import Resumption
from limask.hosts.sinks import REGISTRY as SINKS
from limask.hosts.sinks import Sink, attach, mirror_in_metrics
from limask.install.families import PYMARLZOOPLUS
from limask.protocols import State
from limask.requirements import EXTRAS, require_host


def run_host(
    host: str,
    arguments: list[str],
    results: Path,
    sinks: Sequence[str | Sink] = (),
    *,
    with_compat: bool = False,
    save_state: float = 300.0,
    resume: Path | None = None,
) -> None:
    """Run the main of ``host`` with ``arguments``, as its own command line would.

    Args:
        host: ``pymarlzooplus``, or the path of a checkout.
        arguments: ``--config=…``, ``--env-config=…`` and sacred's ``with …``; a config of limask's needs
            no file in the host.
        results: folder for everything the run writes.
        sinks: what takes what the host logs as well, or names of ``limask.hosts.sinks``.
        with_compat: whether packages may be changed for the host to start here (``limask.compat``).
        save_state: seconds between two times at which all that the run needs to go on is kept; 0 = never.
        resume: results of the run, started alike, that this one goes on with; None = it begins anew.

    Raises:
        LimaskError: no such host or option, or a host that does not start here as it is; nothing has been
            run.
        SystemExit: the host ended with a status of its own; ``DIVERGED_STATUS`` where training diverged.
    """
    extras = ["smax"] if "--env-config=smax" in arguments else []
    names = [sink for sink in sinks if isinstance(sink, str)]
    require_host(host, *extras, *(name for name in names if name in EXTRAS))
    results = results.resolve()
    start: State = {
        "host": host, "arguments": arguments, "sinks": names, "compat": with_compat,
    }  # fmt: skip
    if results.exists() and not results.is_dir():
        raise LimaskError(f"--results={results} is a file: expected a folder, or none yet")
    if host == PYMARLZOOPLUS:
        configs = configs_of(host, "--host=pymarlzooplus")
        adapter: Host = PymarlzooplusHost()
        arguments = _checked(arguments, adapter, configs)
        _redirect_results(results)
        resumption = Resumption(adapter, results, start, save_state, resume)
        with _end_told(resumption):
            _run_pymarlzooplus(resumption, arguments, _opened(sinks, results))
    else:
        configs = configs_of(host, "--host")
        source = configs.parent
        _make_compatible(source, with_compat)
        import_maskers(source.parent)
        adapter = host_of(source.parent)
        arguments = _checked(arguments, adapter, configs)
        _redirect_results(results)
        overridden = _with_override(arguments, f"local_results_path={results}")
        resumption = Resumption(adapter, results, start, save_state, resume)
        with _end_told(resumption):
            _run_checkout(source, resumption, overridden, _opened(sinks, results))


@contextmanager
def _end_told(run: Resumption) -> Iterator[None]:
    """Where training diverged, end with a status of its own, and write down why: sacred ends with status 1
    whatever was raised. Where nothing was learned, say so. What has come to its end keeps no state."""
    results, host = run.results, run.host
    try:
        yield
        _tell_if_untrained(results, host)
    except (SystemExit, DivergedError) as end:
        if isinstance(end, SystemExit) and not end.code:
            _tell_if_untrained(results, host)
            run.forget()
            raise
        cause: BaseException | None = end
        while cause is not None and not isinstance(cause, DivergedError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        (results / DIVERGED_FILE).write_text(f"{cause}\n", encoding="utf-8")
        run.forget()
        raise SystemExit(DIVERGED_STATUS) from end
    run.forget()


def _tell_if_untrained(results: Path, host: Host) -> None:
    learner = host.learner
    if learner is None or learner.n_updates or getattr(learner.args, "evaluate", False):
        return
    args = learner.args
    said = (
        f"made no SGD step: it ended (t_max={args.t_max}) before batch_size={args.batch_size} episodes were "
        "played; raise t_max or lower batch_size"
    )
    (results / UNTRAINED_FILE).write_text(f"{said}\n", encoding="utf-8")
    print(f"limask: this run {said}", file=sys.stderr)


def _opened(sinks: Sequence[str | Sink], results: Path) -> list[Sink]:
    return [sink if isinstance(sink, Sink) else SINKS[sink](results) for sink in dict.fromkeys(sinks)]


def _make_compatible(source: Path, with_compat: bool) -> None:
    if not with_compat and (lacking := compat.changes(source)):
        names = ", ".join(shim.name for shim in lacking)
        raise LimaskError(
            f"--host={source.parent}: it does not start with the packages installed here ({names}); "
            "add --compat, as in `limask run --compat --host …`: that bridges these, for this run alone"
        )
    compat.apply(source, with_changes=with_compat)


def _run_pymarlzooplus(run: Resumption, arguments: list[str], sinks: list[Sink]) -> None:
    _enter(run, sinks)
    begin_at_once()
    end_at_once()
    from pymarlzooplus.main import pymarlzooplus

    pymarlzooplus(["pymarlzooplus/main.py", *arguments])


def _run_checkout(source: Path, run: Resumption, arguments: list[str], sinks: list[Sink]) -> None:
    sys.path.insert(0, str(source))
    _enter(run, sinks)
    import_maskers(source.parent)
    main = str(source / "main.py")
    sys.argv = [main, *arguments]
    runpy.run_path(main, run_name="__main__")


def _enter(run: Resumption, sinks: list[Sink]) -> None:
    host = run.host
    host.register()
    run.install()
    if not host.has_metrics:
        mirror_in_metrics(host.logger())
    if sinks:
        attach(host.logger(), sinks)


def _checked(arguments: list[str], host: Host, configs: Path) -> list[str]:
    """The arguments, checked, with the full path of each config that limask has and the host has not."""
    options, resolved = read_config(configs / "default.yaml"), list(arguments)
    for flag, kind in (("--env-config", "envs"), ("--config", "algs")):
        at = [i for i, argument in enumerate(arguments) if argument.startswith(f"{flag}=")]
        if not at:
            raise LimaskError(
                f"{flag}=… is missing, as in "
                "`limask run --host pymarlzooplus --config=qmix_lim --env-config=smax`"
            )
        for i in at:
            name = arguments[i].partition("=")[2]
            file = (
                Path(f"{name}.yaml")
                if os.path.isabs(name)
                else find_config(configs, kind, name, arguments[i])
            )
            if not file.is_relative_to(configs):
                resolved[i] = f"{flag}={file.with_suffix('')}"
            options = merged(options, read_config(file))
    return checked_arguments(resolved, options, host, configs)


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
