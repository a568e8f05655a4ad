"""Trained runs are found wherever a host leaves them, and what is refused is refused truly."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import checkout_parts
import pytest
import torch

from limask.cli import main
from limask.errors import LimaskError
from limask.experiments.evaluation.export import export
from limask.experiments.evaluation.runs import TrainedRun, common_host, named, read_run
from limask.requirements import EXTRAS, require

TESTS = Path(__file__).resolve().parent
CONFIG = {
    "name": "qmix_lim", "env": "smax", "env_args": {"map_name": "3m"}, "mac": "lim_mac", "t_max": 2000,
    "agent_output_type": "q", "seed": 7, "save_model": True,
}  # fmt: skip
TOKEN = "qmix_lim_seed7_3m_2026-11-28 02:35:21.804952"  # EPyMARL's
STARTED = datetime(2026, 11, 28, 2, 35, 20, tzinfo=UTC)


def leave(sacred: Path, says: str = "", checkout: Path = Path("/gone/epymarl"), **config: Any) -> Path:
    """Sacred's folder of a run that lasted a minute and printed ``says``."""
    sacred.mkdir(parents=True)
    record = {"experiment": {"base_dir": str(checkout / "src")}}
    times = {"start_time": "2026-11-28T02:35:20.1", "heartbeat": "2026-11-28T02:36:19.6"}
    (sacred / "run.json").write_text(json.dumps(record | times))
    (sacred / "config.json").write_text(json.dumps(CONFIG | config))
    (sacred / "cout.txt").write_text(says)
    return sacred


def save(models: Path, *steps: int, seconds: float = 30.0) -> Path:
    """Checkpoints, written that long after the run started."""
    for step in steps:
        (models / str(step)).mkdir(parents=True)
        (models / str(step) / "agent.th").touch()
        written = STARTED.timestamp() + seconds
        os.utime(models / str(step) / "agent.th", (written, written))
    return models


def saving(models: str) -> str:
    """What hosts print of two checkpoints, and of other things."""
    lines = [f"[INFO 02:35:53] my_main Saving models to {models}/{step}" for step in (16, 1017)]
    return "\n".join(["[DEBUG 02:35:21] my_main Started", *lines, "t_env: 16 / 2000", ""])


@pytest.mark.parametrize("numbered", ["qmix_lim/3m/1", "3m/qmix_lim/1", "1"])
def test_checkpoints_beside_sacreds_folder_are_the_runs_that_saved_them(
    tmp_path: Path, numbered: str
) -> None:
    """EPyMARL, PyMARL2 and PyMARL number their runs each in its own way."""
    results = tmp_path / "results"
    leave(results / "sacred" / numbered, saving(f"/elsewhere/results/models/{TOKEN}"))
    mine = save(results / "models" / TOKEN, 16, 1017)
    save(results / "models/qmix_lim_seed8_3m_2026-11-28 02:35:21", 99_999)
    run = read_run(tmp_path)
    assert (run.host, run.name, run.checkpoint) == ("/gone/epymarl", "qmix_lim/3m/seed_7", mine / "1017")


@pytest.mark.parametrize("started_in", ["", "src"])
def test_a_checkouts_own_runs_are_found_from_wherever_it_was_started(tmp_path: Path, started_in: str) -> None:
    says = saving(f"results/models/{TOKEN}")
    sacred = leave(tmp_path / "results/sacred/qmix_lim/3m/2", says, checkout=tmp_path)
    mine = save(tmp_path / started_in / "results/models" / TOKEN, 16, 1017)
    assert read_run(sacred).checkpoint == mine / "1017"
    assert read_run(sacred).host == str(tmp_path)


def test_a_host_that_keeps_nothing_of_what_it_says_is_followed_by_the_time(tmp_path: Path) -> None:
    sacred = leave(tmp_path / "sacred/1")
    mine = save(tmp_path / "models/qmix_lim__2026-11-28_02-36-40", 14)
    save(tmp_path / "models/qmix_lim__2026-11-27_02-36-40", 99, seconds=-86_400)
    save(tmp_path / "models/qmix__2026-11-28_02-36-40", 99)
    assert read_run(sacred).checkpoint == mine / "14"
    save(tmp_path / "models/qmix_lim__2026-11-28_02-36-41", 99)
    with pytest.raises(LimaskError, match="with save_model=True, and no checkpoint of it is in"):
        read_run(sacred)


