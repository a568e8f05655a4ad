"""What a host's ``main.py`` imports when it starts, read from the files of its checkout."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

#: An import statement: the file that it is in, and its first line.
Statement = tuple[Path, int]


class Start(NamedTuple):
    """``packages`` from outside the checkout by the statements that import them, at the left margin, where
    nothing catches an error; and whether any file on the way adds to ``sys.path``."""

    packages: dict[str, set[Statement]]
    adds_to_path: bool


def start_of(source: Path) -> Start:
    """Follow the imports from ``main.py`` in ``source``, a checkout's ``src``."""
    packages: dict[str, set[Statement]] = defaultdict(set)
    adds_to_path = False
    seen: set[Path] = set()
    ahead = [source / "main.py"]
    while ahead:
        path = ahead.pop()
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        text, file = path.read_bytes(), path.resolve()
        adds_to_path |= re.search(rb"\bsys\.path\.|\baddsitedir\b", text) is not None
        for line, folder, names in _imported_by(text, path, source):
            # Some checkouts are packages of their own, or have their root on the path.
            bases = (source, source.parent) if folder == source else (folder,)
            modules = [base / Path(*name.split(".")) for base in bases for name in names]
            own = [found for module in modules for found in _files_of(module)]
            ahead += own
            if folder == source and not own:
                packages[names[0].split(".")[0]].add((file, line))
    return Start(dict(packages), adds_to_path)


def missing(source: Path, start: Start) -> dict[str, set[Statement]]:
    """Those packages that are neither installed nor in the checkout."""
    return {
        name: statements
        for name, statements in sorted(start.packages.items())
        if name not in sys.modules
        and importlib.util.find_spec(name) is None
        and not _is_in_checkout(name, source, start)
    }


def _is_in_checkout(name: str, source: Path, start: Start) -> bool:
    """Whether it is where the host may look: a checkout is often a package of its own, or brings some."""
    patterns = (f"{name}.py", f"{name}/*.py")
    if start.adds_to_path and any(any(source.parent.rglob(pattern)) for pattern in patterns):
        return True
    return any(any(folder.glob(pattern)) for folder in (source, source.parent) for pattern in patterns)


def _imported_by(text: bytes, path: Path, source: Path) -> Iterator[tuple[int, Path, list[str]]]:
    """Of each import at the left margin: its line, the folder that it starts from, and the modules it may
    mean."""
    for node in statements_of(text):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, source, [alias.name]
        elif isinstance(node, ast.ImportFrom):
            folder = path.parents[node.level - 1] if node.level else source
            module = node.module or ""
            names = [f"{module}.{alias.name}".lstrip(".") for alias in node.names]
            yield node.lineno, folder, [*([module] if module else []), *names]


def statements_of(text: bytes | str) -> list[ast.stmt]:
    """Of a program of the host's; none where it is not one that this Python understands."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the host's own
        try:
            return ast.parse(text).body
        except (SyntaxError, ValueError):
            return []


def _files_of(module: Path) -> list[Path]:
    """What is executed when a module of the host's is imported: packages around it too."""
    candidates = (
        module.with_name(f"{module.name}.py"),
        module / "__init__.py",
        module.parent / "__init__.py",
    )
    is_own = any(path.is_file() for path in candidates[:2])
    return [path for path in candidates if path.is_file()] if is_own else []
