"""``limask demo`` with child commands that write sacred's files without training."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from limask import resources
from limask.errors import LimaskError
from limask.experiments import demo as demo_module
from limask.experiments import jobs, progress
from limask.experiments.demo import ARMS, demo, training_command
from limask.experiments.jobs import Job
from limask.experiments.progress import ArmWatch, Progress, clock, percent
from limask.experiments.sacred_files import Curve, latest_run, read_curves

# Writes a run that wins from its fourth test on, but for qmix_fc, which wins half of its battles at most.
CHILD = """
import json, os, sys
arm, results = sys.argv[1:3]
run = os.path.join(results, "sacred", arm, "3m", "1")
os.makedirs(run)
steps = [0, 100, 200, 300, 400, 500]
won = [0.0, 0.0, 0.0, 0.5, 0.5, 0.5] if arm == "qmix_fc" else [0.0, 0.0, 0.0, 1.0, 1.0, 0.75]
metrics = {
    "return_mean": {"steps": steps, "values": [1.0] * 6},
    "test_battle_won_mean": {"steps": steps, "values": won},
    "test_return_mean": {"steps": steps[:-1], "values": [20 * w for w in won[:-1]]},
}
json.dump(metrics, open(os.path.join(run, "metrics.json"), "w"))
print("threads", os.environ["OMP_NUM_THREADS"], flush=True)
"""

SLEEP = "import time; time.sleep(60)"
FAIL = "import sys; print('at first'); print('ValueError: no good', flush=True); print(); sys.exit(3)"


@pytest.fixture(autouse=True)
def without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look every 20 ms, and do without the packages that only trainings need."""
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.02)
    for package in ("jaxmarl", "pymarlzooplus"):
        monkeypatch.delitem(demo_module.PACKAGES, package)


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set the Python code of each arm's child; ``CHILD`` where none is given."""

    def use(**codes: str) -> None:
        def command(arm: str, results: Path, options: Mapping[str, object]) -> list[str]:
            return [sys.executable, "-c", codes.get(arm, CHILD), arm, str(results)]

        monkeypatch.setattr(demo_module, "training_command", command)

    return use


def run_demo(output: Path, *, t_max: int = 500, n_jobs: int = 3) -> None:
    demo(output, t_max=t_max, seed=7, jobs=n_jobs)


def test_table_csv_and_picture(
    children: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    children()
    output = tmp_path / "new" / "demo"
    run_demo(output)

    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines() if line.split()[:1] and line.split()[0] in ARMS]
    assert "SMAX 3m, seed 7" in out
    # Averages of three from 100 on: 1/6, 1/3, 1/2 for qmix_fc; 1/3, 2/3, 11/12 for the others.
    assert lines[0][:-1] == ["qmix_fc", "300", "not", "within", "500", "50", "%"]
    assert lines[1][:-1] == ["qmix_entity", "200", "300", "92", "%"]
    assert lines[2][:-1] == ["qmix_lim", "200", "300", "92", "%"]
    assert str(output / "curves.png") in out and str(output / "curves.csv") in out

    with (output / "curves.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 3 * 6
    expected = {
        "arm": "qmix_lim",
        "seed": "7",
        "map": "3m",
        "steps": "400",
        "win_rate": "1.0",
        "return": "20.0",
    }
    assert table[-2] == expected
    assert table[-1]["win_rate"] == "0.75" and table[-1]["return"] == ""

    picture = (output / "curves.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert [int.from_bytes(picture[i : i + 4], "big") for i in (16, 20)] == [800, 500]
    assert (output / "qmix_lim.log").read_text() == "threads 1\n"
    assert not list(output.glob(".*"))


def test_failed_child_ends_the_others(
    children: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Job] = []
    start = Job.start
    monkeypatch.setattr(Job, "start", lambda job: (start(job), started.append(job))[0])
    children(qmix_lim=SLEEP, qmix_entity=FAIL, qmix_fc=SLEEP)
    with pytest.raises(LimaskError) as caught:
        run_demo(tmp_path, n_jobs=2)
    assert str(caught.value) == (
        f"qmix_entity failed with exit status 3; its output is in {tmp_path / 'qmix_entity.log'} "
        "and ends with: ValueError: no good"
    )
    assert [job.name for job in started] == ["qmix_lim", "qmix_entity"]
    assert started[0].process is not None and started[0].process.returncode == -signal.SIGTERM
    assert not list(tmp_path.glob("curves.*"))


def test_killed_and_silent_children_are_named(children: Callable[..., None], tmp_path: Path) -> None:
    children(qmix_fc="import os; os.kill(os.getpid(), 9)")
    with pytest.raises(LimaskError, match=r"status -9 \(SIGKILL\).*ends with: \(nothing\)"):
        run_demo(tmp_path / "killed", n_jobs=1)
    children(qmix_entity="")
    with pytest.raises(LimaskError, match="qmix_entity ended without a test"):
        run_demo(tmp_path / "silent")


def test_a_child_that_will_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "GRACE_SECONDS", 0.1)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True);" + SLEEP
    job = Job("deaf", [sys.executable, "-c", deaf], tmp_path / "log")

    def watch() -> None:
        if job.log.read_text():
            raise LimaskError("enough")

    with pytest.raises(LimaskError, match="enough"):
        jobs.run_jobs([job], 1, watch)
    assert job.process is not None and job.process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_the_children_and_only_them(number: signal.Signals, status: int, tmp_path: Path) -> None:
    # The demo as a process of its own; each child leaves its number behind and sleeps.
    child = f"import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); {SLEEP}"
    script = f"""
import signal, subprocess, sys
from limask import cli
from limask.experiments import demo, jobs
signal.signal(signal.SIGINT, signal.default_int_handler)
jobs.POLL_SECONDS = 0.02
demo.PACKAGES.clear()
demo.training_command = lambda arm, results, options: [
    sys.executable, "-c", {child!r}, {str(tmp_path)!r} + "/" + arm
]
bystander = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
try:
    status = cli.main(["demo", "--output", {str(tmp_path / "demo")!r}, "--jobs", "2"])
except SystemExit as end:
    status = end.code
sys.exit(status if bystander.poll() is None else 1)
"""
    process = subprocess.Popen([sys.executable, "-c", script])
    pids = [int(wait_for(tmp_path / arm)) for arm in ("qmix_lim", "qmix_entity")]
    process.send_signal(number)
    assert process.wait(30) == status
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def wait_for(path: Path) -> str:
    """Text of a file that is about to be written."""
    deadline = time.monotonic() + 30
    while not (path.is_file() and path.read_text()):
        assert time.monotonic() < deadline, path
        time.sleep(0.02)
    return path.read_text()


