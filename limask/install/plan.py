"""What an install or an uninstall would change, worked out before anything is touched."""

from __future__ import annotations

import ast
import codecs
import os
import re
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from limask import resources
from limask.errors import LimaskError
from limask.install.block import END, START, block_digest, split_at_block, vouched
from limask.install.manifest import MAIN_FILE, REGISTRY_FILE, BlockRecord, Manifest, file_state, sha256_of

_THIN_FILES = ("modules/maskers/__init__.py",)
#: Of a program's first two lines: those that count (PEP 263 and the kernel's ``#!``), and those after which
#: the second may.
_HEAD = re.compile(rb"#!|[ \t\f]*#.*?coding[:=]")
_EMPTY = re.compile(rb"[ \t\f]*(#|[\r\n]|\Z)")
_PAST = {"add": "added", "replace": "replaced", "remove": "removed", "keep": "kept"}


@dataclass(frozen=True)
class Step:
    """One change: write ``data``, or add or remove a file or folder, or (keep) only a remark."""

    verb: str
    what: str
    path: Path
    data: bytes | None = None
    folder: bool = False

    def line(self, dry_run: bool) -> str:
        return f"would {self.verb} {self.what}" if dry_run else f"{_PAST[self.verb]} {self.what}"


def _payload() -> dict[str, bytes]:
    """Return the files that belong in a checkout, by their path in it."""
    config, patch = resources.config_dir(), resources.src_patch_dir()
    files = {
        f"src/config/{kind}/{path.name}": path.read_bytes()
        for kind in ("algs", "envs")
        for path in sorted((config / kind).glob("*.yaml"))
    }
    return files | {f"src/{name}": (patch / name).read_bytes() for name in _THIN_FILES}


def plan_install(
    root: Path, old: Manifest | None, version: str, with_compat: bool
) -> tuple[list[Step], Manifest]:
    payload = _payload()
    recorded = old.files if old else {}
    steps = _missing_folders(root, payload)
    directories = {step.path.relative_to(root).as_posix() for step in steps}
    digests = {}
    for name, data in payload.items():
        file_steps, digests[name] = _plan_file(root, name, data, recorded.get(name))
        steps += file_steps
    for name, digest in recorded.items():
        if name not in payload:  # an earlier limask had it, this one no longer does
            steps += _plan_removal(root, name, digest)
    block_steps, block = _plan_block(root, REGISTRY_FILE, old.block if old else None)
    compat_steps, compat = _plan_compat(root, old.compat if old else None, with_compat)
    new = Manifest(
        version=version,
        files=digests,
        block=block,
        compat=compat,
        directories=sorted(directories.union(old.directories if old else ())),
    )
    return [*steps, *block_steps, *compat_steps], new


def _missing_folders(root: Path, names: Iterable[str]) -> list[Step]:
    """Plan the folders that the files need, outer folders first."""
    folders = {root / parent for name in names for parent in PurePosixPath(name).parents}
    for folder in folders:
        if os.path.lexists(folder) and not folder.is_dir():
            raise LimaskError(f"{folder} is in the way: expected a folder; nothing was changed")
    missing = sorted(folder for folder in folders if not folder.exists())
    return [Step("add", f"{f.relative_to(root).as_posix()}/", f, folder=True) for f in missing]


def _plan_file(root: Path, name: str, data: bytes, recorded: str | None) -> tuple[list[Step], str]:
    """Plan one payload file; returns also the hash that the manifest has to carry."""
    path, wanted = root / name, sha256_of(data)
    if not os.path.lexists(path):
        return [Step("add", name, path, data)], wanted
    if recorded is None:
        raise LimaskError(
            f"{path} exists and is not limask's; expected no file of that name; rename or remove "
            "it and run again; nothing was changed"
        )
    state = file_state(path, recorded)
    if state == "ok":
        return ([Step("replace", name, path, data)] if recorded != wanted else []), wanted
    if file_state(path, wanted) == "ok":
        return [], wanted
    return [Step("keep", f"{name}: you edited it", path)], recorded


