"""Campaigns on a real Ray of two workers, and through submitit on a SLURM of a few lines."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import launch_parts
import pytest
import test_campaign as parts
from launch_parts import Campaigns, parent, pids, wait_until
from test_campaign import Given, counts, is_alive, rows

from limask import cli, requirements
from limask.errors import LimaskError
from limask.experiments.campaign import folder as campaign_folder
from limask.experiments.campaign.folder import CampaignFolder, Outcome
from limask.experiments.launch.attempts import attempt_job, run_attempt
from limask.experiments.launch.choose import chosen_launcher
from limask.experiments.launch.ray_launcher import RayLauncher
from limask.experiments.launch.run import run_campaign
from limask.experiments.launch.slurm_launcher import SlurmLauncher

host, block, commands, campaign = parts.host, parts.block, parts.children, launch_parts.campaign

needs_proc = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")


# -- Ray ------------------------------------------------------------------------------------------------


def address_of_ray(driver: int) -> str:
    """Where the Ray that a driver has started can be reached."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        found = re.search(rb"raylet.*--gcs-address=([\d.]+:\d+)", path.read_bytes(), re.DOTALL)
        if found and parent(int(path.parent.name)) == driver:
            return found[1].decode()
    raise AssertionError("no Ray")


def ctrl_c_on_a_cluster(campaign: Campaigns, block: Callable[..., Given], folder: Path, address: str) -> None:
    """A campaign on a Ray that is there already and goes on after it."""
    folder.mkdir()
    file, output = parts.write(folder, block("slow", seeds=[0])), folder / "out"
    options = ("--launcher", "ray", "--address", address, "--cpus-per-run", "0.25")
    process = campaign("run", file, "--output", output, *options)
    notes = output / "runs/slow/easy/seed_0"
    wait_until(lambda: pids(notes))
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    wait_until(lambda: not any(is_alive(pid) for pid in pids(notes)))
    wait_until(lambda: counts(output)["running"] == 0)
    assert counts(output) == {"planned": 1, "done": 0, "running": 0, "failed": 0, "retried": 0}


@needs_proc
def test_ray_with_a_worker_killed_in_mid_run_and_then_the_driver(
    campaign: Campaigns, block: Callable[..., Given], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # which has nothing to do with who may start what here
    file, output = parts.write(tmp_path, block("diverge", "slow", max_attempts=2)), tmp_path / "out"
    options = ("--launcher", "ray", "--jobs", "2", "--cpus-per-run", "0.25")
    process = campaign("run", file, "--output", output, *options)
    killed, other = (output / f"runs/slow/easy/seed_{seed}" for seed in (3, 4))
    wait_until(lambda: pids(killed) and pids(other))
    (first,), (second,) = pids(killed), pids(other)
    assert parent(first) != parent(second)
    assert counts(output) == {"planned": 4, "done": 2, "running": 2, "failed": 0, "retried": 0}
    ctrl_c_on_a_cluster(campaign, block, tmp_path / "other", address_of_ray(process.pid))

    os.kill(parent(first), signal.SIGKILL)
    wait_until(lambda: len(pids(killed)) == 2)
    assert not is_alive(first) and is_alive(second)
    (other / "go").touch()
    wait_until(lambda: counts(output)["done"] == 3)
    assert counts(output) == {"planned": 4, "done": 3, "running": 1, "failed": 0, "retried": 1}
    outcome = json.loads((killed / "attempt_1/FAILED").read_text())
    assert outcome["reason"].startswith("the Ray worker is gone: WorkerCrashedError")

    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in pids(killed)))
    wait_until(lambda: counts(output)["running"] == 0)
    # A campaign may be gone on with by another launcher.
    (killed / "go").touch()
    monkeypatch.setattr(parts.Campaign, "command", parts.child_command)
    run_campaign(file, output, jobs=2)
    found = {(row["arm"], row["seed"]): (row["result"], row["attempts"]) for row in rows(output / "runs.csv")}
    assert found == {
        ("diverge", "3"): ("diverged", "1"),
        ("diverge", "4"): ("diverged", "1"),
        ("slow", "3"): ("finished", "3"),
        ("slow", "4"): ("finished", "1"),
    }
    assert (killed / "attempt_2/INTERRUPTED").exists()
    # Nothing was appended to what the killed attempts left.
    assert len(list((killed).rglob("metrics.json"))) == 1