def test_nothing_starts_where_something_is_in_the_way(
    children: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children(qmix_fc=FAIL)
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(LimaskError, match="--output=.* is there already: choose another .* or delete it"):
        run_demo(tmp_path)
    with pytest.raises(LimaskError, match="is there already"):
        run_demo(tmp_path / "kept")
    with pytest.raises(LimaskError, match="Not a directory"):
        run_demo(tmp_path / "kept" / "below")
    with pytest.raises(LimaskError, match="--t-max=0"):
        run_demo(tmp_path / "new", t_max=0)
    with pytest.raises(LimaskError, match="--jobs=0"):
        run_demo(tmp_path / "new", n_jobs=0)
    monkeypatch.setitem(demo_module.PACKAGES, "no_such_package", "`pip install 'limask[demo]'`")
    with pytest.raises(LimaskError, match=r"needs no_such_package.*limask\[demo\]"):
        run_demo(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_command_names_configs_that_exist() -> None:
    command = training_command("qmix_lim", Path("out"), {"t_max": 5})
    line = "-m limask run --host pymarlzooplus --results out --config=qmix_lim --env-config=smax with t_max=5"
    assert command == [sys.executable, *line.split()]
    for config in [*(f"algs/{arm}" for arm in ARMS), "envs/smax"]:
        assert (resources.config_dir() / f"{config}.yaml").is_file()


def test_sacred_files_absent_cut_off_and_whole(tmp_path: Path) -> None:
    assert latest_run(tmp_path, "qmix", "3m") is None
    folder = tmp_path / "sacred" / "qmix" / "3m"
    for name in ("9", "10", "_sources"):
        (folder / name).mkdir(parents=True)
    run = latest_run(tmp_path, "qmix", "3m")
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


def test_progress_of_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    job = Job("qmix", [sys.executable, "-c", SLEEP], tmp_path / "log")
    watch = ArmWatch(job, tmp_path, "3m", t_max=1000)
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


def test_terminal_shows_a_row_per_arm(tmp_path: Path) -> None:
    import io

    from rich.console import Console

    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, force_interactive=True, width=80)
    watches = [ArmWatch(Job(arm, [], tmp_path / "log"), tmp_path, "3m", 1000) for arm in ARMS]
    with progress.shown(watches, console) as show:
        show()
    for arm in ARMS:
        assert arm in screen.getvalue()
    assert screen.getvalue().count("waiting") >= 3


def test_texts() -> None:
    assert percent(0.806) == "81 %"
    assert [clock(seconds) for seconds in (0, 59.6, 125, 3723)] == ["0:00", "1:00", "2:05", "1:02:03"]
