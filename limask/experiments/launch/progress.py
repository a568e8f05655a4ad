"""How far trainings are: read from sacred's files, shown as plain lines."""

from __future__ import annotations

import datetime
import time
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from limask.errors import LimaskError
from limask.experiments.campaign.folder import Attempt
from limask.experiments.display import clock, percent
from limask.experiments.launch.jobs import AnyJob
from limask.experiments.storage.sacred_files import Curve, read_curves
from limask.files import read_json

#: Seconds between two plain lines of a training.
LINE_SECONDS = 30.0

# The speed is that of the last minute, for learning starts only when the first batch is full: sacred
# writes every 10 seconds.
_N_SIGHTINGS = 7


class Progress(NamedTuple):
    """Where a training stands; what is not known yet is None.

    ``steps`` are environment steps, ``speed`` is environment steps per second, ``win_rate`` that of the last
    test in [0, 1], ``seconds_left`` an estimate until the last step.
    """

    phase: str
    steps: int = 0
    speed: float | None = None
    win_rate: float | None = None
    seconds_left: float | None = None


class JobWatch:
    """Follows a training of ``t_max`` steps; ``find_run`` gives sacred's folder of it, None at first."""

    def __init__(self, job: AnyJob, find_run: Callable[[], Path | None], t_max: int) -> None:
        self.job = job
        self.t_max = t_max
        self._find_run = find_run
        self._sightings: deque[tuple[float, float]] = deque(maxlen=_N_SIGHTINGS)
        self._win_rate: float | None = None

    def look(self) -> Progress:
        """Read what is there now."""
        if not self.job.is_started:
            return Progress("waiting")
        self._read()
        if not self.job.is_running:
            return Progress(f"took {clock(self.job.seconds)}", self.t_max, None, self._win_rate)
        if not self._sightings:
            return Progress("starting")
        (time_0, steps_0), (time_1, steps_1) = self._sightings[0], self._sightings[-1]
        if time_1 == time_0:
            return Progress("training", int(steps_1), None, self._win_rate, None)
        speed = (steps_1 - steps_0) / (time_1 - time_0)
        left = (self.t_max - steps_1) / speed - (time.monotonic() - time_1)
        # After the last step the host waits for its threads and draws its own plots.
        if left <= 0:
            return Progress("ending", int(steps_1), speed, self._win_rate)
        return Progress("training", int(steps_1), speed, self._win_rate, left)

    def _read(self) -> None:
        training, tests = _curves(self._find_run())
        if tests.values:
            self._win_rate = tests.values[-1]
        if training.steps and (not self._sightings or training.steps[-1] > self._sightings[-1][1]):
            self._sightings.append((time.monotonic(), training.steps[-1]))


def _curves(run: Path | None) -> tuple[Curve, Curve]:
    """Training's returns, and the tests' win rates."""
    curves = read_curves(run) if run else {}
    return curves.get("return_mean", Curve()), curves.get("test_battle_won_mean", Curve())


def progress_of(attempt: Attempt, t_max: int) -> Progress:
    """Where a training of ``t_max`` steps stands that somebody else follows; its speed is that since its
    start."""
    run = attempt.sacred_run()
    training, tests = _curves(run)
    win_rate = tests.values[-1] if tests.values else None
    if run is None or not training.steps:
        return Progress("starting", win_rate=win_rate)
    steps, start = training.steps[-1], _started(attempt)
    try:
        written = (run / "metrics.json").stat().st_mtime
    except OSError:  # it is being replaced
        written = time.time()
    if start is None or steps <= 0 or written <= start:
        return Progress("training", int(steps), None, win_rate)
    speed = steps / (written - start)
    left = (t_max - steps) / speed - (time.time() - written)
    if left <= 0:
        return Progress("ending", int(steps), speed, win_rate)
    return Progress("training", int(steps), speed, win_rate, left)


def _started(attempt: Attempt) -> float | None:
    """When, in seconds since 1970; None where that is not known."""
    try:
        return datetime.datetime.fromisoformat(read_json(attempt.folder / "run.json")["started"]).timestamp()
    except (LimaskError, OSError, KeyError, TypeError, ValueError):
        return None


def told(now: Progress) -> str:
    """``now`` in words; what is not known is left out."""
    texts = (
        f"{now.steps:,} steps",
        "" if now.speed is None else f"{now.speed:,.0f}/s",
        "" if now.win_rate is None else f"{percent(now.win_rate)} won",
        f"{clock(now.seconds_left)} left" if now.seconds_left else now.phase,
    )
    return ", ".join(filter(None, texts))


class Lines:
    """One line per job when its phase changes, and every ``LINE_SECONDS`` while it trains.

    ``watches`` may change between two calls of ``show``.
    """

    def __init__(self, watches: Collection[JobWatch]) -> None:
        self._watches = watches
        self._said: dict[JobWatch, tuple[str, float]] = {}

    def show(self) -> None:
        """Look at all jobs and print what is due."""
        for watch in self._watches:
            now, (phase, at) = watch.look(), self._said.get(watch, ("waiting", 0.0))
            is_due = now.phase == "training" and time.monotonic() - at >= LINE_SECONDS
            if now.phase != phase or is_due:
                self._said[watch] = (now.phase, time.monotonic())
                print(f"{watch.job.name}: {told(now)}", flush=True)