def test_pymarlzooplus_saves_in_sacreds_own_folder(tmp_path: Path) -> None:
    sacred = leave(tmp_path / "sacred/qmix_lim/3m/1", checkout=Path("/venv/pymarlzooplus"))
    (sacred / "run.json").write_text('{"experiment": {"base_dir": "/venv/site-packages/pymarlzooplus"}}')
    save(sacred / "models", 900, 20_000)
    assert read_run(tmp_path)[1] == "pymarlzooplus"
    assert read_run(tmp_path).steps == 20_000


def test_what_is_missing_is_said_truly(tmp_path: Path) -> None:
    def fails(folder: Path, words: str) -> None:
        with pytest.raises(LimaskError, match=words):
            read_run(folder)

    fails(leave(tmp_path / "a/sacred/1", save_model=False), "was trained with save_model=False: train with")
    gone = leave(tmp_path / "b/sacred/1", saving(f"/elsewhere/models/{TOKEN}"))
    fails(gone, f"nor in /elsewhere/models/{TOKEN}, where it saved: it ended .* deleted or moved")
    leave(tmp_path / "b/sacred/2")
    fails(tmp_path / "b", "holds 2 runs: name one of them, as in .*/b/sacred/1$")
    fails(tmp_path, "holds no run: expected an attempt of a campaign")
    (tmp_path / "empty/results").mkdir(parents=True)
    fails(tmp_path / "empty", "holds no run")


def trained(folder: str, host: str) -> TrainedRun:
    return TrainedRun(Path(folder), host, "qmix_lim", "3m", {"seed": 1}, Path("1000"))


def test_runs_act_in_the_host_that_trained_them(tmp_path: Path) -> None:
    here, zoo = trained("a", str(tmp_path)), trained("b", "pymarlzooplus")
    assert common_host([here, here], None) == str(tmp_path)
    assert common_host([zoo], None) == "pymarlzooplus"
    assert common_host([here, zoo], "other") == "other"
    with pytest.raises(LimaskError, match="a was trained in .* and b in pymarlzooplus: evaluate .* by them"):
        common_host([here, zoo], None)
    with pytest.raises(LimaskError, match="a was trained in /gone, which is not there: name .* with --host"):
        common_host([trained("a", "/gone")], None)


def test_folders_are_named_by_runs_and_perturbation() -> None:
    runs = [trained(name, "pymarlzooplus")._replace(arm=name) for name in "abcd"]
    assert named("evaluation", runs[:1], "noise") == Path("evaluation/a_3m_seed_1_noise")
    assert named("evaluation", runs[:3]) == Path("evaluation/a_3m_seed_1+b_3m_seed_1+c_3m_seed_1")
    assert named("evaluation", runs, "noise") == Path("evaluation/a_3m_seed_1+b_3m_seed_1+2_more_noise")


# -- before anything is loaded -------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["evaluate", "inspect", "watch", "bench speed", "bench replay"])
def test_what_is_there_already_is_refused_before_torch_is_loaded(tmp_path: Path, command: str) -> None:
    leave(tmp_path / "run/sacred/1", saving("models/x"))
    save(tmp_path / "run/models/x", 1017)
    files = {"evaluate": "evaluate.csv", "inspect": "inspect.png", "watch": "battle_10000.gif"}
    file = (files | {"bench speed": "speed.csv", "bench replay": "replay.csv"})[command]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / file).write_text("kept")
    arguments = [*command.split(), *(() if "bench" in command else ("run",)), "--output", "out"]
    program = "import sys; from limask.cli import main; status = main(sys.argv[1:]); "
    program += "sys.exit(status if 'torch' not in sys.modules else 'torch was loaded')"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(TESTS.parent)}, text=True, capture_output=True,
    )  # fmt: skip
    assert done.stderr == (
        f"limask: error: out/{file} is there already: choose another folder with --output, or replace it "
        "with --force\n"
    )
    assert done.returncode == 2
    assert (tmp_path / "out" / file).read_text() == "kept"


