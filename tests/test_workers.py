"""Environments in processes of their own that end before their time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from limask.envs import worker_runner
from limask.envs.worker_runner import WorkerConnection, WorkerRunner
from limask.errors import LimaskError

CONTEXT = multiprocessing.get_context("spawn")


def work(pipe: Any) -> None:
    """A host's worker: answers with what it is sent; ``die`` ends it, ``answer_and_die`` after the answer."""
    while True:
        try:
            command, data = pipe.recv()
        except EOFError:  # the test is over
            return
        if command == "die":
            os._exit(3)
        if command == "close":
            return
        pipe.send((command, data))
        if command == "answer_and_die":
            os._exit(3)


class ParallelRunner:
    """What of a host's parallel runner matters here: two workers; the first is asked something at once."""

    def __init__(self, args: Any, logger: Any) -> None:
        self.args = SimpleNamespace(device="cpu")
        pipes = [CONTEXT.Pipe() for _ in range(2)]
        self.parent_conns: Any = tuple(ours for ours, _ in pipes)
        # Kept, as the hosts keep them: it is why a pipe whose worker has ended never reports its end.
        self.worker_conns = tuple(theirs for _, theirs in pipes)
        self.ps = [CONTEXT.Process(target=work, args=(pipe,), daemon=True) for pipe in self.worker_conns]
        for process in self.ps:
            process.start()
        self.parent_conns[0].send((args, None))
        self.parent_conns[0].recv()

    def run(self, test_mode: bool) -> Any:
        commands = ("step", "die" if test_mode else "step")
        for pipe, command in zip(self.parent_conns, commands, strict=True):
            pipe.send((command, 7))
        return [pipe.recv() for pipe in self.parent_conns]

    def close_env(self) -> None:
        for pipe in self.parent_conns:
            pipe.send(("close", None))


class Runner(WorkerRunner, ParallelRunner):
    """As a host joins them."""


def test_a_dead_worker_ends_the_run_and_the_others() -> None:
    runner = Runner("get_env_info", None)
    assert runner.run(test_mode=False) == [("step", 7)] * 2
    with pytest.raises(LimaskError, match=f"{runner.ps[1].name} has ended with status 3"):
        runner.run(test_mode=True)
    assert [process.exitcode for process in runner.ps] == [0, 3]


def test_a_worker_that_cannot_build_its_environment_ends_the_run() -> None:
    with pytest.raises(LimaskError, match="has ended with status 3"):
        Runner("die", None)


def test_a_workers_last_answer_counts_and_statistics_are_never_asked_for() -> None:
    runner = Runner("get_env_info", None)
    first, second = runner.parent_conns
    first.send(("answer_and_die", 1))
    runner.ps[0].join(timeout=30)
    assert first.recv() == ("answer_and_die", 1)
    second.send(("get_stats", None))
    second.send(("step", 2))
    assert second.recv() == {}
    assert second.recv() == ("step", 2), "the worker was asked for nothing else"
    runner.close_env()
    assert isinstance(second, WorkerConnection)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs signals as on Unix")
def test_a_worker_that_hangs_is_named_and_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runner = Runner("get_env_info", None)
    monkeypatch.setattr(worker_runner, "_SECONDS_BETWEEN_LOOKS", 0.05)
    monkeypatch.setattr(worker_runner, "_SECONDS_UNTIL_NAMED", 0.2)
    stopped = runner.ps[1]
    os.kill(stopped.pid, signal.SIGSTOP)
    threading.Timer(1.0, os.kill, (stopped.pid, signal.SIGCONT)).start()
    assert runner.run(test_mode=False) == [("step", 7)] * 2
    told = [record.getMessage() for record in caplog.records]
    assert 2 <= len(told) <= 3, "after 0.2 and 0.4 s, perhaps 0.8"
    assert all(f"{stopped.name} (pid {stopped.pid}) has not answered for" in line for line in told)
    runner.close_env()


START = """
import multiprocessing, sys
from limask.hosts.pymarlzooplus import begin_at_once

def tell(pipe):
    here = "pymarlzooplus.runners.parallel_runner" in sys.modules
    import numpy as np
    pipe.send((here, np.random.random()))

if __name__ == "__main__":
    if sys.argv[1:]:
        multiprocessing.set_start_method(sys.argv[1])
    begin_at_once()
    said = []
    for _ in range(0 if sys.argv[1:] else 2):
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(target=tell, args=(theirs,))
        process.start()
        said.append(ours.recv())
        process.join()
    print(multiprocessing.get_start_method(), {here for here, _ in said}, len({drawn for _, drawn in said}))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="processes are not copied there")
@pytest.mark.parametrize(("chosen", "expected"), [([], "forkserver {True} 2"), (["spawn"], "spawn set() 0")])
def test_workers_of_pymarlzooplus_are_copies_with_random_numbers_of_their_own(
    tmp_path: Path, chosen: list[str], expected: str
) -> None:
    """What they need has been imported before they start; a way to start them that was chosen stays."""
    script = tmp_path / "start.py"
    script.write_text(START)
    ran = subprocess.run(
        [sys.executable, str(script), *chosen], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert ran.stdout.splitlines()[-1] == expected, ran.stderr
