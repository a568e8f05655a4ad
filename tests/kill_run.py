"""Kill a run again and again, go on with it each time, and compare it with one that was left alone.

    python tests/kill_run.py [TIMES] [HOST]

Each time the run is killed with SIGKILL, at a random moment within 20 seconds of its first new state.
Prints how it went; the exit status is 1 where a number differs.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from limask.experiments.storage.sacred_files import latest_run, read_curves
from limask.resumable import states

OPTIONS = [
    "--config=qmix_lim", "--env-config=smax", "with", "env_args.map_name=3m", "batch_size=32", "seed=1",
    "test_interval=2000", "test_nepisode=16", "lim.autoencoder.warmup=2000", "learner_log_interval=100",
]  # fmt: skip
SECONDS = 20.0


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "limask", "run", *arguments]
    with (folder / "log").open("ab") as log:
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)


def newest(results: Path) -> int:
    return max((int(file.stem) for file in states(results)), default=-1)


def main(times: int, host: str) -> int:
    folder, draw = Path(tempfile.mkdtemp(prefix="kill_run_")), random.Random(0)
    given = ["--host", host, *([] if host == "pymarlzooplus" else ["--compat"])]
    # Long enough that a run left alone for so many times 20 seconds would not have ended.
    options = [*OPTIONS, f"t_max={20_000 * max(1, times // 10)}"]
    print(f"in {folder}")
    process = start(folder, "--results", "whole", "--save-state", "0", *given, *options)
    if process.wait() != 0:
        sys.exit(f"the run failed by itself: see {folder}/log")

    results, killed = folder / "cut", 0
    process = start(folder, "--results", "cut", "--save-state", "1", *given, *options)
    while process.poll() is None:
        before = newest(results)
        while process.poll() is None and newest(results) <= before:
            time.sleep(0.1)
        if killed < times:
            try:
                process.wait(draw.uniform(0, SECONDS))
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            killed += 1
            print(f"killed {killed} times, the last state is of step {newest(results):,}", flush=True)
            process = start(folder, "--resume", "cut", "--save-state", "1")
        else:
            process.wait()
    if process.returncode != 0:
        sys.exit(f"exit status {process.returncode} after {killed} kills: see {folder}/log")
    whole, cut = (read_curves(run) for name in ("whole", "cut") if (run := latest_run(folder / name)))
    differing = sorted(name for name in whole.keys() | cut.keys() if whole.get(name) != cut.get(name))
    print(json.dumps({"kills": killed, "curves": len(whole), "differing": differing}))
    shutil.rmtree(folder)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 50, sys.argv[2] if sys.argv[2:] else "pymarlzooplus"))
