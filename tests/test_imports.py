"""Data flows one way: a module imports only from modules to its left."""

from __future__ import annotations

import ast
from pathlib import Path

import limask

PACKAGE = Path(limask.__file__).parent

#: Modules from left to right; those in one tuple do not import each other, but a package its own modules.
FLOW = [
    ("compiled", "errors", "gru", "packing", "selectors", "targets"),
    ("options",),
    ("compat", "config", "memory", "resources", "sinks"),
    ("envs", "install"),
    ("layouts",),
    ("tokens",),
    ("masking", "teammates", "trunks"),
    ("entity_trunk",),
    ("autoencoder",),
    ("agent",),
    ("controller", "reconstruction", "signals", "team"),
    ("checkpoints",),
    ("learner", "runners", "wrap"),
    ("hosts",),
    ("doctor", "run", "experiments"),
    ("cli",),
    ("__main__",),
]
RANK = {name: rank for rank, names in enumerate(FLOW) for name in names}


def part_of(module: str) -> str:
    """``limask.masking.random`` → ``masking``; ``limask`` → ``""``."""
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> set[str]:
    """Parts of limask that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "limask":
            names = (
                [f"limask.{alias.name}" for alias in node.names] if node.module == "limask" else [node.module]
            )
            found |= {part_of(name) for name in names}
        elif isinstance(node, ast.Import):
            found |= {part_of(alias.name) for alias in node.names if alias.name.startswith("limask")}
    return found & RANK.keys()


def test_every_module_has_its_place_in_the_flow() -> None:
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")}
    assert parts - {"__init__"} == RANK.keys()


def test_no_arrow_points_the_wrong_way() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {there}"
        for path in PACKAGE.rglob("*.py")
        for here in [path.relative_to(PACKAGE).parts[0].removesuffix(".py")]
        for there in imports(path) - {here}
        if here in RANK and RANK[there] >= RANK[here]
    ]
    assert not wrong


def test_only_hosts_and_run_name_a_hosts_modules() -> None:
    names = ("pymarlzooplus", "learners", "controllers", "runners", "components", "modules", "epymarl")
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if here in ("hosts", "run"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            module = node.module if isinstance(node, ast.ImportFrom) and not node.level else None
            if module and module.split(".")[0] in names:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {module}")
    assert not wrong
