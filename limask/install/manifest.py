"""The manifest: what an install added to a checkout, with hashes."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from limask.errors import LimaskError

MANIFEST = "src/.limask.json"
REGISTRY_FILE = "src/learners/__init__.py"


@dataclass(frozen=True)
class Manifest:
    """What an install added to a checkout; paths are relative to its root."""

    version: str
    files: dict[str, str]
    block_sha256: str
    newline_added: bool
    directories: list[str]

    def to_bytes(self) -> bytes:
        shape = {
            "limask": self.version,
            "files": self.files,
            "block": {
                "file": REGISTRY_FILE,
                "sha256": self.block_sha256,
                "newline_added": self.newline_added,
            },
            "directories": self.directories,
        }
        return (json.dumps(shape, indent=2) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read a manifest; anything but the exact shape is a ValueError."""
        try:
            raw = json.loads(data)
            block = raw["block"]
            found = cls(
                version=raw["limask"],
                files=dict(raw["files"]),
                block_sha256=block["sha256"],
                newline_added=block["newline_added"],
                directories=list(raw["directories"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"wrong shape: {error}") from error
        digests = [found.block_sha256, *found.files.values()]
        names = [*found.files, *found.directories]
        if (
            not isinstance(found.version, str)
            or not isinstance(found.newline_added, bool)
            or block["file"] != REGISTRY_FILE
            or not all(isinstance(d, str) and re.fullmatch("[0-9a-f]{64}", d) for d in digests)
            or not all(isinstance(name, str) and _is_inside_src(name) for name in names)
        ):
            raise ValueError("wrong shape")
        return found


def _is_inside_src(name: str) -> bool:
    """Guard against a manifest that points at files outside the checkout."""
    path = PurePosixPath(name)
    return path.parts[:1] == ("src",) and len(path.parts) > 1 and ".." not in path.parts


def read_manifest(root: Path) -> Manifest | None:
    path = root / MANIFEST
    if not path.exists():
        return None
    try:
        return Manifest.from_bytes(path.read_bytes())
    except ValueError as error:
        raise LimaskError(
            f"{path} is damaged ({error}); expected the JSON that `limask install` wrote; restore "
            "it, or delete it and what limask added by hand, and run again; nothing was changed"
        ) from error


def file_state(path: Path, digest: str) -> str:
    if not os.path.lexists(path):
        return "missing"
    return "ok" if path.is_file() and sha256_of(path.read_bytes()) == digest else "edited"


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
