"""Files that are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from limask.errors import LimaskError
from limask.protocols import State


def replace(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file, which then takes the place of ``path`` for good (flushed to disk).

    Raises:
        OSError: no room, or no permission; ``path`` is as it was, and nothing is left behind.
    """
    # A name that nobody can have planted a link under, and made by nobody else.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        write(temporary)
        _sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)  # the name as well as the contents


def check_free(output: Path, names: Sequence[str], *, force: bool = False) -> None:
    """See that the folder ``--output`` can take files of these ``names``; makes nothing.

    Args:
        output: the folder, which need not exist.
        names: of the files.
        force: whether files that are there are to be written anew.

    Raises:
        LimaskError: one of them is there already, or ``output`` is no folder.
    """
    if output.exists() and not output.is_dir():
        raise LimaskError(f"--output={output} is a file: expected a folder, or none yet")
    for name in names:
        if (output / name).exists() and not force:
            raise LimaskError(
                f"{output / name} is there already: choose another folder with --output, or replace it with "
                "--force"
            )


def make_folder(output: Path) -> None:
    """Make the folder ``--output``, unless it is there.

    Raises:
        LimaskError: it cannot be made.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LimaskError(f"--output={output}: {error.strerror}; choose another folder") from error


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def write_text(path: Path, text: str) -> None:
    """See ``replace``."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(text.encode())

    replace(path, write)


def write_json(path: Path, data: Any) -> None:
    """See ``write_text``."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> State:
    """Read a file that ``write_json`` wrote.

    Raises:
        LimaskError: it is damaged.
        OSError: it cannot be read.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LimaskError(f"{path} is damaged ({error})") from error
    if not isinstance(data, dict):
        raise LimaskError(f"{path} is damaged (not a JSON object)")
    return data


def json_of(path: Path) -> State:
    """What a file holds; empty where it cannot be read."""
    try:
        return read_json(path)
    except (LimaskError, OSError):
        return {}
