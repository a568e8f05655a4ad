"""Carrying out a plan: all of it happens, or the checkout is as it was."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from limask.errors import LimaskError
from limask.install.plan import Step
from limask.install.recovery import (
    JOURNAL,
    STASH,
    has_links,
    overwrite,
    saved_of,
    target_of,
    temporary_of,
    write_journal,
)


class _Transaction:
    """Changes that are all undone when one fails; the undoing needs no room on the disk."""

    def __init__(self, root: Path, steps: list[Step]) -> None:
        self._root, self._steps = root, steps
        self._undo = ExitStack()
        self._stuck: list[str] = []

    def __enter__(self) -> _Transaction:
        self.stash = Path(tempfile.mkdtemp(prefix=STASH, dir=self._root / "src"))
        try:
            write_journal(self._root, self.stash, self._steps)
        except BaseException:
            shutil.rmtree(self.stash, ignore_errors=True)
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._undo.close()
        if self._stuck:
            raise LimaskError(
                f"{error}; then these could not be put back: {', '.join(self._stuck)}; put them "
                f"back by hand, old contents are in {self.stash}"
            ) from error
        # Without its journal a transaction is over: if we are killed now, the rest is only swept away.
        with suppress(OSError):
            (self.stash / JOURNAL).unlink()
        shutil.rmtree(self.stash, ignore_errors=True)

    def prepare(self, step: Step) -> None:
        """Do what needs room or permission, before any file of the checkout changes."""
        if step.folder and step.verb == "add":
            os.mkdir(step.path)
            self._on_failure(step.path, partial(os.rmdir, step.path))
        elif step.data is not None:
            target, temp = self._target_and_temp(step)
            self._on_failure(temp, partial(temp.unlink, missing_ok=True))
            with open(temp, "xb") as stream:
                stream.write(step.data)
                stream.flush()
                os.fsync(stream.fileno())
            if target.exists():
                _copy_mode_and_owner(target, temp)

    def finish(self, number: int, step: Step) -> None:
        """Make the change that was prepared, the one of that number."""
        if step.data is not None:
            target, temp = self._target_and_temp(step)
            if target.exists():
                is_linked = has_links(target)
                saved = self._saved_name(number, target, is_linked)
                # A link keeps everything about the old file; not every file system has links.
                try:
                    if is_linked:  # and is written to
                        raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
                    os.link(target, saved)
                except OSError:
                    part = saved.with_name(f"{saved.name}.part")
                    shutil.copy2(target, part)
                    os.replace(part, saved)  # what is there is whole
                if is_linked:
                    overwrite(temp, target)
                    return
            else:
                self._on_failure(target, partial(target.unlink, missing_ok=True))
            os.replace(temp, target)
        elif step.verb == "remove":
            saved = self._saved_name(number, step.path)
            _move(step.path, saved)
            if step.folder and os.listdir(saved):  # filled since it was found empty
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(step.path))

    def _target_and_temp(self, step: Step) -> tuple[Path, Path]:
        target = target_of(step.path)
        return target, temporary_of(self.stash, target)

    def _saved_name(self, number: int, path: Path, is_linked: bool = False) -> Path:
        """Name a place for the old file, from which a failure brings it back."""
        saved = saved_of(self.stash, number, path)

        def bring_back() -> None:
            if is_linked and saved.exists():
                overwrite(saved, path)
            elif os.path.lexists(saved):
                _move(saved, path)

        self._on_failure(path, bring_back)
        return saved

    def _on_failure(self, path: Path, action: Callable[[], object]) -> None:
        def attempt() -> None:
            try:
                action()
            except OSError:
                self._stuck.append(str(path))

        self._undo.callback(attempt)


def carry_out(root: Path, steps: list[Step], dry_run: bool) -> list[str]:
    """Make all planned changes or none; returns what was, or would be, done."""
    told = [step.line(dry_run) for step in steps]
    changes = [step for step in steps if step.verb != "keep"]
    _refuse_unwritable(changes)
    if dry_run:
        return told
    with _Transaction(root, changes) as transaction:
        for step in changes:
            transaction.prepare(step)
        for number, step in enumerate(changes):
            transaction.finish(number, step)
    if transaction.stash.exists():
        told.append(f"could not remove {transaction.stash}: delete it by hand")
    return told


def _refuse_unwritable(steps: list[Step]) -> None:
    for step in steps:
        path = step.path if step.data is None else step.path.resolve()
        folder = next(parent for parent in path.parents if parent.exists())
        if not os.access(folder, os.W_OK):
            raise LimaskError(
                f"{folder} is not writable; expected a checkout that can be changed; make it "
                "writable and run again; nothing was changed"
            )


def _copy_mode_and_owner(source: Path, target: Path) -> None:
    found = source.stat()
    os.chmod(target, stat.S_IMODE(found.st_mode))
    with suppress(OSError, AttributeError):  # only root may, and Windows has no owners
        os.chown(target, found.st_uid, found.st_gid)


def _move(source: Path, target: Path) -> None:
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.move(source, target)  # a linked folder may be on another disk


@contextmanager
def os_errors_told(checkout: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LimaskError(
            f"{error.filename or checkout}: {error.strerror or error}; expected a checkout that can be "
            "read and written, on a disk with room; nothing was changed; put that right and run again"
        ) from error
