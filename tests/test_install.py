"""Install into, and uninstall from, small fake checkouts and the real ones that are named."""

import builtins
import contextlib
import errno
import hashlib
import importlib.util
import itertools
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from limask import __version__, resources
from limask import install as installer
from limask.errors import LimaskError
from limask.install import MANIFEST, REGISTRY_FILE, install, recovery, status, transaction, uninstall
from limask.install.families import FAMILIES, Family, family_of

ALG = "src/config/algs/qmix_lim.yaml"
ENV = "src/config/envs/masked.yaml"
MASKERS = "src/modules/maskers"
THIN = f"{MASKERS}/__init__.py"
MAIN = "src/main.py"
EPYMARL = FAMILIES[0].words
OURS = {ALG, ENV, THIN, MANIFEST}
HOST_CODE = b"from .q_learner import QLearner\n\nREGISTRY = {}\nREGISTRY['q_learner'] = QLearner\n"
# Calls that can fail for lack of room or permission; a test below checks the numbers.
INSTALL_CALLS = 21
UPGRADE_CALLS = 20
UNINSTALL_CALLS = 15

TEST_HOSTS = [Path(name) for name in os.environ.get("LIMASK_TEST_HOSTS", "").split(":") if name]


# --- helpers ------------------------------------------------------------------------


@pytest.fixture
def payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small config folder in place of the project's own."""
    config = tmp_path / "payload"
    for name, text in (("algs/qmix_lim.yaml", "name: qmix_lim\n"), ("envs/masked.yaml", "env: masked\n")):
        (config / name).parent.mkdir(parents=True)
        (config / name).write_text(text)
    (config / "campaigns").mkdir()
    (config / "campaigns/grid.yaml").write_text("not: copied\n")
    monkeypatch.setattr(resources, "config_dir", lambda: config)
    return config


@pytest.fixture
def host(tmp_path: Path, payload: Path) -> Path:
    """A committed checkout with what every PyMARL-family checkout has."""
    root = tmp_path / "host"
    for name in ("algs", "envs"):
        (root / "src/config" / name).mkdir(parents=True)
        (root / "src/config" / name / "own.yaml").write_text("own: 1\n")
    for name in ("learners", "controllers", "runners", "modules/agents"):
        (root / "src" / name).mkdir(parents=True)
        (root / "src" / name / "__init__.py").write_bytes(b"REGISTRY = {}\n")
    (root / "src/main.py").write_text("print('main')\n")
    (root / "src/run.py").write_text("print('run')\n")
    for name, word in EPYMARL.items():
        (root / name).write_text(f"# {word}\n")
    (root / REGISTRY_FILE).write_bytes(HOST_CODE)
    (root / REGISTRY_FILE).chmod(0o640)
    (root / ".gitignore").write_text("__pycache__/\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "start")
    return root


def git(root: Path, *args: str) -> str:
    user = ("-c", "user.name=tester", "-c", "user.email=tester@example.org", "-c", "core.autocrlf=false")
    return subprocess.run(
        ("git", "-C", str(root), *user, *args), check=True, capture_output=True, text=True
    ).stdout


def changed(root: Path) -> set[str]:
    lines = git(root, "status", "--porcelain", "-uall").splitlines()
    return {line[3:] for line in lines}


def tree(root: Path) -> dict[str, tuple[int, str]]:
    """Everything in a folder but git's own: mode, and contents or link target."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if name.split("/")[0] == ".git":
            continue
        if path.is_symlink():
            content = os.readlink(path)
        else:
            content = "" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
        found[name] = (stat.S_IMODE(path.lstat().st_mode), content)
    return found


@contextmanager
def unchanged(root: Path, message: str) -> Iterator[None]:
    """Expect a one-line LimaskError with the message and an untouched tree."""
    before = tree(root)
    with pytest.raises(LimaskError, match=message) as caught:
        yield
    assert "\n" not in str(caught.value)
    assert tree(root) == before


def registry(root: Path) -> Path:
    return root / REGISTRY_FILE


def edit(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))


class FailingDisk:
    """Counts the calls that change a disk and lets one of them fail.

    From that call on, nothing that needs room works; renames and removals do again.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail_at: int | None = None) -> None:
        self.calls = 0
        self._fail_at = fail_at
        for module, name in ((os, "mkdir"), (os, "fsync"), (builtins, "open")):
            monkeypatch.setattr(module, name, self._wrap(getattr(module, name), needs_room=True))
        for name in ("replace", "rename", "chmod"):
            monkeypatch.setattr(os, name, self._wrap(getattr(os, name), needs_room=False))

    def _wrap(self, real: Callable[..., Any], needs_room: bool) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if real is _real_open and "x" not in (*args, kwargs.get("mode", "r"))[1]:
                return real(*args, **kwargs)  # reading always works
            number, self.calls = self.calls, self.calls + 1
            if self._fail_at is not None and (
                number == self._fail_at or (needs_room and number > self._fail_at)
            ):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **kwargs)

        return call


