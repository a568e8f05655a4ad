"""What the doctor finds, and whether it says what to type."""

from __future__ import annotations

import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from checkout_parts import make_checkout

from limask import memory
from limask.cli import main
from limask.install import doctor
from limask.install.doctor import Finding

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"n_agents": 3, "n_actions": 9, "obs_shape": 30, "state_shape": 40, "episode_limit": 100}


def texts(findings: list[Finding], level: str) -> str:
    return "\n".join(finding.text for finding in findings if finding.level == level)


def test_this_environment_starts_qmix_lim(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert (
        told[-1] == "qmix_lim starts here: "
        "limask run --host pymarlzooplus --config=qmix_lim --env-config=smax"
    )
    assert "ok    host: pymarlzooplus 1.1.0" in told
    (registered,) = [line for line in told if "registered in the host" in line]
    for name in ("learners.lim_learner", "controllers.lim_mac", "runners.vector", "envs.smax"):
        assert name in registered
    has_compiler = shutil.which("cc") is not None
    assert any(line.startswith("ok    GRUs are computed by machine code") for line in told) == has_compiler
    (buffer,) = [line for line in told if "GiB for buffer_size=5000 episodes" in line]
    assert "GiB of memory are free" in buffer


def test_without_a_compiler_it_says_what_that_costs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "/no/compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["doctor"]) == 0
    assert "note  GRUs are computed by torch's operations" in capsys.readouterr().out


def test_tested_versions_are_those_of_the_constraints() -> None:
    constraints = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    assert {name: constraints[name] for name in doctor.TESTED} == doctor.TESTED


def test_a_host_that_cannot_be_imported_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_checkout(tmp_path / "host", learners__init="REGISTRY = {}\nimport no_such_package\n")
    assert main(["doctor", str(root)]) == 1
    told = capsys.readouterr().out
    assert "host: EPyMARL 2.0.0 or later (no git version)" in told or "host: EPyMARL" in told
    assert f"`limask install {root}`" in told
    assert "stop  the host cannot be imported: ModuleNotFoundError: No module named 'no_such_package'" in told
    assert told.splitlines()[-1].startswith("qmix_lim does not start here")


def test_nowhere_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "nowhere"]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("installed", "level", "text"),
    [
        ({"sacred": None}, "stop", "sacred is missing: `pip install 'sacred==0.8.7'`"),
        ({"setuptools": "82.0.1"}, "stop", "`pip install 'setuptools<82'`"),
        ({"torch": "2.1.0"}, "note", "torch 2.1.0: tested with 2.13.0"),
        ({"torch": "2.13.0+cpu"}, "ok", "torch 2.13.0+cpu"),
    ],
)
def test_packages(
    installed: dict[str, str | None], level: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if (found := (doctor.TESTED | installed)[name]) is None:
            raise PackageNotFoundError(name)
        return found

    monkeypatch.setattr(doctor, "version", version)
    findings = list(doctor._packages())
    assert text in texts(findings, level)
    assert texts(findings, "stop") == "" or level == "stop"


@pytest.mark.parametrize(
    ("version", "level"), [((3, 10, 9), "stop"), ((3, 11, 0), "ok"), ((3, 14, 0), "stop")]
)
def test_python(version: tuple[int, ...], level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    (finding,) = doctor._python()
    assert finding.level == level


def test_starcraft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    monkeypatch.setenv("SC2PATH", str(tmp_path))
    assert "oxwhirl/smac" in texts(list(doctor._starcraft()), "note")
    assert f"StarCraft II is not in {tmp_path} (SC2PATH)" in texts(list(doctor._starcraft()), "note")
    binary = tmp_path / "Versions/Base75689/SC2_x64"
    binary.parent.mkdir(parents=True)
    binary.touch()
    assert f"StarCraft II in {tmp_path} (SC2PATH)" in texts(list(doctor._starcraft()), "ok")
    assert "no SMAC maps" in texts(list(doctor._starcraft()), "note")
    (tmp_path / "Maps/SMAC_Maps").mkdir(parents=True)
    (tmp_path / "Maps/SMAC_Maps/3m.SC2Map").touch()
    assert "1 SMAC maps" in texts(list(doctor._starcraft()), "ok")
    monkeypatch.delenv("SC2PATH")
    monkeypatch.setenv("HOME", str(tmp_path / "empty"))
    assert "empty/StarCraftII (SC2PATH is unset)" in texts(list(doctor._starcraft()), "note")


def test_memory_against_the_replay_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    need = round(memory.COMPACT * memory.replay_bytes(SIZES, 5000))
    monkeypatch.setattr(memory, "memory_limit", lambda device: 2 * need)
    for free, level in ((need + 1, "ok"), (need - 1, "note"), (None, "ok")):
        monkeypatch.setattr(memory, "free_memory", lambda free=free: free)
        assert doctor._memory(SIZES).level == level
    monkeypatch.setattr(memory, "memory_limit", lambda device: need // 2)
    finding = doctor._memory(SIZES)
    assert finding.level == "stop"
    assert re.search(r"set buffer_size to at most (2500|2499)\b", finding.text)


def test_a_checkout_that_needs_compat_is_told_of_it(tmp_path: Path) -> None:
    from limask.install import install

    root = make_checkout(tmp_path / "host", "pymarl", "import yaml\nyaml.load(f)\n")
    assert "--compat bridges what it was written for and is not here: yaml.load" in texts(
        list(doctor._checkout(root)), "ok"
    )
    install(root)
    assert f"`limask install --compat {root}`" in texts(list(doctor._checkout(root)), "note")
    install(root, with_compat=True)
    assert texts(list(doctor._checkout(root)), "note") == ""
    assert "limask run --compat --host" in doctor.lines([], root)[-1]


def test_missing_packages_of_a_checkout_are_named_with_what_to_type(tmp_path: Path) -> None:
    imports = "import cv2_no, no_such.game\nimport smac\nimport No_Such_Grid\n"
    root = make_checkout(tmp_path / "host", main="import envs\n", envs__init=imports)
    (root / "env_requirements.txt").write_text(
        "no-such==1.0\n# a grid\nNo-Such-Grid @ git+https://example.org/lab/no-such-grid.git@dev\n"
    )
    told = texts(list(doctor._checkout(root)), "note")
    assert "imports No_Such_Grid, cv2_no, no_such, smac, not installed here: `pip install" in told
    wanted = "git+https://example.org/lab/no-such-grid.git@dev cv2_no no_such "
    assert f"`pip install {wanted}git+https://github.com/oxwhirl/smac.git`" in told
    assert f"`limask install --compat {root}`" in told
    assert doctor._pip_name("sklearn", root) == "scikit-learn"