def test_ray_that_is_not_there(block: Callable[..., Given], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    file, output = parts.write(tmp_path, block()), tmp_path / "out"
    with pytest.raises(LimaskError, match="--gpus-per-run=1.5: expected a fraction in"):
        RayLauncher(gpus=1.5)
    with pytest.raises(LimaskError, match="no Ray at 127.0.0.1:1: .*expected HOST:PORT"):
        run_campaign(file, output, jobs=1, launcher=RayLauncher("127.0.0.1:1"))
    assert counts(output)["running"] == 0
    assert RayLauncher(gpus=0.5)._lacking({"CPU": 2.0}) == "--gpus-per-run=0.5: Ray has 0 GPUs"
    assert RayLauncher(cpus=2, gpus=0.5)._lacking({"CPU": 2.0, "GPU": 1.0}) is None


# -- SLURM ----------------------------------------------------------------------------------------------


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A SLURM of this machine on PATH; the folder of its jobs."""
    pytest.importorskip("submitit")
    folder = tmp_path / "slurm"
    folder.mkdir()
    script = f"#!{sys.executable} -S\n{Path(__file__).with_name('slurm_parts.py').read_text()}"
    for name in ("sbatch", "sacct", "scancel", "srun"):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    yield folder / "jobs"
    for job in (folder / "jobs").glob("[!.]*"):
        subprocess.run([folder / "scancel", job.name], check=True)


IN_SLURM = ("--launcher", "slurm", "--jobs", "2", "--slurm", "timeout_min=5", "--slurm", "partition=gpu")


@needs_proc
def test_slurm_jobs_outlive_their_driver_and_the_next_one_goes_on_with_them(
    campaign: Campaigns, block: Callable[..., Given], tmp_path: Path, slurm: Path
) -> None:
    given = block("diverge", "crash_once", "slow", seeds=[0], max_attempts=2)
    file, output = parts.write(tmp_path, given), tmp_path / "out"
    process = campaign("run", file, "--output", output, *IN_SLURM)
    notes = output / "runs/slow/easy/seed_0"
    wait_until(lambda: pids(notes) and counts(output)["done"] == 1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (pid,) = pids(notes)
    assert is_alive(pid)
    assert counts(output) == {"planned": 3, "done": 1, "running": 1, "failed": 0, "retried": 0}
    with pytest.raises(LimaskError, match="has jobs in SLURM .*: go on with --launcher slurm, or cancel"):
        run_campaign(file, output, jobs=1)
    assert counts(output)["running"] == 1

    again = campaign("run", file, "--output", output, *IN_SLURM)
    wait_until(lambda: CampaignFolder.existing(output).is_running())
    time.sleep(1.0)
    assert is_alive(pid) and len(pids(notes)) == 1
    (notes / "go").touch()
    assert again.wait(60) == 0
    assert counts(output) == {"planned": 3, "done": 3, "running": 0, "failed": 0, "retried": 1}
    found = {row["arm"]: (row["result"], row["attempts"]) for row in rows(output / "runs.csv")}
    assert found == {"diverge": ("diverged", "1"), "crash_once": ("finished", "2"), "slow": ("finished", "1")}
    assert not (output / "slurm/jobs.json").exists()

    # One array of all runs, and then a job for the run that crashed.
    assert sorted(path.name for path in slurm.glob("[!.]*")) == ["1_0", "1_1", "1_2", "2"]
    script = (slurm / ".1.sh").read_text()
    for line in ("--array=0-2%2", "--time=5", "--partition=gpu", "--no-requeue", "--job-name=limask"):
        assert f"#SBATCH {line}\n" in script


@needs_proc
def test_slurm_job_killed_in_mid_run_and_ctrl_c(
    campaign: Campaigns, block: Callable[..., Given], tmp_path: Path, slurm: Path
) -> None:
    file, output = parts.write(tmp_path, block("slow", seeds=[0])), tmp_path / "out"
    process = campaign("run", file, "--output", output, *IN_SLURM)
    notes = output / "runs/slow/easy/seed_0"
    wait_until(lambda: pids(notes))
    os.kill(parent(pids(notes)[0]), signal.SIGKILL)
    wait_until(lambda: len(pids(notes)) == 2)
    assert counts(output) == {"planned": 1, "done": 0, "running": 1, "failed": 0, "retried": 1}
    outcome = json.loads((notes / "attempt_1/FAILED").read_text())
    assert outcome["reason"].startswith("SLURM job 1 ended as FAILED")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert not any(is_alive(pid) for pid in pids(notes))
    assert (slurm / "2").read_text().startswith("CANCELLED")
    assert not (output / "slurm/jobs.json").exists()
    assert counts(output) == {"planned": 1, "done": 0, "running": 0, "failed": 0, "retried": 1}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["partition"], "--slurm partition: expected KEY=VALUE"),
        (["partition=gpu"], "--slurm timeout_min: expected the time limit of a run in whole minutes"),
        (["timeout_min=4:00:00"], "--slurm timeout_min=4:00:00: expected the time limit"),
        (["timeout_min=5", "nodes=2"], "--slurm nodes: each run is one task"),
    ],
)
def test_slurm_options(options: list[str], words: str) -> None:
    with pytest.raises(LimaskError, match=words):
        SlurmLauncher.from_options(options)


def test_slurm_that_refuses(
    block: Callable[..., Given], tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, output = parts.write(tmp_path, block()), tmp_path / "out"
    with pytest.raises(LimaskError, match="--slurm: Unknown argument 'partitin'"):
        run_campaign(file, output, jobs=1, launcher=SlurmLauncher({"timeout_min": 5, "partitin": "gpu"}))
    assert not output.exists()
    (slurm.parent / "sbatch").write_text("#!/bin/sh\necho 'invalid partition specified: gpu' >&2\nexit 1\n")
    with pytest.raises(LimaskError, match="SLURM does not take the jobs: .*invalid partition"):
        run_campaign(file, output, jobs=1, launcher=SlurmLauncher({"timeout_min": 5}))
    assert counts(output)["running"] == 0 and not (output / "slurm/jobs.json").exists()
    (output / "slurm/jobs.json").write_text('{"7": "nobody/easy/seed_3/attempt_1"}')
    with pytest.raises(LimaskError, match="jobs.json is damaged .7: nobody/.*; delete it when squeue"):
        run_campaign(file, output, jobs=1, launcher=SlurmLauncher({"timeout_min": 5}))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LimaskError, match="--launcher slurm: no srun on this machine"):
        run_campaign(file, output, jobs=1, launcher=SlurmLauncher({"timeout_min": 5}))


# -- whichever ------------------------------------------------------------------------------------------


def test_options_of_another_launcher() -> None:
    with pytest.raises(LimaskError, match="--address goes with --launcher ray, and the launcher is local"):
        chosen_launcher("local", address="x:1")
    with pytest.raises(LimaskError, match="--slurm goes with --launcher slurm, and the launcher is ray"):
        chosen_launcher("ray", slurm=["timeout_min=5"])
    with pytest.raises(LimaskError, match="--gpus-per-run goes with --launcher ray"):
        chosen_launcher("slurm", gpus=0.5, slurm=["timeout_min=5"])
    assert chosen_launcher("ray", gpus=0.5) == RayLauncher(None, 1.0, 0.5)


@pytest.mark.parametrize(
    ("options", "package"),
    [(["--launcher", "ray"], "ray"), (["--launcher", "slurm", "--slurm", "timeout_min=5"], "submitit")],
)
def test_dry_run_and_absent_extras(
    options: list[str],
    package: str,
    block: Callable[..., Given],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(requirements, "find_spec", lambda name: None if name == package else name)
    file, output = parts.write(tmp_path, block()), tmp_path / "out"
    command = ["campaign", "run", str(file), "--output", str(output), *options]
    assert cli.main([*command, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" -m ")[1][:10] for line in lines] == ["limask run"] * 2
    assert cli.main(command) == 2
    told = capsys.readouterr().err
    assert f"{package} is not installed: `pip install 'limask[{options[1]}]'`" in told
    assert not output.exists()


def test_worker_that_does_not_share_the_folder(block: Callable[..., Given], tmp_path: Path) -> None:
    campaign = parts.Campaign.from_block(block())
    unit = attempt_job(CampaignFolder(tmp_path / "elsewhere", campaign), campaign.runs()[0])
    error = run_attempt(unit)
    assert isinstance(error, LimaskError) and "on a file system that all nodes share" in str(error)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.usefixtures("commands")
def test_an_attempt_is_made_once(block: Callable[..., Given], tmp_path: Path) -> None:
    campaign = parts.Campaign.from_block(block())
    folder = CampaignFolder(tmp_path / "out", campaign)
    with folder.opened():
        first, second = (attempt_job(folder, campaign.runs()[0]) for _ in range(2))
        first.attempt.folder.parent.mkdir(parents=True)
        outcome = run_attempt(first)
        assert isinstance(outcome, Outcome) and outcome.result == "finished"
        assert isinstance(run_attempt(second), FileExistsError)


@pytest.mark.usefixtures("commands")
def test_what_is_wrong_beyond_one_run_comes_back_as_a_value(
    block: Callable[..., Given], tmp_path: Path
) -> None:
    campaign = parts.Campaign.from_block(block("full"))
    unit = attempt_job(CampaignFolder(tmp_path / "out", campaign), campaign.runs()[0])
    unit.attempt.folder.parent.mkdir(parents=True)
    # As it travels to a worker and back.
    error = pickle.loads(pickle.dumps(run_attempt(pickle.loads(pickle.dumps(unit)))))
    assert isinstance(error, OSError) and error.errno == errno.ENOSPC
    assert not unit.attempt.is_settled


@pytest.mark.usefixtures("commands")
def test_run_that_outlives_its_driver_keeps_others_out(
    block: Callable[..., Given], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign_folder, "LOCK_SECONDS", 0.1)
    campaign = parts.Campaign.from_block(block("slow", seeds=[0]))
    folder = CampaignFolder(tmp_path / "out", campaign)
    with folder.opened():
        job = attempt_job(folder, campaign.runs()[0])
        job.start()
    try:
        assert not folder.is_running()
        assert counts(folder.root)["running"] == 1
        with folder.opened(), pytest.raises(LimaskError, match="a campaign is running in .*: wait for it"):
            folder.settle_left()
    finally:
        job.ask_to_end()
        job.end(5.0)
    wait_until(lambda: counts(folder.root)["running"] == 0)
    with folder.opened():
        folder.settle_left()
    assert (job.attempt.folder / "INTERRUPTED").exists()