_real_open = builtins.open


# --- install and uninstall ----------------------------------------------------------


def test_install_adds_only_what_is_ours_and_uninstall_restores_every_byte(host: Path) -> None:
    before = tree(host)
    lines = install(host)
    assert changed(host) == {*OURS, REGISTRY_FILE}
    assert registry(host).read_bytes().startswith(HOST_CODE + b"# >>> limask >>>\n# Added by")
    assert registry(host).read_bytes().endswith(b"\n# <<< limask <<<\n")
    assert stat.S_IMODE(registry(host).stat().st_mode) == 0o640
    assert f"added {ALG}" in lines and lines[-1].startswith(f"limask {__version__} is now installed")
    assert {path.name for path in host.rglob(".limask*")} == {".limask.json"}

    lines = uninstall(host)
    assert f"removed {THIN}" in lines
    assert tree(host) == before
    assert changed(host) == set()


def test_manifest_records_hashes_block_and_folders(host: Path) -> None:
    install(host)
    manifest = json.loads((host / MANIFEST).read_text())
    assert manifest["limask"] == __version__
    assert set(manifest["files"]) == OURS - {MANIFEST}
    assert manifest["files"][ALG] == hashlib.sha256((host / ALG).read_bytes()).hexdigest()
    assert manifest["block"]["file"] == REGISTRY_FILE
    assert manifest["block"]["newline_added"] is False
    assert manifest["directories"] == [MASKERS]


def test_new_files_get_the_modes_that_the_umask_gives(host: Path) -> None:
    before = os.umask(0o027)
    try:
        install(host)
    finally:
        os.umask(before)
    assert stat.S_IMODE((host / ALG).stat().st_mode) == 0o640


def test_second_install_changes_nothing_and_says_so(host: Path) -> None:
    install(host)
    before = tree(host)
    assert install(host) == [f"limask {__version__} is already installed in {host}"]
    assert tree(host) == before


def test_uninstall_without_install(host: Path) -> None:
    with unchanged(host, f"limask is not installed in {host}"):
        uninstall(host)


def test_dry_runs_change_nothing_and_tell_what_the_real_runs_do(host: Path) -> None:
    before = tree(host)
    would = install(host, dry_run=True)
    assert tree(host) == before
    assert would[0] == f"would add {MASKERS}/"
    assert [line.replace("would add", "added") for line in would[:-1]] == install(host)[:-1]

    before = tree(host)
    would = uninstall(host, dry_run=True)
    assert tree(host) == before
    assert [line.replace("would remove", "removed") for line in would[:-1]] == uninstall(host)[:-1]
    with unchanged(host, "not installed"):
        uninstall(host, dry_run=True)


# --- the registry file --------------------------------------------------------------


@pytest.mark.parametrize("ending", [b"", b"\n", b"\n\n"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_registry_keeps_newline_style_and_ending(host: Path, newline: bytes, ending: bytes) -> None:
    text = (HOST_CODE.rstrip(b"\n") + ending).replace(b"\n", newline)
    registry(host).write_bytes(text)
    install(host)
    installed = registry(host).read_bytes()
    assert installed.count(b"\n") == installed.count(newline)
    assert installed.count(b"\r") == (installed.count(b"\n") if newline == b"\r\n" else 0)
    assert b"# >>> limask >>>" in installed.splitlines()
    assert "already installed" in install(host)[-1]
    uninstall(host)
    assert registry(host).read_bytes() == text


@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_lines_added_after_the_install_stay(host: Path, ending: bytes) -> None:
    text = HOST_CODE.rstrip(b"\n") + ending
    registry(host).write_bytes(text)
    install(host)
    registry(host).write_bytes(b"import above\n" + registry(host).read_bytes() + b"REGISTRY['mine'] = 1\n")
    uninstall(host)
    below = HOST_CODE + b"REGISTRY['mine'] = 1\n"
    assert registry(host).read_bytes() == b"import above\n" + below


def test_uncommitted_changes_made_before_the_install_stay(host: Path) -> None:
    registry(host).write_bytes(HOST_CODE + b"REGISTRY['mine'] = 1  # \xe9\n")
    (host / "src/config/algs/own.yaml").write_text("own: 2\n")
    before, before_git = tree(host), changed(host)
    install(host)
    uninstall(host)
    assert (tree(host), changed(host)) == (before, before_git)


def test_a_registry_converted_to_other_newlines_is_still_ours(host: Path) -> None:
    install(host)
    edit(registry(host), b"\n", b"\r\n")
    assert status(host)[-1].endswith(": ok")
    uninstall(host)
    assert registry(host).read_bytes() == HOST_CODE.replace(b"\n", b"\r\n")


def test_edited_block_is_refused_by_both(host: Path) -> None:
    install(host)
    edit(registry(host), b"    _register_checkout()", b"    _register_checkout()\n    print(1)")
    for action in (install, uninstall):
        with unchanged(host, f"{REGISTRY_FILE}: the limask block was edited by hand.*delete the block"):
            action(host)
    assert status(host)[-1] == f"block in {REGISTRY_FILE}: edited"


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        (b"# <<< limask <<<\n", b"", "a start marker without an end marker"),
        (b"# >>> limask >>>\n", b"", "an end marker without a start marker"),
        (b"# >>> limask >>>\n", b"# >>> limask >>>\n# >>> limask >>>\n", "2 start markers and 1 end markers"),
        (HOST_CODE, HOST_CODE + b"# >>> limask >>>\n# <<< limask <<<\n", "2 start markers and 2 end markers"),
    ],
)
def test_damaged_markers_are_refused_by_both(host: Path, old: bytes, new: bytes, wrong: str) -> None:
    install(host)
    edit(registry(host), old, new)
    for action in (install, uninstall):
        for dry_run in (False, True):
            with unchanged(host, f"{REGISTRY_FILE}: the limask block is damaged: {wrong}"):
                action(host, dry_run=dry_run)
    assert f"damaged ({host}" in status(host)[-1]


