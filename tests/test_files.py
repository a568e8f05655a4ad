"""Files are whole or not there, and nobody can have them written elsewhere."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from limask import files


def test_a_planted_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "guessed")
    (tmp_path / ".runs.csv.guessed.tmp").symlink_to(victim)
    with pytest.raises(FileExistsError):
        files.write_text(tmp_path / "runs.csv", "theirs")
    assert victim.read_text() == "mine" and not (tmp_path / "runs.csv").exists()


def test_names_of_temporary_files_cannot_be_guessed(tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        files.replace(tmp_path / "a", lambda path: seen.append(path.name) or path.write_text("b"))
    assert seen[0] != seen[1] and all(len(name) > 20 for name in seen)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_files_have_the_permissions_that_any_file_has(tmp_path: Path) -> None:
    files.write_text(tmp_path / "ours", "text")
    (tmp_path / "theirs").write_text("text")
    ours, theirs = (stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("ours", "theirs"))
    assert ours == theirs


def test_a_write_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a", "before")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        files.replace(tmp_path / "a", fail)
    assert (tmp_path / "a").read_text() == "before" and len(list(tmp_path.iterdir())) == 1
