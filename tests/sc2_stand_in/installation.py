"""A folder that pysc2 takes for an installation of StarCraft II, and what tests do to the processes in it."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path

#: The number in the name of version 4.10's folder.
BUILD = 75689
_LAUNCHED, _FAULT = "launched", "fault"
_SIGNALS = {"kill": signal.SIGKILL, "vanish": signal.SIGKILL, "hang": signal.SIGSTOP}


def make_installation(folder: Path) -> Path:
    """Write the binary and the map 3m under ``folder``; returns what ``SC2PATH`` has to be."""
    binary = _binary(folder)
    binary.parent.mkdir(parents=True)
    tests = Path(__file__).resolve().parents[1]
    path = f'PYTHONPATH={shlex.quote(str(tests))}"${{PYTHONPATH:+:$PYTHONPATH}}"'
    binary.write_text(f'#!/bin/sh\n{path} exec {shlex.quote(sys.executable)} -m sc2_stand_in "$@"\n')
    binary.chmod(0o755)
    game_map = folder / "Maps/SMAC_Maps/3m.SC2Map"
    game_map.parent.mkdir(parents=True)
    game_map.write_bytes(b"a map of the stand-in")
    return folder


def _binary(installation: Path) -> Path:
    return installation / f"Versions/Base{BUILD}/SC2_x64"


def note_launch(installation: Path) -> None:
    """Called by each process of the stand-in when it starts."""
    with (installation / _LAUNCHED).open("a") as file:
        file.write(f"{os.getpid()}\n")


def launched(installation: Path) -> list[int]:
    """The ids of all processes that have been started, first to last."""
    file = installation / _LAUNCHED
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def order_fault(installation: Path, kind: str, answers: int) -> None:
    """Order a fault for one of the processes that will be started.

    Args:
        kind: ``kill``, ``hang`` (the process is stopped, its connection stays open) or ``vanish`` (it is
            killed, and no other will start any more).
        answers: it happens to the first process that is about to give so many answers; all others live on.
    """
    (installation / _FAULT).write_text(f"{kind} {answers}")


def is_fault_to_come(installation: Path) -> bool:
    """Whether an ordered fault has not happened yet."""
    return (installation / _FAULT).exists()


class Fault:
    """The ordered fault as seen by a process of the stand-in."""

    def __init__(self, installation: Path) -> None:
        self._installation = installation
        file = installation / _FAULT
        self._kind, self._left = "", 0
        if file.exists():
            self._kind, answers = file.read_text().split()
            self._left = int(answers)

    def before_answer(self) -> None:
        """Count one answer; the one at which the fault is due is never sent."""
        self._left -= 1
        if not self._kind or self._left > 0:
            return
        try:
            (self._installation / _FAULT).unlink()
        except FileNotFoundError:  # another process was first
            self._kind = ""
            return
        if self._kind == "vanish":
            _binary(self._installation).write_text("#!/bin/sh\nexit 1\n")
        os.kill(os.getpid(), _SIGNALS[self._kind])
