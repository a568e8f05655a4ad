"""Checkouts for tests: those that LIMASK_TEST_HOSTS names, and small made-up ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from limask.errors import LimaskError
from limask.install.families import FAMILIES, family_of

NAMED = [Path(path) for path in os.environ.get("LIMASK_TEST_HOSTS", "").split(os.pathsep) if path]


def _key(checkout: Path) -> str:
    try:
        return family_of(checkout).key
    except LimaskError:
        return "unknown"


def by_family() -> list[Any]:
    """A parameter for each named checkout, and a skipped one, by its name, for each family without."""
    parameters = [pytest.param(path, id=f"{_key(path)}-{path.name}") for path in NAMED]
    for family in FAMILIES:
        if family.key not in map(_key, NAMED):
            reason = f"LIMASK_TEST_HOSTS names no checkout of {family.name}: it is not tested"
            parameters.append(pytest.param(None, id=family.key, marks=pytest.mark.skip(reason=reason)))
    return parameters


def make_checkout(root: Path, family: str = "epymarl", main: str = "", **files: str) -> Path:
    """A checkout that has what every one has, and the words of its family; ``files`` by their module's name,
    as ``envs__init`` for ``src/envs/__init__.py``."""
    for name in ("config/algs", "config/envs"):
        (root / "src" / name).mkdir(parents=True)
    for name in ("learners", "controllers", "modules/agents", "runners", "envs"):
        (root / "src" / name).mkdir(parents=True)
        (root / "src" / name / "__init__.py").write_text("REGISTRY = {}\n")
    (root / "src/run.py").write_text("")
    words = {found.key: found.words for found in FAMILIES}[family]
    for name, word in words.items():
        (root / name).write_text(f"# {word}\n")
    (root / "src/main.py").write_text(main)
    for name, text in files.items():
        (root / "src" / f"{name.replace('__init', '/__init__')}.py").write_text(text)
    return root


#: A masker of a user's own, and the file that names it.
_MASKER = """
import torch
from limask.masking import Masker

class HideEnemies(Masker):
    def propose(self, view, generator):
        kinds = [group.kind for group in self.layout.groups for _ in range(group.count)]
        return torch.tensor([kind == "enemy" for kind in kinds]).expand(view.is_visible.shape)
"""
_THIN_FILE = """
from limask.masking import REGISTRY
from .enemies import HideEnemies

REGISTRY["hide_enemies"] = HideEnemies
"""


def write_masker(checkout: Path) -> None:
    """What a user adds in ``src/modules/maskers``: masker ``hide_enemies`` hides every enemy, always."""
    folder = checkout / "src/modules/maskers"
    folder.mkdir(exist_ok=True)
    (folder / "enemies.py").write_text(_MASKER)
    (folder / "__init__.py").write_text(_THIN_FILE)
