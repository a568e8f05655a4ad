"""A run that goes on where it was cut off: its whole state is kept every few minutes, and at SIGTERM.

All hosts train in one loop, whose every round begins with ``runner.run(test_mode=False)``: then nothing is
half done. What the loop knows beside its objects are a few local variables of its function, kept as well.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from limask.errors import LimaskError
from limask.files import replace, write_json
from limask.hosts.base import Host
from limask.hosts.snapshot import Snapshot, random_state, set_random_state
from limask.learning.replay import CompactReplay
from limask.protocols import State
from limask.resumable import FOLDER, RUN_FILE, forget, seconds, states
from limask.version import __version__

#: States kept: should the last be damaged, there is another.
KEPT = 2
#: Share of the time that may go into keeping states, at most.
SHARE = 0.02
#: Local variables of the hosts' loops that hold its state; what else they hold is objects, or of one round.
_COUNTERS = ("episode", "last_test_T", "last_log_T", "model_save_time")


class Resumption:
    """Keeps a run's state, and has a run begin with one.

    Args:
        host: where limask is registered.
        results: folder for everything the run writes.
        start: how it was started, for ``read_start``.
        every: seconds between two states; 0 = none is kept.
        resume: results of the run that this one goes on with, or None.
    """

    def __init__(self, host: Host, results: Path, start: State, every: float, resume: Path | None) -> None:
        self.host, self.results, self.every = host, results, every
        self.start = start
        self._begin_with = [] if resume is None else states(resume)
        self._saved, self._seconds = time.monotonic(), 0.0
        self._began = self._saved - (0.0 if resume is None else seconds(resume))
        # Not what the host's logger holds: some empty theirs as they print it.
        self._logged: list[tuple[int, str, float, bool]] = []
        self._signal: int | None = None
        self._is_training = False
        self._is_told = False
        self._pid = os.getpid()
        #: Whether the folder for states is this run's: several may write into one folder for results.
        self._is_own = resume is not None and resume.resolve() == results

    def install(self) -> None:
        """Have every runner of the host ask before it plays, its logger be listened to, and SIGTERM wait for
        the state to be kept."""
        registry = self.host.module("runners").REGISTRY
        for name, build in list(registry.items()):
            registry[name] = self._watched(build)
        logger: Any = self.host.logger()
        log_stat = logger.log_stat

        def log(told: Any, key: str, value: Any, t: int, *args: Any, **options: Any) -> None:
            self._logged.append(_logged(key, value, t))
            log_stat(told, key, value, t, *args, **options)

        logger.log_stat = log
        if self.every:
            signal.signal(signal.SIGTERM, self._note)

    def _watched(self, build: Any) -> Any:
        def built(*args: Any, **options: Any) -> Any:
            runner = build(*args, **options)
            play = runner.run

            def run(*args: Any, **options: Any) -> Any:
                frame = sys._getframe(1)
                is_test = options.get("test_mode", args[0] if args else False)
                if not is_test and "buffer" in frame.f_locals:
                    self._begin_round(frame)
                return play(*args, **options)

            runner.run = run
            return runner

        return built

    def _note(self, number: int, frame: FrameType | None) -> None:
        # A worker that was forked from here has this handler, and nothing to keep; a second signal is urgent.
        if os.getpid() != self._pid:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if self._signal is not None or not self._is_training:
            raise SystemExit(128 + number)
        self._signal = number

    def _begin_round(self, frame: FrameType) -> None:
        if self._begin_with:
            self._load(frame)
            self._saved = time.monotonic()
        self._is_training = True
        if self._signal is not None:
            self._save(frame)
            name = signal.Signals(self._signal).name
            how = f"; go on with `limask run --resume {self.results}`" if self._is_own else ""
            print(f"limask: stopped by {name}{how}", file=sys.stderr)
            raise SystemExit(128 + self._signal)
        if self.every and time.monotonic() - self._saved >= max(self.every, self._seconds / SHARE):
            self._save(frame)

    def _roots(self, frame: FrameType) -> tuple[Snapshot, dict[str, Any]]:
        """Who walks the objects of the loop, and these."""
        batch: type = self.host.module("components.episode_buffer").EpisodeBatch
        found = frame.f_locals
        logger = found["logger"]

        def is_ours(kind: type) -> bool:
            return not issubclass(kind, batch) and self.host.has(kind)

        names = [name for name, value in found.items() if value is not logger and is_ours(type(value))]
        return Snapshot(is_ours, [logger, self]), {name: found[name] for name in names}

    def _save(self, frame: FrameType) -> None:
        if not (self._is_own or self._takes_folder()):
            return
        began, found = time.monotonic(), frame.f_locals
        snapshot, roots = self._roots(frame)
        t_env = int(found["runner"].t_env)
        state = {
            "limask": __version__,
            "counters": {name: found[name] for name in _COUNTERS if name in found},
            "objects": {name: snapshot.capture(value) for name, value in roots.items()},
            "buffer": _episodes_of(found["buffer"]),
            "logged": self._logged,
            "random": random_state(),
        }
        try:
            folder = self.results / FOLDER
            start = _with_seed(self.start, found["args"].seed)
            write_json(folder / RUN_FILE, start | {"seconds": began - self._began})
            replace(folder / f"{t_env}.pt", lambda path: torch.save(state, path))
            for old in states(self.results)[KEPT:]:
                old.unlink()
        except (OSError, RuntimeError) as error:  # torch's writer has errors of its own for a full disk
            self._tell(f"the run's state could not be kept ({error}); training goes on without")
        self._saved = time.monotonic()
        self._seconds = self._saved - began

    def _takes_folder(self) -> bool:
        """Make the folder for states, which may be another run's: that one's are kept, and none of this."""
        try:
            (self.results / FOLDER).mkdir(parents=True)
            self._is_own = True
        except FileExistsError:
            self.every = 0
            self._tell(
                f"{self.results / FOLDER} is another run's, and this one keeps no state: choose another "
                "folder with --results, go on with that run, or delete what it has left"
            )
        except OSError as error:
            self._tell(f"the run's state could not be kept ({error}); training goes on without")
            self._saved = time.monotonic()
        return self._is_own

    def forget(self) -> None:
        """Delete the states: the run has come to its end."""
        if self._is_own:
            forget(self.results)

    def _tell(self, line: str) -> None:
        if not self._is_told:
            print(f"limask: {line}", file=sys.stderr)
        self._is_told = True

    def _load(self, frame: FrameType) -> None:
        files, self._begin_with = self._begin_with, []
        state = _read(files)
        snapshot, roots = self._roots(frame)
        for name, node in state["objects"].items():
            if name not in roots:
                raise LimaskError(f"{files[0].parent} is of a run with {name}, which this one lacks")
            snapshot.restore(roots[name], node)
        _put_episodes(frame.f_locals["buffer"], state["buffer"])
        logger = frame.f_locals["logger"]
        # Through the logger, and so into all files of this run.
        for t_env, key, value, is_numpys in state["logged"]:
            logger.log_stat(key, np.float64(value) if is_numpys else value, t_env)
        _set_locals(frame, state["counters"])
        set_random_state(state["random"])
        print(f"limask: goes on at {frame.f_locals['runner'].t_env} environment steps", file=sys.stderr)


def _read(files: Sequence[Path]) -> State:
    """The last state that is whole.

    Raises:
        LimaskError: none is, or it is another version's.
    """
    for file in files:
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises whatever its reader does on a damaged file
            print(f"limask: {file} is damaged ({error}): the one before it is taken", file=sys.stderr)
            continue
        if state.get("limask") != __version__:
            raise LimaskError(
                f"{file} was kept by limask {state.get('limask')}, and this is {__version__}: go on with that"
            )
        return dict(state)
    raise LimaskError(f"{files[0].parent}: no state in it is whole; start the run anew")


def _with_seed(start: State, seed: int) -> State:
    """How the run was started, with the seed that sacred has drawn where none was given."""
    arguments = start["arguments"]
    if any(argument.startswith("seed=") for argument in arguments):
        return start
    given = [] if "with" in arguments else ["with"]
    return start | {"arguments": [*arguments, *given, f"seed={seed}"]}


def _logged(key: str, value: Any, t_env: int) -> tuple[int, str, float, bool]:
    """What a host's logger has been told: environment steps, name, value, and whether that was a number of
    numpy's, which sacred writes in another form."""
    return int(t_env), key, getattr(value, "item", lambda: value)(), isinstance(value, np.generic)


