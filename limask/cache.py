"""Folders for what is compiled once on a machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from pathlib import Path


def cache_folder(what: str) -> Path:
    """Where ``what`` is kept that machines like this one compiled: a folder for each set of instructions."""
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # A path that is not absolute is to be ignored, says the XDG base directory specification.
    root = root if root.is_absolute() else Path.home() / ".cache"
    return root / "limask" / f"{what}-{hashlib.sha256(_instructions().encode()).hexdigest()[:12]}"


def _instructions() -> str:
    """What tells machines apart on which one's compiled code may not run on the other."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith(("flags", "Features")):
                return line
    return f"{platform.machine()} {platform.processor()}"


def own_folder(what: str) -> Path | None:
    """That folder, made if need be; None where it cannot be written, or others could: what is found in it is
    run."""
    folder = cache_folder(what)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_ours = os.name == "nt" or (
            folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 0o022
        )
    except OSError:
        return None
    return folder if is_ours and os.access(folder, os.W_OK) else None
