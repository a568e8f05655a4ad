"""A campaign's folder: the only record of what has been run.

::

    campaign.json                          the campaign; another one does not get in
    lock                                   held by the campaign and all its runs while they live
    runs/<arm>/<map>/seed_<n>/attempt_<k>/
        run.json                           command, options, versions, machine
        output.log                         what the run printed
        results/                           what the host wrote
        DONE, FAILED or INTERRUPTED        how the attempt ended
    curves.csv, runs.csv                   see ``collect``
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from limask.errors import LimaskError
from limask.experiments.campaign import Campaign, Run, flat
from limask.experiments.files import read_json, write_json
from limask.experiments.sacred_files import latest_run

#: Seconds that the runs of a campaign that was killed have to end with it.
LOCK_SECONDS = 3.0

_CAMPAIGN, _LOCK = "campaign.json", "lock"
_DONE, _FAILED, _INTERRUPTED = "DONE", "FAILED", "INTERRUPTED"
#: Result → name of the marker.
_MARKERS = {"finished": _DONE, "diverged": _DONE, "failed": _FAILED, "interrupted": _INTERRUPTED}


class Outcome(NamedTuple):
    """How an attempt ended: ``reason`` says why it is not ``finished``, ``seconds`` are wall-clock time."""

    result: Literal["finished", "diverged", "failed", "interrupted"]
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class Attempt:
    """One try at a run, in a folder of its own."""

    folder: Path

    @property
    def log(self) -> Path:
        """What the run prints."""
        return self.folder / "output.log"

    @property
    def results(self) -> Path:
        """What the host writes."""
        return self.folder / "results"

    @property
    def is_done(self) -> bool:
        """Whether it has a result."""
        return (self.folder / _DONE).exists()

    @property
    def has_failed(self) -> bool:
        """Whether it crashed."""
        return (self.folder / _FAILED).exists()

    @property
    def is_settled(self) -> bool:
        """Whether it has ended and is marked as such."""
        return any((self.folder / name).exists() for name in _MARKERS.values())

    def sacred_run(self) -> Path | None:
        """Sacred's folder of the run, None while there is none."""
        return latest_run(self.results)

    def create(self, record: dict[str, Any]) -> None:
        """Make the folder, which does not exist yet, and write ``run.json``."""
        self.folder.mkdir(parents=True)
        write_json(self.folder / "run.json", record)

    def settle(self, outcome: Outcome) -> None:
        """Mark how it ended, for good."""
        write_json(self.folder / _MARKERS[outcome.result], outcome._asdict())

    def outcome(self) -> Outcome:
        """How it ended, where it has ended.

        Raises:
            LimaskError: the marker is damaged.
        """
        marker = self.folder / (_DONE if self.is_done else _FAILED)
        try:
            return Outcome(**read_json(marker))
        except (LimaskError, TypeError) as error:
            raise LimaskError(f"{error}; delete {self.folder} to have that run made again") from error


class RunState(NamedTuple):
    """Where a run stands.

    ``state`` is ``waiting`` also where an attempt was cut short. ``attempt`` is the one that counts: the one
    with the result, or else the last; ``outcome`` is how it ended, None where the run is neither done nor
    failed.
    """

    run: Run
    state: Literal["waiting", "running", "done", "failed"]
    attempts: tuple[Attempt, ...]
    attempt: Attempt | None = None
    outcome: Outcome | None = None

    @property
    def is_retried(self) -> bool:
        """Whether another attempt followed one that crashed."""
        return any(attempt.has_failed for attempt in self.attempts[:-1])