def _episodes_of(buffer: Any) -> State:
    """The episodes of a replay buffer, without its padding, and where it stands."""
    n_episodes, tables = buffer.episodes_in_buffer, {}
    place = {"index": buffer.buffer_index, "n_episodes": n_episodes}
    constants = {key: values[:n_episodes].clone() for key, values in buffer.data.episode_data.items()}
    if isinstance(buffer, CompactReplay):
        return place | {"tables": buffer.kept(), "constants": constants}
    filled = buffer.data.transition_data["filled"][:n_episodes, :, 0] > 0
    for key, values in buffer.data.transition_data.items():
        tables[key] = values[:n_episodes][filled]
    return place | {"filled": filled, "tables": tables, "constants": constants}


def _put_episodes(buffer: Any, state: State) -> None:
    n_episodes, data = state["n_episodes"], buffer.data.transition_data
    is_compact = isinstance(buffer, CompactReplay)
    is_other = data.keys() != state["tables"].keys() or is_compact == ("filled" in state)
    if n_episodes > buffer.buffer_size or is_other:
        raise LimaskError("the replay buffer is of another build than the one kept: give the run its options")
    if is_compact:
        buffer.put_back(state["tables"])
    for key, values in () if is_compact else state["tables"].items():
        device = data[key].device
        data[key][:n_episodes][state["filled"].to(device)] = values.to(device)
    for key, values in state["constants"].items():
        buffer.data.episode_data[key][:n_episodes] = values
    buffer.buffer_index, buffer.episodes_in_buffer = state["index"], n_episodes


def _set_locals(frame: FrameType, values: State) -> None:
    """Give local variables of a running function these values, as debuggers do."""
    frame.f_locals.update(values)
    if sys.version_info < (3, 13):  # from then on ``f_locals`` writes through
        ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))
