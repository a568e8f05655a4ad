"""Every command that the pages print can be typed: limask takes it, and knows its files, names and options.

Nothing of it is run: what the commands do is tested elsewhere.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from limask import cli, dispatch
from limask.errors import LimaskError
from limask.experiments.campaign.plan import read_campaign
from limask.experiments.evaluation.units import UNITS
from limask.hosts import run
from limask.hosts.options import configs_of
from limask.hosts.pymarlzooplus import PymarlzooplusHost

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands() -> Iterator[tuple[str, str]]:
    """Page and command, of all blocks of shell lines. A line ends where no backslash does; the variable of a
    loop has its first value."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"^```(?:bash|console|shell)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            for name, value in re.findall(r"for (\w+) in (\w+)", block):
                block = block.replace(f"${name}", value)
            for line in block.replace("\\\n", " ").splitlines():
                yield page.relative_to(ROOT).as_posix(), line


def typed(program: str) -> list[object]:
    """The commands that begin with ``program``, in the last part of a line joined by &&."""
    found = []
    for page, line in commands():
        words = shlex.split(line.rpartition("&&")[2], comments=True)
        if " ".join(words).startswith(f"{program} "):
            found.append(pytest.param(words[len(program.split()) :], id=f"{page}: {' '.join(words)}"))
    assert found
    return found


def check_run(arguments: list[str]) -> None:
    """Options of a host's command line; pymarlzooplus has those of all hosts that a page uses.

    The checkpoints that a page names come from the commands before.
    """
    given = [argument for argument in arguments if not argument.startswith("lim.start_from=")]
    run._checked(given, PymarlzooplusHost(), configs_of("pymarlzooplus", "here"))


@pytest.mark.parametrize("arguments", typed("limask"))
def test_limask_takes_what_is_printed(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    options, rest = cli._parser().parse_known_args(arguments)
    if options.command is dispatch.do_run:
        if options.resume is None:
            check_run(rest)
        return
    assert not rest
    if options.command is dispatch.do_campaign_run:
        assert read_campaign(options.file).arms
    if asked := getattr(options, "perturb", None):
        kinds = asked if isinstance(asked, list) else [asked]  # `watch` takes one
        assert set(kinds) <= UNITS.keys()
        assert options.severity and (kinds == [asked] or len(options.severity) == len(kinds))


@pytest.mark.parametrize("arguments", typed("python src/main.py"))
def test_hosts_take_what_is_printed(arguments: list[str]) -> None:
    check_run(arguments)


def test_a_command_that_is_wrong_is_found() -> None:
    with pytest.raises(LimaskError, match="did you mean 'env_args.map_name'"):
        check_run(["--config=qmix_lim", "--env-config=smax", "with", "env_args.map_nme=3m"])
