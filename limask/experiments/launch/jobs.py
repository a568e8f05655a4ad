"""Trainings, as child processes or elsewhere: so many at a time, and none left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from limask.experiments.launch import tether

#: Seconds between two looks at the children.
POLL_SECONDS = 1.0

#: Seconds that a child has between being asked to end and being killed: for a run, to keep its state.
GRACE_SECONDS = 20.0

_LAST_BYTES = 8192


class AnyJob(Protocol):
    """What ``run_jobs`` runs, here or elsewhere.

    ``seconds`` is the wall-clock time of a job that has ended, and ``is_running`` stands as of the last look.
    """

    @property
    def name(self) -> str: ...
    @property
    def is_started(self) -> bool: ...
    @property
    def is_running(self) -> bool: ...
    @property
    def seconds(self) -> float: ...

    def start(self) -> None:
        """Start it, or have it started as soon as there is room."""

    def has_ended(self) -> bool:
        """Look whether it has ended."""

    def failure(self) -> str | None:
        """How a job that has ended failed; None where it did not."""

    def ask_to_end(self) -> None:
        """Ask a job that has not ended to do so."""

    def end(self, seconds: float) -> None:
        """End it if it is still there in ``seconds``."""


@dataclass
class Job:
    """One command, in a process group of its own, with all its output in one file.

    ``inherited`` are file descriptors that stay open in the command. ``seconds`` is the wall-clock time of a
    job that has ended.
    """

    name: str
    command: Sequence[str]
    log: Path
    inherited: Sequence[int] = ()
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    seconds: float = 0.0

    @property
    def is_started(self) -> bool:
        """Whether the job was ever started."""
        return self.process is not None

    @property
    def is_running(self) -> bool:
        """Whether the job was started and had not ended at the last look."""
        return self.process is not None and self.process.returncode is None

    def start(self) -> None:
        """Start the command."""
        self.started = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                # Isolated, for a light interpreter that imports nothing of ours.
                [sys.executable, "-IS", tether.__file__, *self.command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                # The networks are small, and several trainings share the cores.
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                # A terminal's Ctrl-C then reaches only us, and we can end the job with all it has started.
                start_new_session=True,
                pass_fds=self.inherited,
            )

    def has_ended(self) -> bool:
        """Look whether the job has ended; what it has left running is ended then."""
        assert self.process is not None
        if self.process.poll() is None:
            return False
        self.seconds = time.monotonic() - self.started
        _untie(self.process)
        return True

    def ask_to_end(self) -> None:
        """Ask the command and all it has started to end."""
        # Only what is still running: the number of a process that was waited for may be another's by now.
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)

    def end(self, seconds: float) -> None:
        """Kill the command if it is still there in ``seconds``, and whatever it has left running."""
        if self.process is None:
            return
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        _untie(self.process)

    @property
    def status(self) -> int:
        """Exit status of a job that has ended; the negative number of the signal that killed it."""
        assert self.process is not None and self.process.returncode is not None
        return self.process.returncode

    def failure(self) -> str | None:
        """How a job that has ended failed, as ``exit status -9 (SIGKILL)``; None where it did not."""
        status = self.status
        if status == 0:
            return None
        return f"exit status {status}" + (
            f" ({signal.Signals(-status).name})" if -status in set(signal.Signals) else ""
        )


def run_jobs(
    jobs: Sequence[AnyJob],
    at_once: int,
    watch: Callable[[], None],
    ended: Callable[[Any], Sequence[AnyJob]],
) -> None:
    """Run all jobs, ``at_once`` at a time, in their order; end those still running if anything goes wrong.

    Args:
        jobs: not started yet.
        at_once: at least 1.
        watch: called after each look at the children, the last time when all have ended.
        ended: called with each job that has ended by itself; returns jobs to run after those that wait.

    Raises:
        Exception: what ``watch`` and ``ended`` raise.
        KeyboardInterrupt: Ctrl-C.
        SystemExit: another signal that ends programs (128 + its number).
    """
    waiting = deque(jobs)
    running: list[AnyJob] = []
    with _signals_noted() as noted:
        try:
            while True:
                over = [job for job in running if job.has_ended()]
                for job in over:
                    running.remove(job)
                    # Whoever is ending us may have ended the job as well: its failure says nothing then.
                    if not noted or job.failure() is None:
                        waiting.extend(ended(job))
                if noted:
                    raise KeyboardInterrupt if noted[0] == signal.SIGINT else SystemExit(128 + noted[0])
                while waiting and len(running) < at_once:
                    running.append(waiting.popleft())
                    running[-1].start()
                watch()
                if not running:
                    return
                time.sleep(POLL_SECONDS)
        finally:
            _end(running)


@contextmanager
def _signals_noted() -> Iterator[list[int]]:
    """Note the signals that end programs instead of obeying at once: an exception in the middle of starting
    or ending a child could leave it behind. Signals that are being ignored (nohup) stay ignored."""
    noted: list[int] = []
    previous: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _end(jobs: Sequence[AnyJob]) -> None:
    for job in jobs:
        job.ask_to_end()
    deadline = time.monotonic() + GRACE_SECONDS
    for job in jobs:
        job.end(max(0.0, deadline - time.monotonic()))


def _untie(process: subprocess.Popen[bytes]) -> None:
    """Let the guard of an ended process end what is left of its group, itself included."""
    assert process.stdin is not None
    process.stdin.close()


def last_line(log: Path) -> str:
    """Last line of a log that is not blank."""
    lines = last_text(log).split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "(nothing)")


def last_text(log: Path) -> str:
    """The end of a log, a few thousand characters."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LAST_BYTES))
        return file.read().decode(errors="replace")
