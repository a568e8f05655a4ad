"""limask on StarCraft II, as far as it goes without the game: a stand-in for its binary takes its place.

pysc2, smac and EPyMARL are the real ones; what ``sc2_stand_in`` is, and is not, stands there. The tests need,
beside limask and its extra ``dev``,

- for pysc2: ``pip install --no-deps pysc2==4.0.0`` (``make venv`` has done it);
- for smac: ``pip install --no-deps git+https://github.com/oxwhirl/smac.git``;
- for EPyMARL: a checkout named in LIMASK_TEST_HOSTS, ``pip install rtree pygame`` and
  ``pip install --no-deps git+https://github.com/uoe-agents/smaclite.git``, which EPyMARL always imports.

s2clientprotocol's messages are of the kind that protobuf 4 and later take in its pure-Python implementation
alone: the programs run with PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sc2_stand_in import battle
from sc2_stand_in.battle import ATTACK, COMPUTER, MOVE, PLAYER, STOP, Battle, Unit
from sc2_stand_in.installation import is_fault_to_come, launched, make_installation, order_fault

from limask.install import install

TESTS = Path(__file__).parent
PATIENCE = 10  # seconds that pysc2 waits for the game; its own default is 360


def missing(*names: str) -> list[str]:
    """Packages that cannot be found; none is imported."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def missing_smac() -> list[str]:
    """SMAC if it cannot be found; the package of that name on PyPI is an unrelated optimiser."""
    spec = importlib.util.find_spec("smac")
    folders = spec.submodule_search_locations if spec else None
    return [] if any(Path(f, "env/starcraft2").is_dir() for f in folders or ()) else ["smac (oxwhirl's)"]


NO_PYSC2 = missing("pysc2", "s2clientprotocol", "websocket", "portpicker", "absl")
NO_SMAC = NO_PYSC2 + missing_smac()
CHECKOUTS = [Path(path) for path in os.environ.get("LIMASK_TEST_HOSTS", "").split(os.pathsep) if path]
EPYMARL = [path for path in CHECKOUTS if (path / "src/envs/smac_wrapper.py").is_file()]
NO_EPYMARL = NO_SMAC + missing("smaclite") + ([] if EPYMARL else ["an EPyMARL checkout in LIMASK_TEST_HOSTS"])
NEEDS_PYSC2 = pytest.mark.skipif(bool(NO_PYSC2), reason=f"needs {', '.join(NO_PYSC2)}")
NEEDS_SMAC = pytest.mark.skipif(bool(NO_SMAC), reason=f"needs {', '.join(NO_SMAC)}")
NEEDS_EPYMARL = pytest.mark.skipif(bool(NO_EPYMARL), reason=f"needs {', '.join(NO_EPYMARL)}")


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    return make_installation(tmp_path / "StarCraftII")


def start(installation: Path, folder: Path, *arguments: str, **pipes: Any) -> subprocess.Popen[str]:
    """Start a program of ``sc2_programs`` with the stand-in as its StarCraft II."""
    return start_module(installation, folder, "sc2_programs", *arguments, **pipes)


