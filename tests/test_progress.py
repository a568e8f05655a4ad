"""How far trainings are, and how they are ended."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from limask.errors import LimaskError
from limask.experiments.campaign.folder import Attempt
from limask.experiments.launch import jobs, progress
from limask.experiments.launch.jobs import Job
from limask.experiments.launch.progress import JobWatch, Progress, clock, percent, progress_of, told
from limask.experiments.storage.sacred_files import Curve, latest_run, read_curves

SLEEP = "import time; time.sleep(60)"


def test_a_child_that_will_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(jobs, "GRACE_SECONDS", 0.1)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True);" + SLEEP
    job = Job("deaf", [sys.executable, "-c", deaf], tmp_path / "log")

    def watch() -> None:
        if job.log.read_text():
            raise LimaskError("enough")

    with pytest.raises(LimaskError, match="enough"):
        jobs.run_jobs([job], 1, watch, lambda job: [])
    assert job.process is not None and job.process.returncode == -signal.SIGKILL


def test_sacred_files_absent_cut_off_and_whole(tmp_path: Path) -> None:
    assert latest_run(tmp_path) is None
    folder = tmp_path / "sacred" / "qmix" / "3m"
    for name in ("9", "10", "_sources"):
        (folder / name).mkdir(parents=True)
    run = latest_run(tmp_path)
    assert run == folder / "10"
    assert read_curves(run) == {}
    text = json.dumps({"a": {"steps": [1, 2], "values": [0.5, math.nan]}, "b": {"steps": [1], "values": []}})
    for broken in ("", text[:-5], "[]"):
        (run / "metrics.json").write_text(broken)
        assert read_curves(run) == {}
    (run / "metrics.json").write_text(text)
    curves = read_curves(run)
    assert curves["a"].steps == (1.0, 2.0)
    assert curves["a"].values[0] == 0.5 and math.isnan(curves["a"].values[1])
    assert curves["b"] == Curve()


def test_runs_that_pymarl_numbers_without_names(tmp_path: Path) -> None:
    for name in ("2", "10", "_sources", "3m"):
        (tmp_path / "sacred" / name).mkdir(parents=True)
    assert latest_run(tmp_path) == tmp_path / "sacred/10"


def test_progress_of_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    job = Job("qmix", [sys.executable, "-c", SLEEP], tmp_path / "log")
    watch = JobWatch(job, lambda: latest_run(tmp_path), t_max=1000)
    assert watch.look() == Progress("waiting")
    job.start()
    try:
        assert watch.look() == Progress("starting")
        metrics = tmp_path / "sacred" / "qmix" / "3m" / "1" / "metrics.json"
        metrics.parent.mkdir(parents=True)
        metrics.write_text(json.dumps({"return_mean": {"steps": [0, 200], "values": [0, 0]}}))
        assert watch.look() == Progress("training", 200)
        curves = {
            "return_mean": {"steps": [400], "values": [0]},
            "test_battle_won_mean": {"steps": [0], "values": [0.25]},
        }
        metrics.write_text(json.dumps(curves))
        now = 110.0
        # 200 steps in 10 seconds; 600 to go.
        assert watch.look() == Progress("training", 400, 20.0, 0.25, 30.0)
        metrics.write_text("")
        now = 115.0
        assert watch.look() == Progress("training", 400, 20.0, 0.25, 25.0)
        now = 141.0
        assert watch.look() == Progress("ending", 400, 20.0, 0.25)
    finally:
        assert job.process is not None
        job.process.kill()
        job.process.wait()
    job.seconds = 63.0
    assert watch.look() == Progress("took 1:03", 1000, None, 0.25)


def test_progress_of_a_training_that_somebody_else_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = Attempt(tmp_path)
    assert progress_of(attempt, 1000) == Progress("starting")
    metrics = tmp_path / "results/sacred/qmix/3m/1/metrics.json"
    metrics.parent.mkdir(parents=True)
    curves = {
        "return_mean": {"steps": [100, 400], "values": [0, 0]},
        "test_battle_won_mean": {"steps": [0], "values": [0.25]},
    }
    metrics.write_text(json.dumps(curves))
    assert progress_of(attempt, 1000) == Progress("training", 400, None, 0.25), "nobody knows since when"
    (tmp_path / "run.json").write_text('{"started": "2026-11-28T02:00:00+00:00"}')
    start = datetime(2026, 11, 28, 2, tzinfo=UTC).timestamp()
    os.utime(metrics, (start + 20, start + 20))
    # 400 steps in 20 seconds; 600 to go, 5 seconds of which have passed since.
    monkeypatch.setattr(progress.time, "time", lambda: start + 25)
    assert progress_of(attempt, 1000) == Progress("training", 400, 20.0, 0.25, 25.0)
    assert told(progress_of(attempt, 1000)) == "400 steps, 20/s, 25 % won, 0:25 left"
    monkeypatch.setattr(progress.time, "time", lambda: start + 60)
    assert progress_of(attempt, 1000) == Progress("ending", 400, 20.0, 0.25)


def test_texts() -> None:
    assert percent(0.806) == "81 %"
    assert [clock(seconds) for seconds in (0, 59.6, 125, 3723)] == ["0:00", "1:00", "2:05", "1:02:03"]
