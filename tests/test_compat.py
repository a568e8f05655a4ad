"""Shims for old hosts: found where they are needed, applied in one process, and told."""

from __future__ import annotations

import collections
import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkout_parts import make_checkout

from limask import compat
from limask.cli import main

ROOT = Path(__file__).resolve().parents[1]

#: What the old hosts' main.py does before anything else, and what each line needs.
OLD = """
import collections
import yaml
from envs import REGISTRY

with open(__file__.replace("main.py", "config/default.yaml")) as f:
    config = yaml.load(f)
print(isinstance(config, collections.Mapping), config["lr"], sorted(REGISTRY))
"""
GAME = """
from pathlib import Path

import no_such_game
from no_such_game.env import StarCraft2Env, maps
from no_such_game.env.maps import registry
registry.update({"3m": 1})
assert not list(Path(no_such_game.__path__[0]).glob("**/*.py"))

class Ours(StarCraft2Env):
    def __init__(self, map_name):
        self.params = maps.get_map_params(map_name)

REGISTRY = {"theirs": StarCraft2Env, "ours": Ours}
"""


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compat, "_GAMES", ("no_such_game",))
    root = make_checkout(tmp_path / "old", "pymarl", OLD, envs__init=GAME)
    (root / "src/config/default.yaml").write_text("lr: 0.5\n")
    return root


def names(source: Path) -> list[str]:
    return [shim.name for shim in compat.needed(source)]


def python(source: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own: shims stay in the one that applies them."""
    setup = "from limask import compat; compat._GAMES = ('no_such_game',);"
    setup += f"from pathlib import Path; source = Path({str(source)!r}); import sys;"
    setup += "sys.path.insert(0, str(source));"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", setup + code], env=env, text=True, capture_output=True, timeout=60
    )


def test_an_old_host_needs_every_shim_and_starts_with_them(old: Path) -> None:
    assert names(old / "src") == ["yaml.load", "collections.Mapping", "no_such_game"]
    run = "import runpy; runpy.run_path(str(source / 'main.py'), run_name='__main__')"
    assert python(old / "src", run).returncode == 1
    done = python(old / "src", "compat.apply(source);" + run)
    assert done.stdout == "True 0.5 ['ours', 'theirs']\n", done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("limask compat: ")]
    assert [line.split(": ")[1] for line in told][:3] == ["yaml.load", "collections.Mapping", "no_such_game"]
    assert not hasattr(collections, "Mapping"), "a shim left its process"


def test_stand_ins_cannot_be_played(old: Path) -> None:
    for name in ("theirs", "ours"):
        play = f"compat.apply(source); from envs import REGISTRY; (lambda: REGISTRY[{name!r}]('3m'))()"
        done = python(old / "src", play)
        assert done.returncode == 1
        last = done.stderr.strip().splitlines()[-1]
        assert "LimaskError: no_such_game.env" in last
        assert "the package no_such_game is not installed: install it" in last


def test_what_the_host_itself_tries_or_never_imports_needs_nothing(old: Path) -> None:
    (old / "src/envs/__init__.py").write_text(
        "try:\n    import no_such_game\nexcept ImportError:\n    pass\n"
    )
    (old / "src/envs/unused.py").write_text("import no_such_game\n")
    assert names(old / "src") == ["yaml.load", "collections.Mapping"]
    (old / "src/envs/__init__.py").write_text("from . import used\n")
    (old / "src/envs/used.py").write_text("from ..envs.unused import StarCraft2Env\n")
    assert names(old / "src") == ["yaml.load", "collections.Mapping", "no_such_game"]


def test_a_host_of_today_needs_nothing(tmp_path: Path) -> None:
    text = "from collections.abc import Mapping\nimport yaml\nyaml.load(f, Loader=yaml.SafeLoader)\n"
    assert names(make_checkout(tmp_path / "new", main=text) / "src") == []


@pytest.mark.parametrize(
    ("protobuf", "implementation", "imported", "is_needed"),
    [
        ("7.36.2", "", "import s2clientprotocol\n", True),
        ("7.36.2", "", "", False),
        ("3.20.1", "", "import s2clientprotocol\n", False),
        ("7.36.2", "python", "import s2clientprotocol\n", False),
    ],
)
def test_protobuf_reads_old_messages_in_python(
    protobuf: str,
    implementation: str,
    imported: str,
    is_needed: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compat, "_GAMES", ())
    monkeypatch.setattr(compat, "version", {"protobuf": protobuf, "s2clientprotocol": "5.0"}.__getitem__)
    monkeypatch.setenv("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", implementation)
    source = make_checkout(tmp_path / "host", main="import envs\n", envs__init=imported) / "src"
    assert names(source) == (["protobuf"] if is_needed else [])
    compat.apply(source)
    expected = "python" if protobuf.startswith("7") else implementation
    assert os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] == expected


def test_run_without_the_flag_names_it_and_runs_nothing(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "--host", str(old), "--config=qmix_lim", "--env-config=smax"]
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert "add --compat" in told.err
    assert "(yaml.load, collections.Mapping, no_such_game)" in told.err
    assert told.err.count("\n") == 1