def test_reversed_markers_are_refused(host: Path) -> None:
    registry(host).write_bytes(HOST_CODE + b"# <<< limask <<<\n# >>> limask >>>\n")
    with unchanged(host, "the end marker is above the start marker"):
        install(host)


def test_block_deleted_by_hand(host: Path) -> None:
    install(host)
    registry(host).write_bytes(HOST_CODE)
    assert status(host)[-1] == f"block in {REGISTRY_FILE}: missing"
    assert f"added the limask block in {REGISTRY_FILE}" in install(host)
    assert status(host)[-1] == f"block in {REGISTRY_FILE}: ok"

    registry(host).write_bytes(HOST_CODE)
    assert f"kept {REGISTRY_FILE} as it is: the limask block is gone" in uninstall(host)
    assert changed(host) == set()


def test_block_without_manifest_is_refused(host: Path) -> None:
    install(host)
    (host / MANIFEST).unlink()
    for name in OURS - {MANIFEST}:
        (host / name).unlink()
    with unchanged(host, f"a limask block that no {MANIFEST} records"):
        install(host)
    assert f"{REGISTRY_FILE}: has a limask block that no {MANIFEST} records" in status(host)


def test_block_registers_and_does_nothing_without_limask(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (resources.src_patch_dir() / "learners/__init__.py.block").read_text()
    calls: list[str] = []
    hosts = types.ModuleType("limask.hosts")
    hosts.register_checkout = lambda: calls.append("registered")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "limask.hosts", hosts)
    names: dict[str, Any] = {}
    exec(code, names)
    assert calls == ["registered"]
    assert all(name.startswith("_") for name in names)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "limask.hosts", None)  # importing it would fail
    exec(code, {})
    assert calls == ["registered"]


# --- files of ours and of the user --------------------------------------------------


def test_foreign_file_of_the_same_name_is_refused_even_if_identical(host: Path, payload: Path) -> None:
    (host / ALG).write_bytes((payload / "algs/qmix_lim.yaml").read_bytes())
    for dry_run in (False, True):
        with unchanged(host, f"{ALG} exists and is not limask's"):
            install(host, dry_run=dry_run)


def test_file_where_a_folder_is_needed_is_refused(host: Path) -> None:
    (host / MASKERS).write_text("mine\n")
    with unchanged(host, f"{MASKERS} is in the way"):
        install(host)


def test_edited_file_is_kept_and_named(host: Path) -> None:
    install(host)
    (host / ALG).write_text("name: mine\n")
    assert f"{ALG}: edited" in status(host)
    assert f"kept {ALG}: you edited it" in install(host)
    assert f"kept {ALG}: you edited it, limask no longer tracks it" in uninstall(host)
    assert changed(host) == {ALG}


def test_missing_file_is_put_back_or_ignored(host: Path) -> None:
    install(host)
    (host / ALG).unlink()
    assert f"{ALG}: missing" in status(host)
    assert install(host)[0] == f"added {ALG}"
    (host / ALG).unlink()
    uninstall(host)
    assert changed(host) == set()


