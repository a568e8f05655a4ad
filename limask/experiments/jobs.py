"""Trainings as child processes: so many at a time, and none left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from limask.errors import LimaskError

#: Seconds between two looks at the children.
POLL_SECONDS = 1.0

#: Seconds that a child has between being asked to end and being killed.
GRACE_SECONDS = 5.0

_LAST_BYTES = 8192


@dataclass
class Job:
    """One command, in a process group of its own, with all its output in one file.

    ``seconds`` is the wall-clock time of a job that has ended.
    """

    name: str
    command: Sequence[str]
    log: Path
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
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # The networks are small, and several trainings share the cores.
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                # A terminal's Ctrl-C then reaches only us, and we can end the job with all it has started.
                start_new_session=True,
            )

    def check(self) -> None:
        """Look whether the job has ended.

        Raises:
            LimaskError: it has, with an exit status other than 0.
        """
        assert self.process is not None
        status = self.process.poll()
        if status is None:
            return
        self.seconds = time.monotonic() - self.started
        if status != 0:
            cause = f" ({signal.Signals(-status).name})" if -status in set(signal.Signals) else ""
            raise LimaskError(
                f"{self.name} failed with exit status {status}{cause}; "
                f"its output is in {self.log} and ends with: {last_line(self.log)}"
            )


def run_jobs(jobs: Sequence[Job], at_once: int, watch: Callable[[], None]) -> None:
    """Run all jobs, ``at_once`` at a time, in their order; end those still running if anything goes wrong.

    Args:
        jobs: not started yet.
        at_once: at least 1.
        watch: called after each look at the children, the last time when all have ended.

    Raises:
        LimaskError: a job failed.
        KeyboardInterrupt: Ctrl-C.
        SystemExit: another signal that ends programs (128 + its number).
    """
    waiting = list(jobs)
    with _signals_noted() as noted:
        try:
            while True:
                running = [job for job in jobs if job.is_running]
                for job in running:
                    job.check()
                n_free = at_once - sum(job.is_running for job in running)
                for job in waiting[:n_free]:
                    job.start()
                waiting = waiting[n_free:]
                watch()
                if noted:
                    raise KeyboardInterrupt if noted[0] == signal.SIGINT else SystemExit(128 + noted[0])
                if not any(job.is_running for job in jobs):
                    return
                time.sleep(POLL_SECONDS)
        finally:
            _end([job.process for job in jobs if job.process is not None])


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


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    # Only what is still running: the number of a process that was waited for may be another's by now.
    running = [process for process in processes if process.poll() is None]
    for process in running:
        os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def last_line(log: Path) -> str:
    """Last line of a log that is not blank."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LAST_BYTES))
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "(nothing)")