def _plan_block(root: Path, file: str, recorded: BlockRecord | None) -> tuple[list[Step], BlockRecord]:
    """Plan the block in one of the host's files, at the end of it, or at the head of ``MAIN_FILE``; returns
    also what the manifest has to record."""
    path = root / file
    found = split_at_block(path)
    body = (resources.src_patch_dir() / f"{PurePosixPath(file).relative_to('src')}.block").read_bytes()
    text = b"".join((found.before, found.after))
    newline = b"\r\n" if text.count(b"\r\n") * 2 > text.count(b"\n") else b"\n"
    block = b"".join(line + newline for line in (START, *body.splitlines(), END))
    digest = block_digest(block)
    what = f"the limask block in {file}"
    if not found.block:
        before, after = _cut_below_head(path, text) if file == MAIN_FILE else (text, b"")
        is_at_start = not before.removeprefix(codecs.BOM_UTF8)
        gap = b"" if is_at_start or before.endswith((b"\n", b"\r")) else newline
        data = before + gap + block + after
        if file == MAIN_FILE:
            _check_compiles(path, data, "with limask's block in it ")
        return [Step("add", what, path, data)], BlockRecord(digest, bool(gap))
    record = vouched(path, found.block, recorded)
    if block_digest(found.block) == digest:
        return [], record
    step = Step("replace", what, path, found.before + block + found.after)
    return [step], BlockRecord(digest, record.newline_added)


def _cut_below_head(path: Path, text: bytes) -> tuple[bytes, bytes]:
    """Cut a program below what has to stay on top: ``#!``, encoding, docstring, imports from ``__future__``.

    Raises:
        LimaskError: it is no program that this Python understands.
    """
    _check_compiles(path, text)
    bom = codecs.BOM_UTF8 if text.startswith(codecs.BOM_UTF8) else b""
    # As Python counts lines, at which its statements end.
    lines = re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z", text.removeprefix(bom))
    first = lines[: 2 if lines and _EMPTY.match(lines[0]) else 1]
    end = max((i + 1 for i, line in enumerate(first) if _HEAD.match(line)), default=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the host's own
        module = ast.parse(text)
    has_docstring = ast.get_docstring(module, clean=False) is not None
    for i, statement in enumerate(module.body):
        is_future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        if is_future or (has_docstring and i == 0):
            end = max(end, statement.end_lineno or 0)
    return bom + b"".join(lines[:end]), b"".join(lines[end:])


def _check_compiles(path: Path, text: bytes, which: str = "") -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the host's own
        try:
            compile(text, str(path), "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise LimaskError(
                f"{path}: {which}it is no program that Python {sys.version_info.major}."
                f"{sys.version_info.minor} understands ({' '.join(str(error).split())}); install without "
                "--compat, or put that right; nothing was changed"
            ) from error


def _plan_compat(
    root: Path, recorded: BlockRecord | None, is_wanted: bool
) -> tuple[list[Step], BlockRecord | None]:
    """Plan the block in ``MAIN_FILE``, or its removal where an earlier install had it."""
    if is_wanted:
        return _plan_block(root, MAIN_FILE, recorded)
    return ([] if recorded is None else [_block_removal(root, MAIN_FILE, recorded)]), None


def _block_removal(root: Path, file: str, record: BlockRecord) -> Step:
    path = root / file
    found = split_at_block(path)
    if not found.block:
        return Step("keep", f"{file} as it is: the limask block is gone", path)
    vouched(path, found.block, record)
    before = found.before
    if record.newline_added and not found.after:
        before = before.removesuffix(b"\n").removesuffix(b"\r")
    # Written, not removed: the file itself is the host's.
    return Step("remove", f"the limask block from {file}", path, before + found.after)


def plan_uninstall(root: Path, manifest: Manifest) -> list[Step]:
    steps = [_block_removal(root, file, record) for file, record in manifest.blocks().items()]
    for name, digest in manifest.files.items():
        steps += _plan_removal(root, name, digest)
    gone = {step.path for step in steps if step.verb == "remove"}
    for name in sorted(manifest.directories, reverse=True):
        folder = root / name
        if not folder.is_dir() or folder.is_symlink():
            continue
        left = sorted(entry.name for entry in folder.iterdir() if entry not in gone)
        if left:
            steps.append(Step("keep", f"{name}/: it holds {', '.join(left)}", folder))
        else:
            steps.append(Step("remove", f"{name}/", folder, folder=True))
            gone.add(folder)
    return steps


def _plan_removal(root: Path, name: str, digest: str) -> list[Step]:
    """Plan the removal of a file of limask's, with what Python compiled from it."""
    path = root / name
    state = file_state(path, digest)
    if state == "edited":
        return [Step("keep", f"{name}: you edited it, limask no longer tracks it", path)]
    cache = path.parent / "__pycache__"
    compiled = sorted(cache.glob(f"{path.stem}.*.pyc")) if path.suffix == ".py" else []
    steps = [Step("remove", name, path)] if state == "ok" else []
    steps += [Step("remove", pyc.relative_to(root).as_posix(), pyc) for pyc in compiled]
    if compiled and set(cache.iterdir()) == set(compiled):
        steps.append(Step("remove", f"{cache.relative_to(root).as_posix()}/", cache, folder=True))
    return steps
