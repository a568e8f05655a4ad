"""Locks on files (flock), held for as long as any process has the locked file open."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from limask.errors import LimaskError


def lock(path: Path) -> int:
    """Lock ``path``, made where it does not exist; returns the file descriptor to be closed.

    Waits for whoever holds it, and is meant for where that takes but a moment.
    """
    descriptor = _open(path)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


@contextmanager
def locked(path: Path, seconds: float, failure: str) -> Iterator[None]:
    """Hold the lock ``path``.

    Raises:
        LimaskError: somebody else has held it for ``seconds``; ``failure`` is the message.
    """
    descriptor = _open(path)
    try:
        deadline = time.monotonic() + seconds
        while not _takes(descriptor):
            if time.monotonic() > deadline:
                raise LimaskError(failure)
            time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock."""
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDWR)
        try:
            return not _takes(descriptor)
        finally:
            os.close(descriptor)
    return False


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def _takes(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