def test_compiled_files_of_ours_go_and_the_users_folder_stays(host: Path) -> None:
    before = tree(host)
    install(host)
    cache = host / MASKERS / "__pycache__"
    cache.mkdir()
    (cache / "__init__.cpython-311.pyc").write_bytes(b"compiled")
    uninstall(host)
    assert tree(host) == before

    install(host)
    (host / MASKERS / "mine.py").write_text("mine = 1\n")
    assert f"kept {MASKERS}/: it holds mine.py" in uninstall(host)
    assert changed(host) == {f"{MASKERS}/mine.py"}


def test_folder_filled_during_the_uninstall_stops_it(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(host)
    late = host / MASKERS / "late.py"
    real = os.replace

    def fill_late(source: Path, target: Path) -> None:
        if source == late.parent:
            late.write_text("late = 1\n")
        real(source, target)

    with monkeypatch.context() as patch, pytest.raises(LimaskError, match=f"{MASKERS}: Directory not empty"):
        patch.setattr(os, "replace", fill_late)
        uninstall(host)
    assert changed(host) == {*OURS, REGISTRY_FILE, f"{MASKERS}/late.py"}


def test_folder_that_was_there_before_stays(host: Path) -> None:
    (host / MASKERS).mkdir()
    before = tree(host)
    install(host)
    uninstall(host)
    assert tree(host) == before


def test_upgrade_replaces_adds_and_drops_unedited_files(
    host: Path, payload: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(host)
    registry_before = registry(host).read_bytes()
    install(host)
    registry(host).write_bytes(registry(host).read_bytes() + b"REGISTRY['mine'] = 1\n")
    newer(payload, host.parent / "patch", monkeypatch)
    lines = install(host)
    assert lines[:3] == [f"replaced {ALG}", "added src/config/algs/vdn_lim.yaml", f"removed {ENV}"]
    assert lines[-1] == f"limask 99.0 is now installed in {host}"
    assert b"# a newer block\n" in registry(host).read_bytes()
    assert registry(host).read_bytes().endswith(b"# <<< limask <<<\nREGISTRY['mine'] = 1\n")
    assert install(host) == [f"limask 99.0 is already installed in {host}"]
    registry(host).write_bytes(registry(host).read_bytes().removesuffix(b"REGISTRY['mine'] = 1\n"))
    uninstall(host)
    assert registry(host).read_bytes() == registry_before
    assert tree(host) == before


def test_upgrade_keeps_what_the_user_edited(
    host: Path, payload: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(host)
    (host / ALG).write_text("name: mine\n")
    (host / ENV).write_text("env: mine\n")
    newer(payload, host.parent / "patch", monkeypatch)
    lines = install(host)
    assert f"kept {ALG}: you edited it" in lines
    assert f"kept {ENV}: you edited it, limask no longer tracks it" in lines
    assert (host / ALG).read_text() == "name: mine\n"
    uninstall(host)
    assert changed(host) == {ALG, ENV}


def newer(payload: Path, patch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn the payload into that of a later limask: one file changed, one new, one dropped."""
    (payload / "algs/qmix_lim.yaml").write_text("name: qmix_lim2\n")
    (payload / "algs/vdn_lim.yaml").write_text("name: vdn_lim\n")
    (payload / "envs/masked.yaml").unlink()
    shutil.copytree(resources.src_patch_dir(), patch)
    block = patch / "learners/__init__.py.block"
    block.write_text("# a newer block\n" + block.read_text())
    monkeypatch.setattr(resources, "src_patch_dir", lambda: patch)
    monkeypatch.setattr(installer, "__version__", "99.0")


def test_links_are_written_through(host: Path) -> None:
    real = host / "src/real_registry.py"
    registry(host).rename(real)
    registry(host).symlink_to("../real_registry.py")
    link = host.parent / "link"
    link.symlink_to(host)
    before = tree(host)
    install(link)
    assert registry(host).is_symlink() and b"limask" in real.read_bytes()
    assert "is installed" in status(link)[0]
    uninstall(link)
    assert tree(host) == before


# --- manifest and status ------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "{ no json",
        "[]",
        "{}",
        '{"limask": 1, "files": {}, "block": {}, "directories": []}',
        None,
    ],
)
def test_damaged_manifest_is_refused(host: Path, text: str | None) -> None:
    install(host)
    if text is None:  # right shape, but it points outside the checkout's sources
        text = (host / MANIFEST).read_text().replace(ALG, "src/../../elsewhere.yaml")
    (host / MANIFEST).write_text(text)
    for action in (install, uninstall, status):
        with unchanged(host, f"{MANIFEST} is damaged"):
            action(host)


def test_status(host: Path, payload: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert status(None) == [f"limask {__version__}", f"config: {payload}"]
    assert status(host) == [f"limask is not installed in {host}"]
    install(host)
    assert status(host) == [
        f"limask {__version__} is installed in {host}",
        f"{ALG}: ok",
        f"{ENV}: ok",
        f"{THIN}: ok",
        f"block in {REGISTRY_FILE}: ok",
    ]
    monkeypatch.setattr(installer, "__version__", "99.0")
    assert status(host)[1] == "this is limask 99.0: `limask install` would update it"


# --- refusals -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "src/main.py",
        "src/run.py",
        "src/learners/__init__.py",
        "src/modules/agents",
        "src/controllers",
        "src/runners",
        "src/config/algs",
        "src/config/envs",
    ],
)
def test_missing_part_of_a_host_is_named(host: Path, name: str) -> None:
    path = host / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    for action in (install, status):
        with unchanged(host, f"is not a PyMARL-family checkout: it lacks {name}"):
            action(host)


def test_registry_file_without_registry_is_refused(host: Path) -> None:
    registry(host).write_bytes(b"learners = {}\n")
    with unchanged(host, f"it lacks REGISTRY in {REGISTRY_FILE}"):
        install(host)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.key)
def test_a_family_is_told_from_the_others_by_its_words(host: Path, family: Family) -> None:
    for name in EPYMARL:
        (host / name).unlink()
    for name, word in family.words.items():
        (host / name).write_text(f"{word}\n")
    assert family_of(host) == family
    assert "is now installed" in install(host)[-1]


def test_a_family_without_an_adapter_is_refused(host: Path) -> None:
    for name in EPYMARL:
        (host / name).write_text("# another family\n")
    with unchanged(host, "has no adapter for: .* is like that of EPyMARL 2.0.0 or later, .*, PyMARL;"):
        install(host)
    for name in EPYMARL:
        (host / name).unlink()
    with unchanged(host, "has no adapter for"):
        install(host)


# --- old hosts ----------------------------------------------------------------------

OLD_MAIN = b"#!/usr/bin/env python\nimport collections\nimport yaml\n\n\nload = yaml.load(f)\n"


HEADS = {
    "byte order mark": b"\xef\xbb\xbfimport os\nX = 1\n",
    "byte order mark and coding": b"\xef\xbb\xbf# coding: utf-8\nfrom __future__ import annotations\nX = 1\n",
    "future over lines": b"from __future__ import (\n    annotations,\n    division,\n)\nX = 1\n",
    "future with a backslash": b"from __future__ import annotations, \\\n    division\nX = 1\n",
    "future below a docstring": b'"""About\n\nit."""\n\nfrom __future__ import annotations\nX = 1\n',
    "coding in a function": b"X = 1\n\n\ndef f():\n    pass\n    # coding: not of this file\n    return 1\n",
    "coding in the second line": b"#!/usr/bin/python\n# coding: latin-1\nX = '\xe9'\n",
    "future in a text": b'X = """\nfrom __future__ import annotations\n"""\n',
    "carriage returns alone": b"from __future__ import annotations\rX = 1\r",
    "no last newline": b"#!/usr/bin/python",
    "form feed": b"from __future__ import annotations\n\x0cX = 1\n",
}


@pytest.mark.parametrize("text", HEADS.values(), ids=HEADS)
def test_compat_finds_the_head_of_any_program(host: Path, text: bytes) -> None:
    """It compiles with the block, which stands above all else that runs, and every byte comes back."""
    (host / MAIN).write_bytes(text)
    install(host, with_compat=True)
    there = (host / MAIN).read_bytes()
    compile(there, MAIN, "exec", dont_inherit=True)
    block = there.index(b"# >>> limask >>>")
    assert not re.search(rb"^X = ", there[:block], re.MULTILINE) and there.count(b"# >>> limask >>>") == 1
    assert "block in src/main.py: ok" in status(host)
    assert install(host, with_compat=True)[-1].endswith(f"already installed in {host}")
    uninstall(host)
    assert (host / MAIN).read_bytes() == text


@pytest.mark.parametrize("text", [b"print 'old'\n", b"x = (\n", b"\0", b"# coding: nonsense\n"])
def test_compat_refuses_what_is_no_program(host: Path, text: bytes) -> None:
    (host / MAIN).write_bytes(text)
    with unchanged(host, "src/main.py: it is no program that Python .* understands"):
        install(host, with_compat=True)


@pytest.mark.parametrize("ending", [b"\r", b"\n\r", b"\r\n\r"])
def test_a_carriage_return_at_the_end_of_the_registry_stays(host: Path, ending: bytes) -> None:
    registry(host).write_bytes(HOST_CODE.rstrip() + ending)
    before = tree(host)
    install(host)
    uninstall(host)
    assert tree(host) == before


@pytest.mark.parametrize("text", [OLD_MAIN, OLD_MAIN.replace(b"\n", b"\r\n"), b"#!python", b""])
def test_compat_is_a_block_at_the_head_of_main_and_goes_with_it(host: Path, text: bytes) -> None:
    (host / MAIN).write_bytes(text)
    before = tree(host)
    install(host, with_compat=True)
    first, *lines = (host / MAIN).read_bytes().splitlines()
    assert first == (b"#!/usr/bin/env python" if text.startswith(b"#!/") else text or b"# >>> limask >>>")
    assert b"    _apply_compat(_Path(__file__).resolve().parent)" in lines
    assert lines[-4:] == text.splitlines()[-4:] or len(text) < 10
    assert status(host)[-1] == f"block in {MAIN}: ok"
    assert "already installed" in install(host, with_compat=True)[-1]
    uninstall(host)
    assert tree(host) == before


def test_compat_goes_when_an_install_no_longer_asks_for_it(host: Path) -> None:
    (host / MAIN).write_bytes(OLD_MAIN)
    install(host)
    without = tree(host)
    assert f"added the limask block in {MAIN}" in install(host, with_compat=True)
    lines = install(host)
    assert f"removed the limask block from {MAIN}" in lines
    assert tree(host) == without
    assert "src/main.py does not start with the packages installed here (yaml.load)" in lines[-2]


def test_an_edited_compat_block_is_refused(host: Path) -> None:
    install(host, with_compat=True)
    edit(host / MAIN, b"    _apply_compat(", b"    print(")
    for action in (install, uninstall):
        with unchanged(host, f"{MAIN}: the limask block was edited by hand"):
            action(host)


def test_compat_block_applies_and_does_nothing_without_limask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (resources.src_patch_dir() / "main.py.block").read_text()
    applied: list[Path] = []
    stand_in = types.ModuleType("limask.compat")
    stand_in.apply = applied.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "limask.compat", stand_in)
    names: dict[str, Any] = {"__file__": str(tmp_path / "main.py")}
    exec(code, names)
    assert applied == [tmp_path]
    assert all(name.startswith("_") for name in names)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    exec(code, {"__file__": str(tmp_path / "main.py")})
    assert applied == [tmp_path]


def test_run_may_be_a_package(host: Path) -> None:
    (host / "src/run.py").unlink()
    (host / "src/run").mkdir()
    assert "is now installed" in install(host)[-1]


@pytest.mark.parametrize("action", [install, uninstall, status])
def test_paths_that_are_no_checkout(host: Path, action: Callable[[Path], list[str]]) -> None:
    with unchanged(host, "absent does not exist"):
        action(host / "absent")
    with unchanged(host, "main.py is a file"):
        action(host / "src/main.py")
    with unchanged(host, f"is the source folder of a checkout; give the checkout: {host}$"):
        action(host / "src")


def test_unwritable_folder_is_told_before_anything_is_tried(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = host / "src/config/envs"
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != locked and real(path, mode))
    for dry_run in (False, True):
        with unchanged(host, f"{locked} is not writable"):
            install(host, dry_run=dry_run)


# --- killed half-way ----------------------------------------------------------------


def killed_at(number: int, action: Callable[[Path], object], host: Path) -> bool:
    """Whether a process that runs ``action`` was killed before its call ``number`` that changes a disk."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    calls = [0]

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            is_read = real is _real_open and "x" not in (*args, kwargs.get("mode", "r"))[1]
            if not is_read:
                if calls[0] == number:
                    os._exit(9)
                calls[0] += 1
            return real(*args, **kwargs)

        return call

    try:
        for name in ("mkdir", "fsync", "replace", "rename", "chmod", "link", "unlink", "rmdir"):
            setattr(os, name, wrap(getattr(os, name)))
        builtins.open = wrap(_real_open)  # type: ignore[assignment]
        action(host)
    finally:
        os._exit(0)


def kill_points(action: Callable[[Path], object], host: Path) -> Iterator[int]:
    """Run ``action`` on copies of a checkout that are killed at one call after the other; yields the number,
    with the copy in the checkout's place."""
    whole = host.with_name("whole")
    shutil.copytree(host, whole, symlinks=True)
    for number in itertools.count():
        if not killed_at(number, action, host):
            assert number > 5
            return
        yield number
        shutil.rmtree(host)
        shutil.copytree(whole, host, symlinks=True)


def test_an_install_that_was_killed_can_be_made_and_unmade(host: Path) -> None:
    before = tree(host)
    install(host)
    installed = tree(host)
    uninstall(host)
    assert tree(host) == before
    for number in kill_points(install, host):
        assert git(host, "diff", "--stat") == "" or REGISTRY_FILE in git(host, "diff", "--stat")
        was_interrupted = bool(recovery.interrupted(host))
        assert any("left by an interrupted command" in line for line in status(host)) == was_interrupted
        with contextlib.suppress(LimaskError):  # it was undone, and is not installed
            uninstall(host)
        assert tree(host) == before, number
        install(host)
        assert tree(host) == installed, number


def test_an_install_that_was_killed_can_be_made_again_at_once(host: Path) -> None:
    install(host)
    installed = tree(host)
    uninstall(host)
    for number in kill_points(install, host):
        install(host)
        assert tree(host) == installed, number


def test_an_upgrade_that_was_killed_ends_as_any_other(
    host: Path, payload: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(host)
    install(host)
    newer(payload, host.parent / "patch", monkeypatch)
    for number in kill_points(install, host):
        assert install(host)[-1].startswith("limask ")
        assert not recovery.interrupted(host)
        uninstall(host)
        assert tree(host) == before, number


def test_an_uninstall_that_was_killed_can_be_made_again(host: Path) -> None:
    install(host)
    compile_thin_file(host)
    for number in kill_points(uninstall, host):
        with contextlib.suppress(LimaskError):  # all of it had been done
            uninstall(host)
        assert changed(host) == set(), number
        assert not recovery.interrupted(host)


def test_other_names_of_a_file_stay_the_same_file(host: Path) -> None:
    """Whether all goes well, or a command is killed."""
    other = host.parent / "other name"
    os.link(registry(host), other)
    before = tree(host)
    install(host)
    assert other.read_bytes() == registry(host).read_bytes() != HOST_CODE
    assert other.samefile(registry(host))
    uninstall(host)
    assert tree(host) == before and other.samefile(registry(host))
    for number in itertools.count():
        if not killed_at(number, install, host):
            break
        with contextlib.suppress(LimaskError):
            uninstall(host)
        assert tree(host) == before, number
        assert other.samefile(registry(host)), number
    assert number > 5


def test_files_that_changed_after_the_kill_are_kept(host: Path) -> None:
    for _ in kill_points(install, host):
        if registry(host).read_bytes() != HOST_CODE:
            break
    registry(host).write_bytes(registry(host).read_bytes() + b"MINE = 1\n")
    with pytest.raises(LimaskError, match="a limask block that no .*records"):
        install(host)
    assert registry(host).read_bytes().endswith(b"MINE = 1\n")


def test_a_dry_run_undoes_nothing(host: Path) -> None:
    for _ in kill_points(install, host):
        if recovery.interrupted(host):
            break
    for action in (install, uninstall):
        with unchanged(host, "a command was interrupted there.*run that without --dry-run"):
            action(host, dry_run=True)


def test_a_damaged_journal_is_refused(host: Path) -> None:
    stash = host / "src/.limask-left"
    stash.mkdir()
    for text in ("{", "[1]", '[{"path": 1}]', '[{"path": "a", "verb": "explode"}]'):
        (stash / recovery.JOURNAL).write_text(text)
        with unchanged(host, "journal.json is damaged.*put the old files in that folder back by hand"):
            install(host)


def test_two_commands_do_not_meet(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "LOCK_SECONDS", 0.1)
    with recovery.held(host / "src"), unchanged(host, "another limask install or uninstall is at work"):
        install(host)
    install(host)


# --- failing half-way ---------------------------------------------------------------


def test_the_number_of_failing_calls_tried_below_is_all_of_them(
    host: Path, payload: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases: list[tuple[Callable[[], None], Callable[[Path], list[str]]]] = [
        (lambda: None, install),
        (lambda: newer(payload, host.parent / "patch", monkeypatch), install),
        (lambda: compile_thin_file(host), uninstall),
    ]
    counts = []
    for prepare, action in cases:
        prepare()
        with monkeypatch.context() as patch:
            disk = FailingDisk(patch)
            action(host)
        counts.append(disk.calls)
    assert counts == [INSTALL_CALLS, UPGRADE_CALLS, UNINSTALL_CALLS]


@pytest.mark.parametrize("fail_at", range(INSTALL_CALLS))
def test_failing_install_leaves_no_trace(host: Path, monkeypatch: pytest.MonkeyPatch, fail_at: int) -> None:
    with unchanged(host, "No space left on device.*nothing was changed"), monkeypatch.context() as patch:
        FailingDisk(patch, fail_at)
        install(host)
    assert changed(host) == set()


@pytest.mark.parametrize("fail_at", range(UPGRADE_CALLS))
def test_failing_upgrade_leaves_the_earlier_install(
    host: Path, payload: Path, monkeypatch: pytest.MonkeyPatch, fail_at: int
) -> None:
    install(host)
    newer(payload, host.parent / "patch", monkeypatch)
    with unchanged(host, "No space left on device.*nothing was changed"), monkeypatch.context() as patch:
        FailingDisk(patch, fail_at)
        install(host)


@pytest.mark.parametrize("fail_at", range(UNINSTALL_CALLS))
def test_failing_uninstall_leaves_the_install(
    host: Path, monkeypatch: pytest.MonkeyPatch, fail_at: int
) -> None:
    install(host)
    compile_thin_file(host)
    with unchanged(host, "No space left on device.*nothing was changed"), monkeypatch.context() as patch:
        FailingDisk(patch, fail_at)
        uninstall(host)
    uninstall(host)
    assert changed(host) == set()


def compile_thin_file(host: Path) -> None:
    cache = host / MASKERS / "__pycache__"
    cache.mkdir()
    (cache / "__init__.cpython-311.pyc").write_bytes(b"compiled")


def test_interrupt_restores_everything(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(host)

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", interrupted)
        install(host)
    assert tree(host) == before


def test_a_folder_of_old_files_that_cannot_be_removed_is_named(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
    lines = install(host)
    (stash,) = host.glob("src/.limask-*")
    assert f"could not remove {stash}: delete it by hand" in lines


def test_file_systems_without_links(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    before = tree(host)
    real, calls = os.replace, []

    def fail_last(source: Path, target: Path) -> None:
        calls.append(target)
        if target.name == ".limask.json":
            raise OSError(errno.EIO, "broken")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refused)
        patch.setattr(os, "replace", fail_last)
        with pytest.raises(LimaskError, match="broken"):
            install(host)
    assert registry(host) in calls
    assert tree(host) == before


@pytest.mark.parametrize("fails", [False, True])
def test_folders_linked_from_another_disk(host: Path, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    before = tree(host)
    install(host)
    installed = tree(host)
    real_replace, real_rename = os.replace, os.rename

    def across(real: Callable[..., None]) -> Callable[..., None]:
        def call(source: Path, target: Path) -> None:
            if fails and Path(source).name == ".limask.json":
                raise OSError(errno.EIO, "broken")
            if {Path(source).parent, Path(target).parent} != {Path(source).parent} and ".limask-" in (
                Path(source).parent.name + Path(target).parent.name
            ):
                raise OSError(errno.EXDEV, "another disk")
            real(source, target)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", across(real_replace))
        patch.setattr(os, "rename", across(real_rename))
        if fails:
            with pytest.raises(LimaskError, match="broken"):
                uninstall(host)
        else:
            uninstall(host)
    assert tree(host) == (installed if fails else before)


def test_what_cannot_be_restored_is_named_and_its_contents_kept(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EIO, "broken disk")

    real = os.replace

    def fail_last(source: Path, target: Path) -> None:
        fail() if target.name == ".limask.json" else real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail_last)
        patch.setattr(transaction, "_move", fail)
        with pytest.raises(LimaskError, match=f"could not be put back: {registry(host)}"):
            install(host)
    (saved,) = host.glob("src/.limask-*/[0-9]*")
    assert saved.read_bytes() == HOST_CODE


# --- the project's own data, and real checkouts -------------------------------------


def test_resources_in_a_source_tree_and_in_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "limask"
    package.mkdir(parents=True)
    monkeypatch.setattr(resources, "__file__", str(package / "resources.py"))
    for find, source, packaged in (
        (resources.config_dir, "config", "configs"),
        (resources.src_patch_dir, "src_patch", "src_patch"),
    ):
        with pytest.raises(LimaskError, match="reinstall limask"):
            find()
        (package.parent / source).mkdir()
        assert find() == package.parent / source
        (package / packaged).mkdir()
        assert find() == package / packaged


@pytest.mark.parametrize("source", TEST_HOSTS or [None], ids=lambda path: path.name if path else "unset")
def test_real_checkout(source: Path | None, tmp_path: Path) -> None:
    if source is None:
        pytest.skip("LIMASK_TEST_HOSTS is unset: install and uninstall are not tried on real checkouts")
    root = tmp_path / "checkout"
    shutil.copytree(source, root, symlinks=True)
    before, before_git = tree(root), changed(root)
    install(root, with_compat=True)
    manifest = json.loads((root / MANIFEST).read_text())
    assert changed(root) - before_git == {*manifest["files"], MANIFEST, REGISTRY_FILE, MAIN}
    assert all(line.endswith(": ok") for line in status(root)[1:])
    assert "already installed" in install(root, with_compat=True)[-1]
    uninstall(root)
    assert (tree(root), changed(root)) == (before, before_git)
