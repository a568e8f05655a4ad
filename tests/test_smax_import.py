"""SMAX is imported alone and compiled once; what is kept is what was compiled, and nobody else's."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from limask import cache
from limask.envs import smax_import

#: Ten steps of two battles: a digest of all they show, and how many functions were compiled.
PLAY = """
import hashlib, sys
import jax.monitoring
import numpy as np
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
from limask.envs.smax import SmaxVector
battles = SmaxVector("3m", [1, 2])
shown = hashlib.sha256(battles.reset().obs.tobytes())
for t in range(10):
    step = battles.step(np.full((2, 3), 1 + t % 7))
    for array in (*step.observation, step.reward):
        shown.update(array.tobytes())
assert not [name for name in sys.modules if name.startswith("jaxmarl")]
print(shown.hexdigest(), events.count("/jax/compilation_cache/cache_misses"))
"""


def play(cache: Path) -> tuple[str, int]:
    """A digest of what was played, and how many functions it had to compile."""
    env = os.environ | {"XDG_CACHE_HOME": str(cache)}
    done = subprocess.run([sys.executable, "-c", PLAY], env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "rror reading" not in done.stderr and "rror writing" not in done.stderr
    digest, n_compiled = done.stdout.split()
    return digest, int(n_compiled)


@pytest.mark.skipif(find_spec("jaxmarl") is None, reason="needs jaxmarl, which SMAX is part of")
def test_battles_are_compiled_once_and_play_to_the_same_bits(tmp_path: Path) -> None:
    compiled, n_compiled = play(tmp_path)
    (folder,) = (tmp_path / "limask").iterdir()
    kept = {path.name for path in folder.glob("jit__step_one-*-cache")}
    assert len(kept) == 1 and folder.stat().st_mode & 0o777 == 0o700
    assert n_compiled > 2
    assert play(tmp_path) == (compiled, 0)
    assert {path.name for path in folder.glob("jit__step_one-*-cache")} == kept


def settings(chosen: str | None = None) -> Any:
    """jax as far as its settings go."""
    config = SimpleNamespace(jax_compilation_cache_dir=chosen)
    config.update = lambda name, value: setattr(config, name, value)
    return SimpleNamespace(config=config)


@pytest.mark.skipif(os.name == "nt", reason="needs permissions as on Unix")
def test_where_compiled_battles_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cache.cache_folder("smax")
    assert folder.parent == tmp_path / "limask"
    smax_import._keep_what_is_compiled(ours := settings())
    assert ours.config.jax_compilation_cache_dir == str(folder) and folder.is_dir()
    assert ours.config.jax_compilation_cache_max_size == 256 * 1024 * 1024
    smax_import._keep_what_is_compiled(theirs := settings("/elsewhere"))
    assert vars(theirs.config).keys() == {"jax_compilation_cache_dir", "update"}
    # jax runs what it finds: nothing is kept where others may write, nor where it cannot be.
    folder.chmod(0o777)
    smax_import._keep_what_is_compiled(unsafe := settings())
    assert unsafe.config.jax_compilation_cache_dir is None
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    smax_import._keep_what_is_compiled(nowhere := settings())
    assert nowhere.config.jax_compilation_cache_dir is None


def test_machines_of_other_instructions_keep_theirs_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cache, "_instructions", lambda: "flags: avx2")
    name = hashlib.sha256(b"flags: avx2").hexdigest()[:12]
    assert cache.cache_folder("smax") == tmp_path / f"limask/smax-{name}"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder("smax") == tmp_path / f".cache/limask/smax-{name}"