def start_module(installation: Path, folder: Path, *arguments: str, **pipes: Any) -> subprocess.Popen[str]:
    """The same of any module, the first of the ``arguments``."""
    path = os.pathsep.join((str(TESTS), str(TESTS.parent)))
    env = os.environ | {"SC2PATH": str(installation), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    env["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"
    return subprocess.Popen([sys.executable, "-m", *arguments], cwd=folder, env=env, text=True, **pipes)


def findings(installation: Path, *arguments: str) -> dict[str, Any]:
    """What a program of ``sc2_programs`` prints at its end."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = start(installation, installation, *arguments, **pipes)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err[-4000:]
    assert are_gone(installation), "a process of the game was left running"
    return json.loads(out.splitlines()[-1])


def are_gone(installation: Path, seconds: float = 5.0) -> bool:
    """Whether every process of the stand-in has ended, or does so in time."""
    end = time.monotonic() + seconds
    while any(_is_running(pid, installation) for pid in launched(installation)):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _is_running(pid: int, installation: Path) -> bool:
    try:
        return str(installation).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


# --- the stand-in itself --------------------------------------------------------------


def duel(distance: float) -> tuple[Battle, Unit, Unit]:
    """One marine against one, that far apart on the x axis."""
    game = Battle(seed=1)
    own, foe = game.team(PLAYER)[0], game.team(COMPUTER)[0]
    game.units = [own, foe]
    own.x, own.y, foe.x, foe.y = 10.0, 16.0, 10.0 + distance, 16.0
    return game, own, foe


def test_a_marine_walks_and_shoots_at_the_games_rate() -> None:
    """Two squares at 3.15 / 22.4 a loop take 15 loops; 8 shots, one in 14 loops, take 99."""
    game, own, _ = duel(distance=18.0)
    assert game.command(MOVE, [own.tag], goal=(own.x, own.y - 2))
    game.step(14)
    assert own.y == pytest.approx(14 + 2 - 14 * 3.15 / 22.4)
    game.step(1)
    assert (own.x, own.y) == (10.0, 14.0)

    game, own, foe = duel(distance=5.75)  # range 5 between the edges of two circles of radius 0.375
    assert game.command(ATTACK, [own.tag], target_tag=foe.tag)
    game.step(98)
    assert foe.health == 45 - 7 * 6
    assert own.health == foe.health, "both shoot, and at the same time"
    game.step(1)
    assert game.units == [], "the eighth shots kill both"
    game.step(1)
    assert [len(game.team(side)) for side in (PLAYER, COMPUTER)] == [3, 3]


def test_the_players_marines_do_nothing_unasked_and_walls_stop_them() -> None:
    game, own, foe = duel(distance=9.5)
    game.step(1)
    assert (own.x, own.health) == (10.0, 45.0)
    assert foe.goal == battle.HOMES[COMPUTER - 1] == battle.HOMES[PLAYER]
    game.units = [own]
    game.command(MOVE, [own.tag], goal=(10.0, 0.0))
    game.step(200)
    assert math.isclose(own.y, 6.0, abs_tol=battle.SPEED)
    game.command(MOVE, [own.tag], goal=(20.0, own.y))
    game.step(1)
    game.command(STOP, [own.tag])
    game.step(5)
    assert own.x == pytest.approx(10.0 + battle.SPEED)
    assert not game.command(MOVE, [own.tag]), "a place to go is missing"
    assert not game.command(STOP, [foe.tag]), "the computer's units take no orders"


# --- pysc2 ----------------------------------------------------------------------------


@NEEDS_PYSC2
def test_pysc2_plays_against_the_stand_in(installation: Path) -> None:
    """Start, refuse, create, join, look, act, step, kill, begin anew, restart, quit."""
    found = findings(installation, "raw_session")
    assert "InvalidMapPath" in found["other_map"]
    assert "does not know the request query" in found["unknown"]
    assert found["sizes"] == [32, 32 * 32 // 8, 32 * 32]
    assert found["types"] == [[1, 2005, 45, 45], [2, 48, 45, 45]]
    assert found["results"] == [1, 2], "an order to attack a unit that is not there is refused"
    assert found["moved"] == [0, pytest.approx(8 * 3.15 / 22.4, abs=1e-5)]
    assert found["loop"] == 8
    assert found["first_dead"]
    assert found["all_killed"] == 0
    assert found["next_battle"] == [6, False], "six new units with new tags"
    assert found["loop_after_restart"] == 0
    assert found["replay"] == "0 loops of 3m.SC2Map"
    assert len(launched(installation)) == 1


# --- smac -----------------------------------------------------------------------------


@NEEDS_SMAC
def test_smac_fights_battles_of_the_size_of_the_layout(installation: Path) -> None:
    """Sizes, what is where in an observation, walls and returns, by hand."""
    found = findings(installation, "smac_battles", "attack", "3", str(PATIENCE))
    # 4 moves, 8 pathing and 9 height points, 3 enemies x 5, 2 allies x 5, own health.
    # State: 3 allies x 4, 3 enemies x 3, 3 last actions x 9.
    assert found["sizes"] == [[3, 47, 48]]
    assert found["expected_size"] == 47
    first: dict[str, list[float]] = {}
    for name, value in zip(found["features"], found["first_obs"], strict=True):
        first.setdefault(name, []).append(value)
    assert first["move_north"] == first["move_pathing_7"] == first["own_health"] == [1]
    assert first["move_height_8"] == [pytest.approx(127 / 255)]
    assert first["enemy_health"] == [0, 0, 0], "out of sight"
    assert first["ally_visible"] == [1, 1]
    assert all(abs(9 * y) in (pytest.approx(1.5), pytest.approx(3)) for y in first["ally_relative_y"])
    assert found["pathing"] == [True, False, False, True, False]
    assert [b["won"] for b in found["battles"]] == [True] * 3
    # All that can be won, 3 x 10 for kills, 200 for the battle and 3 x 45 for hit points, is scaled to 20.
    assert [b["return"] for b in found["battles"]] == [pytest.approx(20)] * 3
    assert found["restarts"] == 0


@NEEDS_SMAC
def test_smac_loses_by_doing_nothing(installation: Path) -> None:
    found = findings(installation, "smac_battles", "stop", "2", str(PATIENCE))
    assert [(b["won"], b["return"]) for b in found["battles"]] == [(False, 0)] * 2


@NEEDS_SMAC
@pytest.mark.parametrize("answers", [10, 77, 78, 79, 80])
def test_smac_survives_that_the_game_is_killed(installation: Path, answers: int) -> None:
    """In the second step; at the last look at the first battle, of 24 steps; and at all points of the reset.

    There are five answers up to the first observation, and three in a step.
    """
    order_fault(installation, "kill", answers)
    found = findings(installation, "smac_battles", "random", "4", str(PATIENCE))
    assert not is_fault_to_come(installation)
    assert found["restarts"] == 1
    assert [b["steps"] > 10 for b in found["battles"]].count(True) >= 3


@NEEDS_SMAC
def test_smac_survives_that_the_game_hangs(installation: Path) -> None:
    order_fault(installation, "hang", 90)
    found = findings(installation, "smac_battles", "random", "3", "3")
    assert found["restarts"] == 1
    assert found["battles"][-1]["steps"] > 10


# --- EPyMARL --------------------------------------------------------------------------

#: Each algorithm as its config has it, but with two games at a time instead of eight for limask's.
ALGORITHMS: dict[str, tuple[int, list[str]]] = {
    "qmix": (1, []),
    "qmix_lim": (2, ["batch_size_run=2", "lim.autoencoder.warmup=0"]),
}
SHORT = [
    "batch_size=8",
    "test_nepisode=2",
    "buffer_size=200",
    "learner_log_interval=0",
    "runner_log_interval=0",
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    copy = tmp_path / "epymarl"
    shutil.copytree(EPYMARL[0], copy, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "results"))
    install(copy)
    return copy


def train(installation: Path, checkout: Path, algorithm: str, *options: str) -> tuple[int, str]:
    """Train on ``sc2`` until the host ends, which must not take for ever; returns its status and output."""
    settings = [*SHORT, *ALGORITHMS[algorithm][1], *options]
    arguments = [f"--config={algorithm}", "--env-config=sc2", "with", "env_args.map_name=3m", *settings]
    output = checkout / "output.txt"
    with output.open("w") as file:
        pipes = {"stdout": file, "stderr": file, "start_new_session": True}
        process = start(installation, checkout, "host", str(PATIENCE), *arguments, **pipes)
        try:
            status = process.wait(timeout=300)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert are_gone(installation), "a process of the game was left running"
    return status, output.read_text()


def check_trained(checkout: Path, algorithm: str, steps: int) -> None:
    run = checkout / f"results/sacred/{algorithm}/3m/1"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["loss"]["steps"][-1] > 0.8 * steps
    losses = [key for key in ("loss", "rec_loss") if key in metrics]
    assert ("rec_loss" in losses) == (algorithm == "qmix_lim")
    assert all(math.isfinite(value) for key in losses for value in metrics[key]["values"])
    assert "battle_won_mean" in metrics
    assert json.loads((run / "run.json").read_text())["status"] == "COMPLETED"


@NEEDS_EPYMARL
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_epymarl_trains_on_sc2(installation: Path, checkout: Path, algorithm: str) -> None:
    status, output = train(installation, checkout, algorithm, "t_max=2000")
    assert status == 0, output[-4000:]
    check_trained(checkout, algorithm, 2000)
    assert len(launched(installation)) == ALGORITHMS[algorithm][0]


@NEEDS_EPYMARL
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_replay_is_saved_of_trained_agents(installation: Path, checkout: Path, algorithm: str) -> None:
    """As EPyMARL has it: evaluate a checkpoint, and save the last battle of its first environment."""
    status, output = train(installation, checkout, algorithm, "t_max=300", "save_model=True")
    assert status == 0, output[-4000:]
    assert not list(installation.rglob("*.SC2Replay"))
    (models,) = (checkout / "results/models").iterdir()
    options = [f"checkpoint_path={models}", "evaluate=True", "save_replay=True"]
    status, output = train(installation, checkout, algorithm, *options)
    assert status == 0, output[-4000:]
    (replay,) = installation.rglob("*.SC2Replay")
    assert replay.read_bytes().endswith(b" loops of 3m.SC2Map")


@NEEDS_EPYMARL
def test_trained_agents_are_evaluated_and_watched(installation: Path, checkout: Path, tmp_path: Path) -> None:
    status, output = train(installation, checkout, "qmix_lim", "t_max=300", "save_model=True")
    assert status == 0, output[-4000:]

    def limask(command: str, *arguments: str) -> str:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        given = [command, str(checkout), *arguments, "--output", str(tmp_path / command)]
        process = start_module(installation, tmp_path, "limask", *given, **pipes)
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err[-4000:]
        assert are_gone(installation), "a process of the game was left running"
        return out

    limask("evaluate", "--perturb", "dropout", "--severity", "0", "1", "--episodes", "2")
    rows = list(csv.DictReader((tmp_path / "evaluate/evaluate.csv").read_text().splitlines()))
    found = [(row["map"], row["severity"], row["episodes"]) for row in rows]
    assert found == [("3m", "0", "2"), ("3m", "1", "2")]
    assert all(0 <= float(row["win_rate"]) <= 1 for row in rows)
    assert "battle of seed 10000, " in limask("watch")
    assert (tmp_path / "watch/battle_10000.gif").read_bytes().startswith(b"GIF")


@NEEDS_EPYMARL
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("fault", ["kill", "hang"])
def test_a_game_that_dies_is_started_again(
    installation: Path, checkout: Path, algorithm: str, fault: str
) -> None:
    """In the middle of training the host's own algorithm loses an episode by it, and so does ours."""
    order_fault(installation, fault, 400)
    status, output = train(installation, checkout, algorithm, "t_max=600")
    assert status == 0, output[-4000:]
    assert not is_fault_to_come(installation)
    check_trained(checkout, algorithm, 600)
    assert len(launched(installation)) == ALGORITHMS[algorithm][0] + 1


@NEEDS_EPYMARL
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_game_that_dies_in_the_first_battle_is_started_again(
    installation: Path, checkout: Path, algorithm: str
) -> None:
    """smac then starts it twice: once at once, and once more since it has not finished a battle yet."""
    order_fault(installation, "kill", 30)
    status, output = train(installation, checkout, algorithm, "t_max=300")
    assert status == 0, output[-4000:]
    check_trained(checkout, algorithm, 300)
    assert len(launched(installation)) == ALGORITHMS[algorithm][0] + 2


@NEEDS_EPYMARL
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_game_that_cannot_be_started_again_ends_the_run(
    installation: Path, checkout: Path, algorithm: str
) -> None:
    """Neither goes on; neither hangs or leaves games behind."""
    order_fault(installation, "vanish", 400)
    status, output = train(installation, checkout, algorithm, "t_max=600")
    assert status != 0
    assert "Failed to connect to the SC2 websocket" in output
    assert len(launched(installation)) == ALGORITHMS[algorithm][0]
