"""Teams from Python: they act as when they were evaluated, and training is what the command does."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from checkout_parts import make_checkout
from run_parts import save_run

import limask
from limask.envs.smax import SmaxVector
from limask.errors import LimaskError
from limask.experiments import hosted
from limask.experiments.evaluation import battles, episode, evaluate
from limask.experiments.evaluation.runs import read_run
from limask.experiments.evaluation.trained import freeze
from limask.experiments.evaluation.units import Asked
from limask.hosts.base import Host
from limask.layouts import tokens

ROOT = Path(__file__).resolve().parents[1]
SEED, N_AGENTS, N_ACTIONS = 10_000, 3, 8  # on 3m

#: What a user may type, and mypy accept: the first line is what `--strict` has beyond limask's own settings.
SCRIPT = """\
# mypy: disallow-untyped-calls, disallow-subclassing-any, disallow-untyped-decorators, warn-return-any
import limask
from limask.envs.smax import SmaxVector

team = limask.load("runs/first")
battles = SmaxVector(team.shape.name, seeds=[1])
seen = battles.reset()
team.reset(1)
actions = team.act(seen.obs, seen.avail_actions)
health: float = team.beliefs()["enemy"].tokens[0, 0, 0, 0].item()
won: float = team.evaluate("3m", perturb="dropout", severity=0.4, episodes=8).win_rate.value
folder = limask.train("qmix_lim", "smax", t_max=1000, env_args={"map_name": "3m"})
print(actions.shape, health, won, limask.load(folder).run.steps, limask.__version__)
"""


@pytest.fixture(scope="module")
def host() -> Host:
    return hosted.load_host()


@pytest.fixture(scope="module")
def runs(host: Host, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    belief = save_run(host, root / "belief", "qmix_lim", lim={"autoencoder": {"name": "belief"}})
    named = {name: save_run(host, root / name, name) for name in ("qmix_lim", "qmix_entity_lim", "qmix")}
    return {**named, "belief": belief}


def played(host: Host, run: Path) -> tuple[Any, episode.Mind]:
    """The battle of ``SEED`` as the host's runner has it, and what the agents made of it."""
    overrides = {"batch_size_run": 1, "test_nepisode": 1, "env_args": {"seed": SEED}}
    policy = freeze(host, read_run(run), None, **overrides)
    episode.load_learner(policy)
    (nothing,) = battles.perturbations(None, (), policy)
    (one,) = episode.play(host, policy, nothing, 1)
    return one.batch, episode.think(policy, one.batch)


@pytest.mark.parametrize("name", ["qmix_lim", "qmix_entity_lim", "qmix"])
def test_a_team_acts_and_believes_as_in_an_evaluation(host: Host, runs: dict[str, Path], name: str) -> None:
    batch, mind = played(host, runs[name])
    team = limask.load(runs[name])
    env = SmaxVector(team.shape.name, [SEED, SEED + 1])
    for _ in range(2):  # a second time, too: nothing is remembered beyond reset()
        env.seed([SEED, SEED + 1])
        seen = env.reset()
        team.reset(2)
        for t in range(batch.max_seq_length):
            actions = team.act(seen.obs, seen.avail_actions)
            assert actions.shape == (2, N_AGENTS) and actions.dtype == np.int64
            assert actions[0].tolist() == batch["actions"][0, t, :, 0].tolist()
            if mind.believed is not None:
                believed = tokens.split(mind.believed[t], team._frozen.mac.agent.layout)
                for kind, belief in team.beliefs().items():
                    np.testing.assert_allclose(belief.tokens[0], believed[kind], atol=1e-5)
                    shown = tokens.split(batch["obs"][0, t], team._frozen.mac.agent.layout)[kind]
                    assert belief.is_seen[0].tolist() == shown.any(dim=-1).tolist()
                    assert belief.features[0] == "health" and belief.tokens.shape[3] == len(belief.features)
                assert team.beliefs().keys() == {"ally", "enemy"}
            seen = env.step(actions).observation
    if name == "qmix":
        with pytest.raises(LimaskError, match="infers no features of units: load one of qmix_lim"):
            team.beliefs()


def test_evaluations_are_those_of_the_command(runs: dict[str, Path], tmp_path: Path) -> None:
    team = limask.load(str(runs["qmix_lim"]))
    options: dict[str, Any] = {"episodes": 8, "seed": 7}
    asked = [Asked("dropout", [0.4])]
    (row,) = evaluate.evaluate([runs["qmix_lim"]], asked, map_name=None, output=tmp_path / "out", **options)
    options["perturb"] = "dropout"
    team.reset(1)
    assert team.evaluate(severity=0.4, **options) == team.evaluate("3m", severity=0.4, **options) == row
    assert team.run.steps == 1000 and team.shape.n_agents == N_AGENTS
    team.act(np.zeros((1, N_AGENTS, team.shape.obs_size)), np.ones((1, N_AGENTS, N_ACTIONS)))


