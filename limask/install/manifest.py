"""The manifest: what an install added to a checkout, with hashes."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from limask.errors import LimaskError

MANIFEST = "src/.limask.json"
REGISTRY_FILE = "src/learners/__init__.py"
MAIN_FILE = "src/main.py"


@dataclass(frozen=True)
class BlockRecord:
    """A block of lines in one of the host's files: its hash, and whether a newline was put before it."""

    sha256: str
    newline_added: bool

    def to_json(self, file: str) -> dict[str, object]:
        return {"file": file, "sha256": self.sha256, "newline_added": self.newline_added}

    @classmethod
    def from_json(cls, raw: Any, file: str) -> BlockRecord:
        found = cls(raw["sha256"], raw["newline_added"])
        if raw["file"] != file or not _is_digest(found.sha256) or not isinstance(found.newline_added, bool):
            raise ValueError("wrong shape")
        return found


@dataclass(frozen=True)
class Manifest:
    """What an install added to a checkout; paths are relative to its root.

    ``block`` is the one in ``REGISTRY_FILE``, ``compat`` the one in ``MAIN_FILE``, if it was asked for.
    """

    version: str
    files: dict[str, str]
    block: BlockRecord
    compat: BlockRecord | None
    directories: list[str]

    def blocks(self) -> dict[str, BlockRecord]:
        """By the file that each is in."""
        compat = {} if self.compat is None else {MAIN_FILE: self.compat}
        return {REGISTRY_FILE: self.block} | compat

    def to_bytes(self) -> bytes:
        shape = {
            "limask": self.version,
            "files": self.files,
            "block": self.block.to_json(REGISTRY_FILE),
            "directories": self.directories,
        }
        if self.compat is not None:
            shape["compat"] = self.compat.to_json(MAIN_FILE)
        return (json.dumps(shape, indent=2) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read a manifest; anything but the exact shape is a ValueError."""
        try:
            raw = json.loads(data)
            found = cls(
                version=raw["limask"],
                files=dict(raw["files"]),
                block=BlockRecord.from_json(raw["block"], REGISTRY_FILE),
                compat=BlockRecord.from_json(raw["compat"], MAIN_FILE) if "compat" in raw else None,
                directories=list(raw["directories"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"wrong shape: {error}") from error
        names = [*found.files, *found.directories]
        if (
            not isinstance(found.version, str)
            or not all(_is_digest(digest) for digest in found.files.values())
            or not all(isinstance(name, str) and _is_inside_src(name) for name in names)
        ):
            raise ValueError("wrong shape")
        return found


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


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
