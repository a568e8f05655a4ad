"""An attempt at a run, from its folder to its marker: the unit of work of every launcher."""

from __future__ import annotations

import datetime
import errno
import os
import platform
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from limask import resumable
from limask.errors import DIVERGED_FILE, DIVERGED_STATUS, UNTRAINED_FILE, LimaskError
from limask.experiments.campaign.collect import read_tests
from limask.experiments.campaign.folder import Attempt, CampaignFolder, Outcome
from limask.experiments.campaign.plan import Run
from limask.experiments.campaign.provenance import provenance
from limask.experiments.launch.jobs import Job, last_line, last_text, run_jobs
from limask.protocols import State


@dataclass
class AttemptJob(Job):
    """The command of an attempt, whose folder is made when it starts; ``record`` goes into ``run.json``, and
    ``seconds_before`` are those of the attempts that it goes on with.

    Until it is started it can be pickled, and started in another process or on another machine.
    """

    run: Run = field(kw_only=True)
    attempt: Attempt = field(kw_only=True)
    record: State = field(kw_only=True)
    seconds_before: float = field(default=0.0, kw_only=True)

    def start(self) -> None:
        """Make the attempt's folder and start the command.

        Raises:
            OSError: no room, or the folder is somebody else's.
        """
        made_with = provenance(self.record["host"]) | {
            "node": platform.node(),
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        lock = self.attempt.create(self.record | made_with)
        try:
            # The command holds the lock: nobody gives it up while it lives, whatever becomes of us.
            self.inherited = (lock,)
            super().start()
        finally:
            os.close(lock)

    def settle(self) -> Outcome:
        """Judge a command that has ended, and mark the attempt accordingly.

        Raises:
            OSError: the disk is full, which is no failure of this run alone.
        """
        outcome = self._outcome()
        self.attempt.settle(outcome)
        return outcome

    def _outcome(self) -> Outcome:
        failure, seconds = self.failure(), self.seconds_before + self.seconds
        if failure is None:
            try:
                read_tests(self.attempt)
            except LimaskError as error:
                return Outcome("failed", seconds, f"ended without a result: {error}")
            file = self.attempt.results / UNTRAINED_FILE
            if file.is_file():
                return Outcome("untrained", seconds, file.read_text(encoding="utf-8").strip())
            return Outcome("finished", seconds)
        if self.status == DIVERGED_STATUS:
            return Outcome("diverged", seconds, self._what_diverged())
        said = last_text(self.log)
        if os.strerror(errno.ENOSPC) in said:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.attempt.folder))
        return Outcome("failed", seconds, f"{failure}: {last_line(self.log)}")

    def _what_diverged(self) -> str:
        """Name and step of the loss that was not finite."""
        file = self.attempt.results / DIVERGED_FILE
        said = file.read_text(encoding="utf-8") if file.is_file() else last_line(self.log)
        return said.partition(":")[0].strip()


def attempt_job(folder: CampaignFolder, run: Run, attempt: Attempt | None = None) -> AttemptJob:
    """What it takes to make ``attempt`` at ``run``, the next one where none is given."""
    campaign = folder.campaign
    attempt = attempt or folder.next_attempt(run)
    before = folder.cut_off(run)
    command = campaign.command(run, attempt.results, None if before is None else before.results)
    record = {
        "run": run.id,
        "host": campaign.host,
        "config": run.arm.config,
        "env_config": run.environment.env_config,
        "options": campaign.options(run),
        "command": command,
    }
    spent = 0.0 if before is None else resumable.seconds(before.results)
    return AttemptJob(
        run.id, command, attempt.log, run=run, attempt=attempt, record=record, seconds_before=spent
    )


def run_attempt(job: AttemptJob) -> Outcome | LimaskError | OSError:
    """Make a whole attempt; called by a launcher's worker in its main thread.

    Returns:
        How it ended, or what is wrong beyond this one run: workers cannot raise what their driver catches.

    Raises:
        KeyboardInterrupt, SystemExit: a signal; the command has been ended and the attempt has no marker.
    """
    if not job.attempt.folder.parent.is_dir():
        return LimaskError(
            f"{job.attempt.folder.parent} is not there on {platform.node()}: expected the campaign's folder "
            "on a file system that all nodes share; choose another one with --output"
        )
    outcomes: list[Outcome] = []

    def ended(job: AttemptJob) -> list[AttemptJob]:
        outcomes.append(job.settle())
        return []

    try:
        run_jobs([job], 1, lambda: None, ended)
    except (LimaskError, OSError) as error:
        return error
    return outcomes[0]


class RemoteJob(ABC):
    """``run_attempt(unit)`` somewhere else; known here by the attempt's files and by what it returns."""

    def __init__(self, unit: AttemptJob) -> None:
        self.unit, self.run, self.attempt = unit, unit.run, unit.attempt
        # The worker does not make it, and so notices where it does not see the campaign's folder.
        self.attempt.folder.parent.mkdir(parents=True, exist_ok=True)
        self._first_seen: float | None = None
        self._is_over = False
        self.seconds = 0.0

    @property
    def name(self) -> str:
        """The run's id."""
        return self.unit.name

    @property
    def is_started(self) -> bool:
        """Whether a worker has begun with it."""
        if self._first_seen is None and self.attempt.folder.exists():
            self._first_seen = time.monotonic()
        return self._first_seen is not None

    @property
    def is_running(self) -> bool:
        """Whether a worker is at it."""
        return self.is_started and not self._is_over

    def has_ended(self) -> bool:
        """Look whether the worker has returned or is gone."""
        self._is_over = self.is_over()
        if self._is_over and self.is_started and self._first_seen is not None:
            self.seconds = time.monotonic() - self._first_seen
        return self._is_over

    def failure(self) -> str | None:
        """Why the attempt has not come to its end; None where it has."""
        result = self.result()
        return None if isinstance(result, Outcome) else str(result)

    def settle(self) -> Outcome:
        """How the attempt ended; where its worker is gone, it is marked as failed.

        Raises:
            LimaskError, OSError: what is wrong beyond this run.
        """
        result = self.result()
        if isinstance(result, Exception):
            raise result
        _look_anew(self.attempt.folder)
        if isinstance(result, Outcome):
            return result
        if self.attempt.is_settled:
            return self.attempt.outcome()
        if not self.attempt.folder.exists():
            os.close(self.attempt.create(self.unit.record))
        outcome = Outcome("failed", self.seconds, result)
        self.attempt.settle(outcome)
        return outcome

    @abstractmethod
    def start(self) -> None:
        """Have a worker do it."""

    @abstractmethod
    def is_over(self) -> bool:
        """Whether the worker has returned or is gone."""

    @abstractmethod
    def result(self) -> Outcome | Exception | str:
        """What the worker has returned, or why it is gone."""

    @abstractmethod
    def ask_to_end(self) -> None:
        """Ask the worker to end its run."""

    @abstractmethod
    def end(self, seconds: float) -> None:
        """End the worker if it is still there in ``seconds``."""


def _look_anew(folder: Path) -> None:
    """Opening a folder makes a network file system ask its server what is in it by now."""
    for path in (folder.parent, folder):
        with suppress(FileNotFoundError):
            os.listdir(path)