def test_extras_bring_what_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("setuptools.setup", lambda **_: None)
    extras: dict[str, list[str]] = runpy.run_path(str(TESTS.parent / "setup.py"))["EXTRAS"]
    called = {"cv2": "opencv-python-headless", "sklearn": "scikit-learn"}
    for extra, modules in EXTRAS.items():
        needs = {re.split("[<>=]", need)[0] for need in extras[extra]}
        assert {called.get(module, module) for module in modules} <= needs
        assert needs <= {re.split("[<>=]", need)[0] for need in extras["all"]}
    assert {"ray", "submitit>=1.5.2"} <= set(extras["all"])
    assert not any(need.startswith("protobuf") for need in extras["all"]), "SMAC's bound goes with nothing"


def test_everything_that_is_missing_is_named_in_one_line_with_one_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = {"cv2", "jax", *EXTRAS["pymarlzooplus"][2:]}
    monkeypatch.setattr("limask.requirements.find_spec", lambda name: name in installed or None)
    with pytest.raises(LimaskError) as caught:
        require("pymarlzooplus", "smax")
    assert str(caught.value) == (
        "pymarlzooplus, cloudpickle, jaxmarl are not installed: `pip install 'limask[pymarlzooplus,smax]' && "
        "pip install --no-deps pymarlzooplus==1.1.0`"
    )
    with pytest.raises(LimaskError, match=r"^wandb is not installed: `pip install 'limask\[wandb\]'`$"):
        require("wandb", "report")
    require("report")


def test_what_a_run_needs_is_looked_for_all_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("limask.requirements.find_spec", lambda name: None)
    command = ["run", "--host", "pymarlzooplus", "--sink", "wandb", "--config=qmix", "--env-config=smax"]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert told.startswith("limask: error: pymarlzooplus, ") and told.count("\n") == 1
    assert "`pip install 'limask[pymarlzooplus,smax,wandb]' && pip install --no-deps pymarlzoo" in told


# -- checkouts -----------------------------------------------------------------------------------------

#: Leaves a run in a checkout, as its own main would.
_SAVE = """
import sys; from pathlib import Path
sys.path.insert(0, {tests!r})
from limask.experiments import hosted
from run_parts import save_run
save_run(hosted.load_host({checkout!r}), Path({folder!r}), {algorithm!r}, t_max=1000)
"""

#: What a user does with a run from Python.
_LOAD = """
import limask
from limask.envs.smax import SmaxVector
team = limask.load("qmix_lim")
seen = SmaxVector("3m", [1]).reset()
team.reset()
print(team.evaluate(episodes=8).episodes, team.act(seen.obs, seen.avail_actions).shape, *team.beliefs())
"""


@pytest.mark.parametrize("source", checkout_parts.by_family())
def test_runs_of_checkouts_are_evaluated_inspected_and_watched_in_them(source: Path, tmp_path: Path) -> None:
    def run(*command: str) -> str:
        env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parent)}
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=env, text=True, capture_output=True, timeout=500
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    for algorithm in ("qmix_lim", "qmix"):
        sacred = tmp_path / algorithm / "sacred/1"
        where = {"tests": str(TESTS), "checkout": str(source), "folder": str(sacred), "algorithm": algorithm}
        run("-c", _SAVE.format(**where))
        record = {"experiment": {"base_dir": str(source.resolve() / "src")}}
        (sacred / "run.json").write_text(json.dumps(record))
        (sacred / "cout.txt").write_text(saving(f"results/models/{TOKEN}"))
        (tmp_path / algorithm / "models").mkdir()
        (sacred / "models").rename(tmp_path / algorithm / "models" / TOKEN)
    told = run("-m", "limask", "evaluate", "qmix_lim", "qmix", "--episodes", "8")
    assert "Written: evaluation/qmix_lim_3m_seed_1+qmix_3m_seed_1_as_trained/evaluate.csv" in told
    assert "battle of seed 10000" in run("-m", "limask", "inspect", "qmix_lim")
    assert (tmp_path / "inspection/qmix_lim_3m_seed_1/inspect.png").is_file()
    assert "battle of seed 10000" in run("-m", "limask", "watch", "qmix", "qmix_lim")
    assert (tmp_path / "watch/qmix_3m_seed_1+qmix_lim_3m_seed_1_as_trained/battle_10000.gif").is_file()
    assert run("-c", _LOAD).split() == ["8", "(1,", "3)", "ally", "enemy"]


