"""What the tests of launchers share: campaigns as processes, and looks at the processes that they start."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import test_campaign

Campaigns = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def campaign() -> Iterator[Campaigns]:
    """Starts ``limask campaign`` as a process, which does not outlive the test."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
        processes.append(test_campaign.campaign_process(*arguments))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def pids(notes: Path) -> list[int]:
    """Processes of a run's commands so far."""
    path = notes / "pid"
    return [int(pid) for pid in path.read_text().split(" ")[:-1]] if path.exists() else []


def wait_until(is_so: Callable[[], object]) -> None:
    """Ray takes its time to start."""
    deadline = time.monotonic() + 180
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def parent(pid: int) -> int:
    """The worker that a command was started by."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
