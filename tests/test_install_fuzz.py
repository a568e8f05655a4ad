"""Random files of a host's: with limask's block they are the same program, and without it the same bytes."""

from __future__ import annotations

import ast
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

import pytest
from checkout_parts import make_checkout

from limask import resources
from limask.errors import LimaskError
from limask.install import REGISTRY_FILE, install, status, uninstall
from limask.install.manifest import MAIN_FILE

pytest.importorskip("hypothesis", reason="needs hypothesis: pip install 'limask[dev]'")
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

#: So many that the file takes some seconds. Nothing is written down: a failure prints how to repeat it.
fuzz = settings(
    max_examples=100,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)

# -- files ------------------------------------------------------------------------------------------------

words = st.text("abc äß漢é#'\"\\{}=:@ \t", max_size=8)
quotes = st.sampled_from(["'", '"', "'''", '"""'])
prefixes = st.sampled_from(["", "r", "b", "f", "Rb"])
#: What is told apart by where it stands: it counts in no text, and not below the first two lines.
lookalikes = st.sampled_from(
    [
        "# coding: latin-1",
        "#!/usr/bin/python",
        "from __future__ import division",
        "import limask  # >>> limask >>>",
        "# -*- coding: ascii -*-",
    ]
)
texts = st.builds("{0}{1}{2}{1}".format, prefixes, quotes, words)
long_texts = st.builds(
    "{0}{1}{2}\n{3}\n{1}".format, prefixes, st.sampled_from(["'''", '"""']), words, lookalikes
)
comments = st.builds("#{}".format, words)
blanks = st.sampled_from(["", "  ", "\t", "\x0c"])
statements = st.one_of(
    blanks,
    comments,
    lookalikes,
    st.builds("X = {}".format, texts | long_texts),
    st.builds("REGISTRY[{}] = 1".format, texts),
    st.builds("@str\n@ repr  # {}\ndef f(\n    x={},\n): return x".format, words, texts),
    st.builds("class C:\n    {}\n    # coding: cp1252\n    y = 1".format, long_texts),
    st.sampled_from(["import os", "x = 1; y = 2", "x = 1 + \\\n    2", "if 1:\n\tx = (\n1)", "x: int"]),
)
futures = st.sampled_from(
    [
        "from __future__ import annotations",
        "from __future__ import (  # all\n    annotations,\n    division,\n)",
        "from __future__ import annotations, \\\n  division",
        "from __future__ import division; from __future__ import annotations",
        "from __future__ import annotations; x = 1",
    ]
)
docstrings = st.builds("{0}{1}{2}{0}".format, quotes, words, st.just("")) | long_texts
encodings = st.sampled_from(["utf-8", "utf-8", "latin-1", "gbk", "ascii"])
cookies = st.sampled_from(["# -*- coding: {} -*-", "#coding={}", "# vim: set fileencoding={} :"])
newlines = st.sampled_from([["\n"], ["\r\n"], ["\r"], ["\n", "\r\n"], ["\n", "\r\n", "\r"]])
endings = st.sampled_from(["", "\n", "\n\n", "\n  ", " ", "\n\x0c", "\n# end", "\n'end'"])


@st.composite
def files(draw: st.DrawFn, *head: st.SearchStrategy[str]) -> bytes:
    """A file of statements, under parts of a head, each of which may be missing."""
    encoding = draw(encodings)
    parts = [draw(part).replace("{}", encoding) for part in head if draw(st.integers(0, 2)) == 0]
    parts += draw(st.lists(statements, max_size=6))
    lines = ("\n".join(parts) + draw(endings)).split("\n")
    styles = draw(newlines)
    text = lines[0] + "".join(draw(st.sampled_from(styles)) + line for line in lines[1:])
    bom = b"\xef\xbb\xbf" if encoding == "utf-8" and draw(st.booleans()) else b""
    return bom + text.encode(encoding, errors="replace")


mains = files(
    st.just("#!/usr/bin/env python"),
    cookies,
    comments | blanks,
    docstrings,
    comments,
    futures,
    futures,
    st.just("X = 'äß'"),
)

