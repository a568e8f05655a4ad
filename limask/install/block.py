"""A block of limask's in a file of the host's, between two marker lines."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path

from limask.errors import LimaskError
from limask.install.manifest import MANIFEST, BlockRecord, sha256_of

START = b"# >>> limask >>>"
END = b"# <<< limask <<<"


@dataclass(frozen=True)
class _Split:
    """A file cut at the marker lines; ``block`` is empty where there is none."""

    before: bytes
    block: bytes
    after: bytes


def split_at_block(path: Path) -> _Split:
    """Cut a file around its limask block.

    Raises:
        LimaskError: the marker lines are not one start followed by one end.
    """
    text = path.read_bytes() if path.exists() else b""
    bom = codecs.BOM_UTF8 if text.startswith(codecs.BOM_UTF8) else b""
    lines = text.removeprefix(bom).splitlines(keepends=True)
    starts = [i for i, line in enumerate(lines) if line.strip() == START]
    ends = [i for i, line in enumerate(lines) if line.strip() == END]
    if not starts and not ends:
        return _Split(text, b"", b"")
    if not ends:
        wrong = "a start marker without an end marker"
    elif not starts:
        wrong = "an end marker without a start marker"
    elif len(starts) > 1 or len(ends) > 1:
        wrong = f"{len(starts)} start markers and {len(ends)} end markers"
    elif ends[0] < starts[0]:
        wrong = "the end marker is above the start marker"
    else:
        first, last = starts[0], ends[0] + 1
        parts = (lines[:first], lines[first:last], lines[last:])
        before, block, after = (b"".join(part) for part in parts)
        return _Split(bom + before, block, after)
    raise LimaskError(
        f"{path}: the limask block is damaged: {wrong}; expected one {START.decode()!r} line and "
        f"one {END.decode()!r} line below it; delete the rest of the block by hand and run again; "
        "nothing was changed"
    )


def block_digest(block: bytes) -> str:
    """Hash a block in a way that survives a change of the file's newline style."""
    return sha256_of(b"\n".join(block.splitlines()))


def block_state(path: Path, record: BlockRecord | None) -> str:
    try:
        block = split_at_block(path).block
    except LimaskError as error:
        return f"damaged ({error})"
    if not block:
        return "missing"
    is_recorded = record is None or block_digest(block) == record.sha256
    return "ok" if is_recorded else "edited"


def vouched(path: Path, block: bytes, record: BlockRecord | None) -> BlockRecord:
    """Return the record of exactly this block.

    Raises:
        LimaskError: there is none, or the block is not what it records.
    """
    if record is None:
        wrong = f"there is a limask block that no {MANIFEST} records"
    elif block_digest(block) != record.sha256:
        wrong = "the limask block was edited by hand"
    else:
        return record
    raise LimaskError(
        f"{path}: {wrong}; expected the text that `limask install` wrote; restore it, or delete "
        "the block with both of its marker lines, and run again; nothing was changed"
    )
