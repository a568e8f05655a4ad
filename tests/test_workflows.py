"""What CI, pre-commit and the citation name is there, in the versions that the repository has."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import limask

ROOT = Path(__file__).parents[1]
CI: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
COMMANDS = [step["run"] for job in CI["jobs"].values() for step in job["steps"] if "run" in step]
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))


def setup_text() -> str:
    return (ROOT / "setup.py").read_text(encoding="utf-8")


def test_targets_and_test_files_are_there() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for command in COMMANDS for target in re.findall(r"\bmake (\w+)", command)}
    assert {"lint", "test", "docs"} <= named <= targets
    files = [file for command in COMMANDS for file in re.findall(r"tests/\w+\.py", command)]
    assert files and all((ROOT / file).is_file() for file in files)
    assert (ROOT / ".ci/run").read_text().count("make ") >= 3


def test_every_supported_python_is_tested() -> None:
    supported = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', setup_text())
    assert CI["jobs"]["tests"]["strategy"]["matrix"]["python"] == supported == ["3.11", "3.12", "3.13"]
    assert 'python_requires=">=3.11,<3.14"' in setup_text()


def test_versions_are_those_of_the_constraints() -> None:
    assert CI["env"]["TORCH"] == f"torch=={PINS['torch']}"
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    (ruff,) = (repo for repo in hooks if repo["repo"].endswith("ruff-pre-commit"))
    assert ruff["rev"] == f"v{PINS['ruff']}"


def test_hosts_are_pinned_to_commits() -> None:
    hosts = CI["jobs"]["hosts"]["strategy"]["matrix"]["host"]
    assert [host["name"] for host in hosts] == ["EPyMARL", "PyMARL2"]
    assert all(re.fullmatch("[0-9a-f]{40}", host["ref"]) for host in hosts)


def test_nothing_may_write_to_the_repository() -> None:
    assert CI["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in CI["jobs"].values())


def test_citation_is_of_this_version() -> None:
    """And has what Citation File Format 1.2.0 asks for."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation.keys() >= {"message", "title", "authors"}
    assert (citation["version"], citation["license"]) == (limask.__version__, "Apache-2.0")


@pytest.mark.parametrize("name", ["bug_report", "feature_request"])
def test_issue_forms_ask_something(name: str) -> None:
    form = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{name}.yml").read_text(encoding="utf-8"))
    ids = [part["id"] for part in form["body"]]
    assert form["name"] and form["description"] and len(ids) == len(set(ids)) > 1
    assert all(part["attributes"]["label"] for part in form["body"])


def test_the_package_is_typed() -> None:
    """``py.typed`` and the source of the GRU's kernel are in the package, and setup.py puts them into a
    wheel."""
    assert (ROOT / "limask/py.typed").is_file() and (ROOT / "limask/networks/gru.c").is_file()
    (call,) = (
        node
        for node in ast.walk(ast.parse(setup_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup"
    )
    data = {keyword.arg: keyword.value for keyword in call.keywords}["package_data"]
    assert ast.literal_eval(data) == {"limask": ["py.typed", "networks/gru.c"]}
