"""What a run that was cut off has left, for another to go on with; written by ``limask.hosts.resume``."""

from __future__ import annotations

import shutil
from pathlib import Path

from limask.errors import LimaskError
from limask.files import read_json
from limask.protocols import State

#: The folder of states below the folder for results, and the file in it that says how the run was started.
FOLDER, RUN_FILE = "state", "run.json"


def states(results: Path) -> list[Path]:
    """The states kept below the folder for results, the last one first; each is named by its environment
    steps."""
    files = [file for file in (results / FOLDER).glob("*.pt") if file.stem.isdecimal()]
    return sorted(files, key=lambda file: int(file.stem), reverse=True)


def seconds(results: Path) -> float:
    """Wall-clock time until the last state below the folder for results, with that of the runs that it went
    on with; 0 where none is known."""
    file = results / FOLDER / RUN_FILE
    return float(read_json(file).get("seconds", 0.0)) if file.is_file() else 0.0


def forget(results: Path) -> None:
    """Delete them."""
    shutil.rmtree(results / FOLDER, ignore_errors=True)


def read_start(results: Path) -> State:
    """How the run with these results was started.

    Raises:
        LimaskError: it has left no state to go on from.
    """
    file = results / FOLDER / RUN_FILE
    if not (file.is_file() and states(results)):
        raise LimaskError(
            f"--resume={results} has no {FOLDER}/*.pt: expected the folder given to `limask run --results` "
            "of a run that was cut off (a run keeps its state every few minutes, and deletes it at its end)"
        )
    return read_json(file)