# -- handed on -------------------------------------------------------------------------------------------


def with_weights(sacred: Path) -> Path:
    """A run whose last checkpoint holds weights, and an optimiser that has made a step."""
    leave(
        sacred, local_results_path="/home/me/results", lim={"start_from": "/home/me/models/1", "trunk": "fc"}
    )
    models = save(sacred / "models", 16, 1017) / "1017"
    layer = torch.nn.Linear(2, 3)
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.25)
    layer(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    torch.save(layer.state_dict(), models / "agent.th")
    torch.save(optimiser.state_dict(), models / "opt.th")
    torch.save(
        {"decoder": layer.state_dict(), "optimiser": optimiser.state_dict()}, models / "autoencoder.th"
    )
    (models / "team.json").write_text("{}")
    return sacred


def test_agents_are_handed_on_without_optimisers_and_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, output = with_weights(tmp_path / "attempt_1/results/sacred/qmix_lim/3m/1"), tmp_path / "given/away"
    (tmp_path / "attempt_1/run.json").write_text(json.dumps({"run": "ours/3m/seed_7"}))
    assert main(["export", str(tmp_path / "attempt_1"), "--output", str(output)]) == 0
    assert "ours/3m/seed_7 after 1,017 steps" in capsys.readouterr().out
    found = read_run(output)
    assert (found.name, found.steps, found.host) == ("ours/3m/seed_7", 1017, "pymarlzooplus")
    assert found.config["lim"]["start_from"] == ""
    assert "/home/me" not in (output / "config.json").read_text()
    assert {path.name for path in (output / "models").iterdir()} == {"1017"}
    agent, opt, autoencoder = (
        [torch.load(folder / "models/1017" / name, weights_only=True) for folder in (run, output)]
        for name in ("agent.th", "opt.th", "autoencoder.th")
    )
    assert all(torch.equal(agent[0][name], agent[1][name]) for name in ("weight", "bias"))
    assert torch.equal(autoencoder[1]["decoder"]["weight"], agent[0]["weight"])
    for state in (opt[1], autoencoder[1]["optimiser"]):
        assert state["state"] == {}
        assert state["param_groups"][0]["lr"] == 0.25
    assert (output / "models/1017/team.json").read_text() == "{}"


def test_what_cannot_be_handed_on_leaves_nothing(tmp_path: Path) -> None:
    run, output = with_weights(tmp_path / "run"), tmp_path / "away"
    output.mkdir()
    (output / "mine").touch()
    with pytest.raises(LimaskError, match="holds something already: expected a new folder"):
        export(run, output)
    (run / "models/1017/opt.th").write_bytes(b"cut off")
    with pytest.raises(LimaskError, match=r"opt\.th is damaged"):
        export(run, tmp_path / "other")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "away"}


def test_agents_that_limask_brings_go_by_their_names(tmp_path: Path) -> None:
    run = read_run(Path("qmix_lim/3m"))
    assert (run.arm, run.task, run.host) == ("qmix_lim", "3m", "pymarlzooplus")
    with pytest.raises(LimaskError, match=r"qmix_lim/3n is no folder, .* did you mean 'qmix_lim/3m'\?"):
        read_run(Path("qmix_lim/3n"))
    with pytest.raises(LimaskError, match="holds no run"):
        read_run(tmp_path)
