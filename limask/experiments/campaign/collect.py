"""What the runs of a campaign have learned, as two CSV files.

``curves.csv`` has one row per test, as the host logged it; what the host did not log is left blank.
``runs.csv`` has one row per planned run: how it ended, when it was started and at which commit of limask, and
why it has no curve where it has none.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from limask.errors import LimaskError
from limask.experiments.campaign.folder import Attempt, CampaignFolder, RunState
from limask.experiments.storage.sacred_files import Curve, read_curves
from limask.files import json_of, write_text

CURVES, RUNS = "curves.csv", "runs.csv"

_CURVES_HEADER = ("arm", "map", "seed", "steps", "win_rate", "return")
_RUNS_HEADER = (
    "arm", "map", "seed", "state", "result", "attempts", "seconds", "folder", "started", "commit", "left_out",
)  # fmt: skip


class Test(NamedTuple):
    """A test at ``steps`` environment steps: win rate in [0, 1] and mean return, None where not logged."""

    steps: float
    win_rate: float | None
    mean_return: float | None


def read_tests(attempt: Attempt) -> list[Test]:
    """Tests of one attempt, in order.

    Raises:
        LimaskError: there are none to be read; the message says why.
    """
    run = attempt.sacred_run()
    if run is None:
        raise LimaskError("the host wrote no results")
    return tests_of(run)


def tests_of(run: Path) -> list[Test]:
    """Tests of the run in sacred's folder ``run``, in order.

    Raises:
        LimaskError: there are none to be read; the message says why.
    """
    try:
        curves = read_curves(run)
    except (TypeError, ValueError) as error:
        raise LimaskError("metrics.json is damaged") from error
    if not curves:
        raise LimaskError("metrics.json is absent, cut off or empty")
    won, returned = (
        dict(zip(*curves.get(name, Curve()), strict=True))
        for name in ("test_battle_won_mean", "test_return_mean")
    )
    if not won and not returned:
        raise LimaskError("no test was logged")
    for name, curve, high in (("win rate", won, 1.0), ("return", returned, math.inf)):
        for steps, value in curve.items():
            is_share = high == math.inf or 0 <= value <= high
            if not (math.isfinite(steps) and math.isfinite(value) and is_share):
                raise LimaskError(f"metrics.json is damaged: a {name} of {value} at step {steps}")
    return [
        Test(steps, won.get(steps), returned.get(steps)) for steps in sorted(won.keys() | returned.keys())
    ]


def collect(folder: CampaignFolder, states: list[RunState]) -> None:
    """Write both files anew.

    Raises:
        OSError: no room; the files are as they were.
    """
    curves: list[tuple[object, ...]] = []
    runs: list[tuple[object, ...]] = []
    for state in states:
        key = (state.run.arm.id, state.run.environment.id, state.run.seed)
        tests, left_out = tests_that_count(state)
        curves += ((*key, *_texts(test)) for test in tests)
        runs.append((*key, *_summary(folder.root, state), left_out))
    write_text(folder.root / CURVES, _csv(_CURVES_HEADER, curves))
    write_text(folder.root / RUNS, _csv(_RUNS_HEADER, runs))


def tests_that_count(state: RunState) -> tuple[list[Test], str]:
    """Tests of a run that has a result, or none and why they are left out."""
    if state.attempt is None or state.state == "waiting":
        return [], "not finished yet"
    if state.state != "done" or (state.outcome and state.outcome.result == "untrained"):
        return [], state.outcome.reason if state.outcome else "still running"
    try:
        return read_tests(state.attempt), ""
    except LimaskError as error:
        return [], str(error)


def _summary(root: Path, state: RunState) -> tuple[object, ...]:
    result, seconds = (state.outcome.result, f"{state.outcome.seconds:.0f}") if state.outcome else ("", "")
    if state.attempt is None:
        return state.state, result, len(state.attempts), seconds, "", "", ""
    folder, made = state.attempt.folder, json_of(state.attempt.folder / "run.json")
    where, n_attempts = folder.relative_to(root).as_posix(), len(state.attempts)
    started, commit = (made.get(name) or "" for name in ("started", "limask_commit"))
    return state.state, result, n_attempts, seconds, where, started, commit


def _texts(test: Test) -> tuple[str, ...]:
    values = (test.win_rate, test.mean_return)
    return f"{test.steps:.0f}", *("" if value is None else f"{value:.6g}" for value in values)


def _csv(header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