def test_mistakes(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(LimaskError, match="holds no run"):
        limask.load(tmp_path)
    team = limask.load(runs["qmix_lim"])
    obs, avail = np.zeros((2, N_AGENTS, team.shape.obs_size)), np.ones((2, N_AGENTS, N_ACTIONS), dtype=bool)
    with pytest.raises(LimaskError, match=r"act\(\) before reset\(\)"):
        team.act(obs, avail)
    with pytest.raises(LimaskError, match=r"reset\(0\): expected at least 1"):
        team.reset(0)
    team.reset(2)
    with pytest.raises(LimaskError, match=r"beliefs\(\) before act\(\)"):
        team.beliefs()
    with pytest.raises(LimaskError, match=r"obs of shape \(1, 3, \d+\): expected \(2, 3, \d+\)"):
        team.act(obs[:1], avail)
    with pytest.raises(LimaskError, match=r"avail of shape \(2, 3, 7\): expected \(2, 3, 8\)"):
        team.act(obs, avail[..., 1:])
    for _ in range(team.shape.limit + 1):
        team.act(obs, avail)
    with pytest.raises(LimaskError, match=r"call reset\(\) where new ones begin"):
        team.act(obs, avail)
    with pytest.raises(LimaskError, match="did you mean 'dropout'"):
        team.evaluate(perturb="dropot", severity=0.1)
    with pytest.raises(LimaskError, match="cannot change to 8m"):
        limask.load(runs["belief"]).evaluate("8m", episodes=1)
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        _ = limask.lod  # type: ignore[attr-defined]


def test_teams_of_two_checkouts_are_kept_apart(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Modules of one would be taken for the other's."""
    one, other = (make_checkout(tmp_path / name) for name in ("one", "other"))
    loaded = SimpleNamespace(__file__=str(one / "src/learners/__init__.py"))
    monkeypatch.setitem(sys.modules, "learners", loaded)
    with pytest.raises(LimaskError, match="/other cannot be loaded beside .*/one, whose modules have"):
        limask.load(runs["qmix_lim"], host=str(other))


def test_the_notebook_is_the_page() -> None:
    spec = importlib.util.spec_from_file_location("write_notebook", ROOT / "docs/write_notebook.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = module.NOTEBOOK.read_text(encoding="utf-8")
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    assert written == module.notebook(page), "run docs/write_notebook.py"


def test_what_the_notebook_shows_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its cells one after the other, with fewer battles and steps."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    book = json.loads((ROOT / "examples/python.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    assert len(cells) == 4
    monkeypatch.chdir(tmp_path)
    code = "\n".join(cells).replace("episodes=64", "episodes=8").replace("20_000", "150, batch_size=8")
    names: dict[str, Any] = {}
    exec(code, names)
    won, believed = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d+% won, \d+% to \d+%", won) and believed.startswith("seen: [")
    (curve,) = names["pyplot"].gca().get_lines()
    assert curve.get_xdata().tolist() == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert curve.get_ydata().tolist() == [row.win_rate.value for row in names["rows"]]
    names["pyplot"].close("all")
    trained = names["team"].run
    assert trained.config["lim"]["masker"]["ratio"] == 0.3 and trained.config["t_max"] == 150
    assert 0 < trained.steps and trained.folder == Path("runs/first")
    with pytest.raises(LimaskError, match="results=runs/first holds something already"):
        limask.train("qmix_lim", "smax", t_max=100, results="runs/first")
    with pytest.raises(LimaskError, match=r"exit status 2: limask: error: .*masker\.ration"):
        limask.train("qmix_lim", "smax", t_max=100, results="third", lim={"masker": {"ration": 0.3}})


def test_importing_limask_is_light() -> None:
    code = "import sys, limask; print([name for name in ('torch', 'numpy', 'sacred') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_users_script_is_typed(tmp_path: Path) -> None:
    """As ``mypy --strict`` sees it."""
    pytest.importorskip("mypy")

    (tmp_path / "right.py").write_text(SCRIPT)
    wrong = SCRIPT.replace("won: float", "won: str").replace("team.reset(1)", "team.rest(1)")
    (tmp_path / "wrong.py").write_text(wrong)
    # From the root, as `make lint` does: what mypy then knows of torch it need not find out again.
    scripts = [str(tmp_path / name) for name in ("right.py", "wrong.py")]
    command = [sys.executable, "-m", "mypy", *scripts]
    told = subprocess.run(command, cwd=ROOT, text=True, capture_output=True).stdout
    *errors, last = told.splitlines()
    assert last == "Found 2 errors in 1 file (checked 2 source files)"
    assert 'wrong.py:8: error: "Team" has no attribute "rest"' in errors[0]
    assert 'expression has type "float", variable has type "str"' in errors[1]


def test_agents_that_limask_brings_win() -> None:
    team = limask.load("qmix_lim/3m")
    assert team.run.steps == 150_024
    assert team.evaluate(episodes=32).win_rate.value > 0.5
