"""A campaign's folder: the only record of what has been run.

::

    campaign.json                          the campaign; another one does not get in
    lock                                   held while somebody starts and follows the runs
    runs/<arm>/<map>/seed_<n>/attempt_<k>/
        lock                               held by the run while it lives
        run.json                           command, options, versions, machine
        output.log                         what the run printed
        results/                           what the host wrote
        DONE, FAILED or INTERRUPTED        how the attempt ended
    slurm/                                 jobs submitted to SLURM, see ``launch_slurm``
    curves.csv, runs.csv                   see ``collect``
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from limask.config.nested import flat
from limask.errors import LimaskError
from limask.experiments.campaign.plan import Campaign, Run
from limask.experiments.storage.locks import is_locked, lock, locked
from limask.experiments.storage.sacred_files import latest_run
from limask.files import read_json, write_json
from limask.protocols import State
from limask.resumable import forget, states

#: Seconds that the runs of a campaign that was killed have to end with it.
LOCK_SECONDS = 3.0

_CAMPAIGN, _LOCK = "campaign.json", "lock"
_DONE, _FAILED, _INTERRUPTED = "DONE", "FAILED", "INTERRUPTED"
#: Result → name of the marker.
_MARKERS = {
    "finished": _DONE,
    "diverged": _DONE,
    "untrained": _DONE,
    "failed": _FAILED,
    "interrupted": _INTERRUPTED,
}


class Outcome(NamedTuple):
    """How an attempt ended: ``reason`` says why it is not ``finished``, ``seconds`` are wall-clock time, with
    that of the attempts that it went on with."""

    result: Literal["finished", "diverged", "untrained", "failed", "interrupted"]
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

    @property
    def is_alive(self) -> bool:
        """Whether its command runs, as far as this machine can tell."""
        return is_locked(self.folder / _LOCK)

    def create(self, record: State) -> int:
        """Make the folder and write ``run.json``; returns a file descriptor that holds the attempt's lock.

        Raises:
            FileExistsError: somebody else has made the folder, and the attempt is theirs.
            LimaskError: somebody has given the attempt up in this very moment.
        """
        self.folder.mkdir(parents=True)
        descriptor = lock(self.folder / _LOCK)
        try:
            if self.is_settled:
                raise LimaskError(f"{self.folder}: the campaign has been started again elsewhere")
            write_json(self.folder / "run.json", record)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def settle(self, outcome: Outcome) -> None:
        """Mark how it ended, for good. With a result, nothing is kept any more of what earlier ones left to
        go on from."""
        write_json(self.folder / _MARKERS[outcome.result], outcome._asdict())
        if self.is_done:
            for folder in self.folder.parent.glob("attempt_*"):
                forget(Attempt(folder).results)

    def outcome(self) -> Outcome:
        """How it ended, where it has ended.

        Raises:
            LimaskError: the marker is damaged.
        """
        marker = self.folder / (_DONE if self.is_done else _FAILED)
        try:
            return _outcome(read_json(marker), marker)
        except LimaskError as error:
            raise LimaskError(f"{error}; delete {self.folder} to have that run made again") from error


def _outcome(block: State, marker: Path) -> Outcome:
    """What a marker says.

    Raises:
        LimaskError: it is none of ours.
    """
    result, seconds, reason = (block.get(name) for name in Outcome._fields)
    is_time = isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 <= seconds < math.inf
    is_ours = _MARKERS.get(result) == marker.name if isinstance(result, str) else False
    if not (is_ours and is_time and isinstance(reason, str) and block.keys() == set(Outcome._fields)):
        raise LimaskError(f"{marker} is damaged (expected the result, seconds and reason of an attempt)")
    return Outcome(**block)


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


def is_campaign(folder: Path) -> bool:
    """Whether a campaign has been run in this folder."""
    return (folder / _CAMPAIGN).is_file()


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
        if not is_campaign(root):
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
            # Neither changes a result, and more attempts give a run that failed another chance.
            if key not in ("max_attempts", "sinks") and here.get(key) != there.get(key):
                raise LimaskError(
                    f"{self.root} holds another campaign: {key} is {there.get(key, 'not set')} there and "
                    f"{here.get(key, 'not set')} in this one; choose another folder with --output"
                )

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Take the folder for this campaign, and hold its lock.

        Raises:
            LimaskError: another campaign is running there, or see ``check``.
        """
        self.check()
        self.root.mkdir(parents=True, exist_ok=True)
        with locked(self.root / _LOCK, LOCK_SECONDS, self._is_taken):
            self.check()
            write_json(self.root / _CAMPAIGN, self.campaign.to_block())
            yield

    def settle_left(self, but: Collection[Attempt] = ()) -> None:
        """Mark what a campaign that was killed has left unfinished as interrupted, except for ``but``.

        Raises:
            LimaskError: one of its runs is still alive.
        """
        for state in self.states(is_running=True):
            if state.state == "running" and state.attempt is not None and state.attempt not in but:
                # With the attempt's lock: what is starting right now sees that it has been given up.
                with locked(state.attempt.folder / _LOCK, LOCK_SECONDS, self._is_taken):
                    state.attempt.settle(Outcome("interrupted", 0.0))

    @property
    def _is_taken(self) -> str:
        return f"a campaign is running in {self.root}: wait for it, or choose another folder with --output"

    def is_running(self) -> bool:
        """Whether somebody starts and follows the campaign's runs."""
        return is_locked(self.root / _LOCK)

    def attempts(self, run: Run) -> tuple[Attempt, ...]:
        """All attempts at ``run``, the last one last."""
        folders = self._folder(run).glob("attempt_*")
        return tuple(Attempt(folder) for folder in sorted(folders, key=_number))

    def next_attempt(self, run: Run) -> Attempt:
        """An attempt whose folder does not exist yet."""
        attempts = self.attempts(run)
        number = 1 + (_number(attempts[-1].folder) if attempts else 0)
        return Attempt(self._folder(run) / f"attempt_{number}")

    def cut_off(self, run: Run) -> Attempt | None:
        """The attempt at ``run`` with which the next one is to go on, None where it is to begin anew: also
        after one that has failed without getting any further."""
        for attempt in reversed(self.attempts(run)):
            if states(attempt.results):
                return attempt
            if attempt.has_failed:
                return None
        return None

    def _folder(self, run: Run) -> Path:
        return self.root / "runs" / run.id

    def states(self, *, is_running: bool) -> list[RunState]:
        """Where every run stands, given whether somebody follows the runs.

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
        is_alive = not attempts[-1].is_settled and (is_running or attempts[-1].is_alive)
        return RunState(run, "running" if is_alive else "waiting", attempts, attempts[-1])


def _number(folder: Path) -> int:
    number = folder.name.removeprefix("attempt_")
    return int(number) if number.isdecimal() else 0
