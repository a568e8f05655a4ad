"""Data flows one way: a part of the package imports only from parts to its left, and no circle is left."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import limask

PACKAGE = Path(limask.__file__).parent

#: Parts from left to right; those in one tuple do not import each other, but a package its own modules.
FLOW = [
    ("cache", "errors", "protocols", "version"),
    ("compat", "config", "envs", "files", "memory", "requirements", "resources"),
    ("install", "layouts", "resumable"),
    ("faults", "masking", "networks"),
    ("autoencoder",),
    ("acting",),
    ("learning",),
    ("hosts",),
    ("experiments",),
    ("api", "dispatch"),
    ("cli",),
    ("__main__",),
]

#: The same inside ``limask.experiments``.
FLOW_OF_EXPERIMENTS = [
    ("display", "metrics", "statistics", "storage"),
    ("campaign", "hosted"),
    ("bench", "evaluation", "launch"),
    ("report",),
]

#: Modules of hosts, which their adapters alone know.
OF_HOSTS = ("pymarlzooplus", "learners", "controllers", "runners", "components", "modules", "epymarl")


def module_of(path: Path) -> str:
    """``…/limask/masking/random.py`` → ``limask.masking.random``; a package has its folder's name."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def imported(path: Path) -> Iterator[str]:
    """Modules that a file imports anywhere in it: in functions and for type checkers too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{path}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def part_of(module: str, package: str) -> str:
    """``limask.masking.random`` in ``limask`` → ``masking``; what lies outside, or is it → ""."""
    return module.removeprefix(f"{package}.").split(".")[0] if module.startswith(f"{package}.") else ""


@pytest.mark.parametrize(
    ("package", "flow"),
    [("limask", FLOW), ("limask.experiments", FLOW_OF_EXPERIMENTS)],
    ids=["limask", "experiments"],
)
def test_data_flows_from_left_to_right(package: str, flow: list[tuple[str, ...]]) -> None:
    rank = {name: place for place, names in enumerate(flow) for name in names}
    parts = {module: part_of(module, package) for module in MODULES}
    assert set(parts.values()) - {""} == rank.keys()
    wrong = [
        f"{module} imports {other}"
        for module, here in parts.items()
        if here
        for other in imported(MODULES[module])
        if (there := part_of(other, package)) not in ("", here) and rank[there] >= rank[here]
    ]
    assert not wrong


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        module: {other for other in imported(path) if other in MODULES and other != module}
        for module, path in MODULES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"in a circle: {' -> '.join(error.args[1])}")


def test_only_hosts_name_a_hosts_modules() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, path in MODULES.items()
        if part_of(module, "limask") != "hosts"
        for other in imported(path)
        if other.split(".")[0] in OF_HOSTS
    ]
    assert not wrong


def test_imports_for_type_checkers_and_in_functions_are_seen(tmp_path: Path) -> None:
    text = "if TYPE_CHECKING:\n    import torch\n\ndef f():\n    from limask import config\n"
    (tmp_path / "module.py").write_text(text)
    assert list(imported(tmp_path / "module.py")) == ["torch", "limask.config"]