# -- checkouts --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small checkout, and little to install in it; no disk is waited for."""
    config = tmp_path_factory.mktemp("config")
    for kind in ("algs", "envs"):
        (config / kind).mkdir()
        (config / kind / "masked.yaml").write_text(f"name: {kind}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resources, "config_dir", lambda: config)
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield make_checkout(tmp_path_factory.mktemp("checkout") / "host")


@contextmanager
def holding(root: Path, file: str, text: bytes) -> Iterator[None]:
    """This text in a file of the checkout, which is made anew where that fails."""
    try:
        before = (root / file).read_bytes()
        (root / file).write_bytes(text)
        yield
        (root / file).write_bytes(before)
    except BaseException:
        rmtree(root)
        make_checkout(root)
        raise


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    """Everything in a folder: mode and contents."""
    return {
        path.relative_to(root).as_posix(): (
            stat.S_IMODE(path.stat().st_mode),
            b"" if path.is_dir() else path.read_bytes(),
        )
        for path in root.rglob("*")
    }


def program(text: bytes) -> list[ast.stmt] | None:
    """Its statements; None where it is no program."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(text, "file", "exec", dont_inherit=True)
            return ast.parse(text).body
        except (SyntaxError, ValueError):
            return None


def dumped(statements: list[ast.stmt]) -> list[str]:
    return [ast.dump(statement) for statement in statements]


def without_block(file: str, before: list[ast.stmt], after: bytes) -> int:
    """Where the block's statements are in a file that otherwise is the program that it was."""
    block = dumped(
        ast.parse((resources.src_patch_dir() / f"{file.removeprefix('src/')}.block").read_text()).body
    )
    now = program(after)
    assert now is not None, "it no longer compiles"
    found = dumped(now)
    (at,) = (i for i in range(len(found)) if found[i : i + len(block)] == block)
    assert found[:at] + found[at + len(block) :] == dumped(before), "other statements, or other texts in them"
    return at


def is_docstring(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


# -- tests ------------------------------------------------------------------------------------------------


@fuzz
@given(text=files(cookies, docstrings, futures).map(lambda text: b"# REGISTRY\n" + text))
@example(text=b"REGISTRY = {}")
@example(text=b"REGISTRY = {}\r\n\r")
@example(text=b"\xef\xbb\xbfREGISTRY = {}\n# >>> limask >>>\n")
def test_registry_is_the_same_program_and_every_byte_comes_back(root: Path, text: bytes) -> None:
    with holding(root, REGISTRY_FILE, text):
        before = tree(root)
        if any(line.strip() == b"# >>> limask >>>" for line in text.splitlines()):
            with pytest.raises(LimaskError, match="the limask block is damaged"):
                install(root)
            assert tree(root) == before
            return
        install(root)
        if (statements := program(text)) is not None:
            assert without_block(REGISTRY_FILE, statements, (root / REGISTRY_FILE).read_bytes()) == len(
                statements
            )
        installed = tree(root)
        assert f"block in {REGISTRY_FILE}: ok" in status(root)
        assert "already installed" in install(root)[-1]
        assert tree(root) == installed
        uninstall(root)
        assert tree(root) == before


@fuzz
@given(text=mains)
@example(text=b"#!/usr/bin/env python")
@example(text=b"#!/usr/bin/env python\r# coding: latin-1\rX = '\xe4'\r")
@example(text=b"'''About it.'''\nX = __doc__\n")
@example(text=b"X = '''\n# coding: latin-1\n'''\n")
def test_main_has_the_block_below_its_head_and_every_byte_comes_back(root: Path, text: bytes) -> None:
    with holding(root, MAIN_FILE, text):
        before = tree(root)
        statements = program(text)
        if statements is None:
            with pytest.raises(LimaskError, match="it is no program that Python .* understands"):
                install(root, with_compat=True)
            assert tree(root) == before
            return
        install(root, with_compat=True)
        after = (root / MAIN_FILE).read_bytes()
        for line in (b"#!/usr/bin/env python", b"\xef\xbb\xbf"):
            assert after.startswith(line) == text.startswith(line)
        at = without_block(MAIN_FILE, statements, after)
        above = [
            statement
            for i, statement in enumerate(statements[:at])
            if not (i == 0 and is_docstring(statement))
            and not (isinstance(statement, ast.ImportFrom) and statement.module == "__future__")
        ]
        ends = {statement.end_lineno for statement in statements[:at] if statement not in above}
        assert all(statement.lineno in ends for statement in above), "something runs before the shims"
        assert at > 0 or not (statements and is_docstring(statements[0])), "it has no __doc__ any more"
        installed = tree(root)
        assert "already installed" in install(root, with_compat=True)[-1]
        assert tree(root) == installed
        uninstall(root)
        assert tree(root) == before