class CampaignFolder:
    """The runs of ``campaign`` in the folder ``root``, which need not exist yet."""

    def __init__(self, root: Path, campaign: Campaign) -> None:
        self.root, self.campaign = root, campaign

    @classmethod
    def existing(cls, root: Path) -> CampaignFolder:
        """Open a folder by what it holds.

        Raises:
            LimaskError: it holds no campaign, or ``campaign.json`` is damaged.
        """
        if not (root / _CAMPAIGN).is_file():
            raise LimaskError(f"{root} is no campaign's folder: expected {_CAMPAIGN} in it")
        block = read_json(root / _CAMPAIGN)
        try:
            return cls(root, Campaign.from_block(block))
        except LimaskError as error:
            raise LimaskError(f"{root / _CAMPAIGN} is damaged ({error})") from error

    def check(self) -> None:
        """See that the folder is free, or this campaign's; changes nothing.

        Raises:
            LimaskError: it is neither.
        """
        if self.root.exists() and not self.root.is_dir():
            raise LimaskError(f"{self.root} is a file: choose another folder with --output")
        if not (self.root / _CAMPAIGN).exists():
            strangers = [path for path in self.root.glob("[!.]*") if path.name != _LOCK]
            if strangers:
                raise LimaskError(
                    f"{self.root} holds something else ({strangers[0].name}): choose another folder with "
                    "--output"
                )
            return
        here, there = (
            flat(self.campaign.to_block()),
            flat(CampaignFolder.existing(self.root).campaign.to_block()),
        )
        for key in sorted(here.keys() | there.keys()):
            # More attempts change no result: that is how a run that failed is given another chance.
            if key != "max_attempts" and here.get(key) != there.get(key):
                raise LimaskError(
                    f"{self.root} holds another campaign: {key} is {there.get(key, 'not set')} there and "
                    f"{here.get(key, 'not set')} in this one; choose another folder with --output"
                )

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Take the folder for this campaign; yields a file descriptor that holds the lock for whoever has it.

        Raises:
            LimaskError: another campaign is running there, or see ``check``.
        """
        self.check()
        self.root.mkdir(parents=True, exist_ok=True)
        with self._locked() as lock:
            self.check()
            write_json(self.root / _CAMPAIGN, self.campaign.to_block())
            for state in self.states(is_running=True):
                if state.state == "running" and state.attempt is not None:
                    # We hold the lock: whoever made this attempt is gone.
                    state.attempt.settle(Outcome("interrupted", 0.0))
            yield lock

    @contextmanager
    def _locked(self) -> Iterator[int]:
        lock = os.open(self.root / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            deadline = time.monotonic() + LOCK_SECONDS
            while not _takes(lock):
                if time.monotonic() > deadline:
                    raise LimaskError(
                        f"a campaign is running in {self.root}: wait for it, or choose another folder with "
                        "--output"
                    )
                time.sleep(0.05)
            yield lock
        finally:
            # Closed and not unlocked: a run that is still ending goes on holding the lock.
            os.close(lock)

    def is_running(self) -> bool:
        """Whether a campaign, or a run that it left behind, is alive."""
        with suppress(FileNotFoundError):
            lock = os.open(self.root / _LOCK, os.O_RDWR)
            try:
                return not _takes(lock)
            finally:
                os.close(lock)
        return False

    def attempts(self, run: Run) -> tuple[Attempt, ...]:
        """All attempts at ``run``, the last one last."""
        folders = self._folder(run).glob("attempt_*")
        return tuple(Attempt(folder) for folder in sorted(folders, key=_number))

    def next_attempt(self, run: Run) -> Attempt:
        """An attempt whose folder does not exist yet."""
        attempts = self.attempts(run)
        number = 1 + (_number(attempts[-1].folder) if attempts else 0)
        return Attempt(self._folder(run) / f"attempt_{number}")

    def _folder(self, run: Run) -> Path:
        return self.root / "runs" / run.id

    def states(self, *, is_running: bool) -> list[RunState]:
        """Where every run stands, given whether a campaign is alive.

        Raises:
            LimaskError: a marker is damaged.
        """
        return [self.state(run, is_running=is_running) for run in self.campaign.runs()]

    def state(self, run: Run, *, is_running: bool = False) -> RunState:
        """See ``states``."""
        attempts = self.attempts(run)
        failed = [attempt for attempt in attempts if attempt.has_failed]
        for attempt in attempts:
            if attempt.is_done:
                return RunState(run, "done", attempts, attempt, attempt.outcome())
        if len(failed) >= self.campaign.max_attempts:
            return RunState(run, "failed", attempts, failed[-1], failed[-1].outcome())
        if not attempts:
            return RunState(run, "waiting", attempts)
        is_alive = is_running and not attempts[-1].is_settled
        return RunState(run, "running" if is_alive else "waiting", attempts, attempts[-1])


def _takes(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _number(folder: Path) -> int:
    number = folder.name.removeprefix("attempt_")
    return int(number) if number.isdecimal() else 0
