"""Stands in for sbatch, sacct, scancel and srun, by the name that it is copied to.

Runs job arrays on this machine, so many tasks at a time, and keeps the state of each with its process's
number in a file ``<job>_<task>`` (``<job>`` where there is no array) of the folder ``jobs`` beside itself.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

JOBS = Path(sys.argv[0]).parent / "jobs"


def note(task: str, state: str, pid: int = 0) -> None:
    (JOBS / f".{task}").write_text(f"{state} {pid}")
    (JOBS / f".{task}").replace(JOBS / task)


def noted(task: str) -> tuple[str, int]:
    state, pid = (JOBS / task).read_text().split()
    return state, int(pid)


def tasks() -> list[str]:
    return sorted(path.name for path in JOBS.glob("[!.]*"))


def start(task: str, script: Path) -> subprocess.Popen[bytes]:
    job, _, index = task.partition("_")
    env = dict(os.environ, SLURM_JOB_ID=job)
    if index:
        env |= {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": index}
    with (JOBS / f".{task}.log").open("wb") as log:
        command = ["bash", str(script)]
        return subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)


def is_empty(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def control(script: Path, waiting: list[str], at_once: int) -> None:
    running: dict[str, subprocess.Popen[bytes]] = {}
    while waiting or running:
        for task, process in list(running.items()):
            if process.poll() is not None and is_empty(process.pid):
                is_cancelled = noted(task)[0] == "COMPLETING"
                note(task, "CANCELLED" if is_cancelled else "FAILED" if process.returncode else "COMPLETED")
                del running[task]
        while waiting and len(running) < at_once:
            task = waiting.pop(0)
            if noted(task)[0] != "CANCELLED":
                running[task] = start(task, script)
                note(task, "RUNNING", running[task].pid)
        time.sleep(0.02)


def sbatch(file: Path) -> None:
    job = str(1 + len({task.partition("_")[0] for task in tasks()}))
    script = JOBS / f".{job}.sh"
    script.write_text(file.read_text())
    array = re.search(r"--array=0-(\d+)%(\d+)", script.read_text())
    waiting = [f"{job}_{n}" for n in range(int(array[1]) + 1)] if array else [job]
    for task in waiting:
        note(task, "PENDING")
    print(f"Submitted batch job {job}", flush=True)
    if os.fork() == 0:
        # The jobs are nobody's children, and nobody waits for what they print.
        os.setsid()
        for descriptor in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        control(script, waiting, int(array[2]) if array else 1)


def sacct() -> None:
    print("JobID|State|NodeList")
    for task in tasks():
        print(f"{task}|{noted(task)[0]}|here")


def scancel(task: str) -> None:
    state, pid = noted(task)
    if state == "PENDING":
        note(task, "CANCELLED")
    elif state == "RUNNING":
        note(task, "COMPLETING", pid)
        os.killpg(pid, signal.SIGTERM)


if __name__ == "__main__":
    JOBS.mkdir(exist_ok=True)
    match Path(sys.argv[0]).name:
        case "sbatch":
            sbatch(Path(sys.argv[1]))
        case "sacct":
            sacct()
        case "scancel":
            scancel(sys.argv[1])
