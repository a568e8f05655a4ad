"""What a command that was killed has left in a checkout: undone by the next one.

Before anything changes, a transaction writes down in its folder of old files what it is going to do. Removing
that journal is what makes the changes final; until then every one of them can be taken back.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from limask.errors import LimaskError
from limask.install.manifest import sha256_of
from limask.install.plan import Step

#: Prefix of a transaction's folder of old files, in ``src``.
STASH = ".limask-"
JOURNAL = "journal.json"

#: Seconds to wait for another command that is at work in the checkout.
LOCK_SECONDS = 10.0


def write_journal(root: Path, stash: Path, steps: list[Step]) -> None:
    """Write down what is going to be changed, for good, before anything is."""
    changes = [
        {
            "path": os.path.relpath(step.path, root),
            "is_folder": step.folder,
            "verb": step.verb,
            "is_new": not os.path.lexists(step.path),
            "has_links": has_links(step.path),
            "sha256": None if step.data is None else sha256_of(step.data),
        }
        for step in steps
    ]
    temporary = stash / f"{JOURNAL}.part"
    with open(temporary, "xb") as stream:
        stream.write(json.dumps(changes).encode())
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, stash / JOURNAL)


def target_of(path: Path) -> Path:
    """Where a file is written: a link stays a link, and what it points at is written."""
    return path.resolve()


def temporary_of(stash: Path, target: Path) -> Path:
    """Beside the file whose place it will take."""
    return target.with_name(f"{stash.name}-{target.name}")


def saved_of(stash: Path, number: int, path: Path) -> Path:
    """Where the old file of change ``number`` is kept."""
    return stash / f"{number}-{path.name}"


def has_links(path: Path) -> bool:
    """Whether a file has other names, which are to stay the same file."""
    return path.is_file() and path.stat().st_nlink > 1


def overwrite(source: Path, target: Path) -> None:
    """Write a file's contents into another, which has other names; ``source`` goes."""
    with open(target, "r+b") as stream:
        stream.write(source.read_bytes())
        stream.truncate()
        stream.flush()
        os.fsync(stream.fileno())
    source.unlink()


def interrupted(root: Path) -> list[Path]:
    """Folders of old files that killed commands have left in a checkout."""
    return sorted(
        path for path in (root / "src").glob(f"{STASH}*") if path.is_dir() and not path.is_symlink()
    )


def recover(root: Path) -> list[str]:
    """Take back what killed commands had begun, and remove what they have left.

    Returns:
        What was done, a line each.

    Raises:
        LimaskError: a journal is damaged.
    """
    told = []
    for stash in interrupted(root):
        if (stash / JOURNAL).exists():
            kept = _roll_back(root, stash)
            told.append("undid what an interrupted command had begun")
            told += (f"kept {path}: it has changed since" for path in kept)
        shutil.rmtree(stash, ignore_errors=True)
    return told


def _roll_back(root: Path, stash: Path) -> list[str]:
    """Take back the changes of a journal; returns what was not, as it is not what the command left."""
    kept = []
    changes = _read(stash / JOURNAL)
    for number, change in reversed(list(enumerate(changes))):
        path = root / change["path"]
        saved = saved_of(stash, number, path)
        if change["is_folder"] and change["verb"] == "add":
            with suppress(OSError):  # it was not made yet, or holds something of the user's
                os.rmdir(path)
        elif change["sha256"] is None:  # a removal
            if os.path.lexists(saved) and not os.path.lexists(path):
                shutil.move(saved, path)
        else:
            target = target_of(path)
            temporary_of(stash, target).unlink(missing_ok=True)
            is_ours = target.is_file() and sha256_of(target.read_bytes()) == change["sha256"]
            if saved.is_file():
                # One that is written to in place may have been cut short.
                if change["has_links"] and target.exists():
                    overwrite(saved, target)
                elif is_ours or not target.exists():
                    os.replace(saved, target)
                elif target.read_bytes() != saved.read_bytes():
                    kept.append(change["path"])
            elif change["is_new"] and is_ours:
                target.unlink()
    return kept


def _read(journal: Path) -> list[dict[str, Any]]:
    try:
        changes = json.loads(journal.read_bytes())
        for change in changes:
            is_right = (
                isinstance(change["path"], str)
                and change["verb"] in ("add", "replace", "remove")
                and all(isinstance(change[name], bool) for name in ("is_folder", "is_new", "has_links"))
                and isinstance(change["sha256"], (str, type(None)))
            )
            if not is_right:
                raise ValueError("wrong shape")
    except (ValueError, KeyError, TypeError) as error:
        raise LimaskError(
            f"{journal} is damaged ({error}): put the old files in that folder back by hand, delete it, and "
            "run again; nothing was changed"
        ) from error
    found: list[dict[str, Any]] = changes
    return found


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other commands of limask's out of a checkout, by a lock on its ``folder`` that leaves no trace.

    Raises:
        LimaskError: another one is at work there.
    """
    try:
        import fcntl
    except ImportError:  # Windows locks no folders
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LimaskError(
                        f"{folder.parent}: another limask install or uninstall is at work there: wait for "
                        "it; nothing was changed"
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)
