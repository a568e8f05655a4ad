"""limask in real run loops: pymarlzooplus always, checkouts where LIMASK_TEST_HOSTS names them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import checkout_parts
import pytest

import limask
from limask.envs.vector_runner import TEST_SEEDS
from limask.errors import DIVERGED_FILE, DIVERGED_STATUS, LimaskError
from limask.experiments.storage.sacred_files import latest_run, read_curves
from limask.hosts.run import run_host
from limask.install import install, uninstall
from limask.install.families import family_of

TESTS = Path(__file__).parent

#: Each line is one way in which the hosts' learner can be set; all must agree with ours.
SETTINGS: list[dict[str, Any]] = [
    {},
    {"standardise_rewards": True},
    {"use_rnn": False},
    {"mixer": "vdn", "double_q": False},
    {"mixer": None, "obs_last_action": False},
    {"target_update_interval_or_tau": 0.1},
]
#: Beyond these, where agents have rewards of their own.
INDIVIDUAL: list[dict[str, Any]] = [
    {"mixer": None, "common_reward": False},
    {"mixer": None, "common_reward": False, "standardise_rewards": True},
]
NQ_SETTINGS: list[dict[str, Any]] = [
    {},
    {"mixer": "vdn", "obs_last_action": False},
    {"td_lambda": 0.6},
    {"td_lambda": 1.0, "optimizer": "rmsprop"},
]
Q_LAMBDA: list[dict[str, Any]] = [{"q_lambda": True}, {"q_lambda": True, "td_lambda": 0.6, "mixer": "vdn"}]
SETTINGS_OF = {
    "epymarl": SETTINGS + INDIVIDUAL,
    "epymarl_v1": SETTINGS,
    "pymarl": [{}, {"mixer": "vdn", "double_q": False}, {"mixer": None, "obs_last_action": False}],
    "pymarl2": NQ_SETTINGS + Q_LAMBDA,
    "pymarl3": NQ_SETTINGS,
}


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run to the end on one thread, and show the output if it fails."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}
    done = subprocess.run(command, cwd=folder, env=env, text=True, capture_output=True, timeout=500)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done


def check_parity(where: str, settings: list[dict[str, Any]]) -> None:
    done = run([sys.executable, str(TESTS / "parity.py"), where, json.dumps(settings)], TESTS)
    results = json.loads(done.stdout.strip().splitlines()[-1])
    for setting, differences in zip(settings, results, strict=True):
        assert differences.pop("n_losses") == 20
        assert differences.pop("moved") > 1e-4, "the target network never lagged: nothing was compared"
        assert {"loss", "grad_norm", "q_taken_mean", "target_mean"} < differences.keys()
        assert differences.pop("parameters") < 1e-5, setting
        assert max(differences.values()) < 1e-6, (setting, differences)


def test_parity_with_pymarlzooplus() -> None:
    """No mask, no reconstruction, trunk fc: stock QMIX, to the last digits that float64 leaves."""
    check_parity("pymarlzooplus", SETTINGS)


@pytest.mark.parametrize("source", checkout_parts.by_family())
def test_parity_with_a_checkout(source: Path) -> None:
    """The same against each family's own value-based learner: ``q_learner``, or ``nq_learner`` with TD(λ) and
    PyMARL2's Q(λ)."""
    check_parity(str(source), SETTINGS_OF[family_of(source).key])


def sacred_run(results: Path, name: str, number: int = 1) -> Path:
    return results / "sacred" / name / "3m" / str(number)


def last(metrics: Path, key: str) -> float:
    return json.loads((metrics / "metrics.json").read_text())[key]["values"][-1]


def test_pymarlzooplus_trains_saves_and_evaluates_the_same_policy_again(tmp_path: Path) -> None:
    """A user's first run: train, save, then evaluate the checkpoint by the host's own options."""
    command = [sys.executable, "-m", "limask", "run", "--host", "pymarlzooplus", "--config=qmix_lim"]
    command += ["--env-config=smax", "with", "seed=3", "test_nepisode=8", "env_args.map_name=3m"]
    short = ["t_max=400", "batch_size=16", "lim.autoencoder.warmup=0"]
    run([*command, *short, "save_model=True", "learner_log_interval=0"], tmp_path)
    trained = sacred_run(tmp_path / "results", "qmix_lim")
    for key in ("loss", "rec_loss", "mask_rate", "return_mean", "test_return_mean", "test_battle_won_mean"):
        value = last(trained, key)
        assert isinstance(value, (int, float)), f"{key} is logged as {value}"
    checkpoints = sorted((trained / "models").iterdir(), key=lambda path: int(path.name))
    assert {"agent.th", "mixer.th", "opt.th", "autoencoder.th"} <= {p.name for p in checkpoints[-1].iterdir()}
    evaluate = [*command[:4], "--results", "again", *command[4:], "evaluate=True"]
    run([*evaluate, f"checkpoint_path={trained / 'models'}"], tmp_path)
    curves = read_curves(sacred_run(tmp_path / "again", "qmix_lim"))  # the host's tests, one after the other
    row = limask.load(tmp_path / "results").evaluate(episodes=8, seed=3 + TEST_SEEDS)
    assert curves["test_return_mean"].values[0] == pytest.approx(row.mean_return)
    assert curves["test_battle_won_mean"].values[0] == row.win_rate.value
    assert not (Path(sys.prefix) / "bin" / "results").exists()


def test_a_mistake_is_one_line_and_no_traceback_before_the_host_starts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "limask", "run", "--host", "pymarlzooplus", "--config=qmix_lim"]
    command += ["--env-config=smax", "with", "lim.masker.name=randon"]
    env = os.environ | {"PYTHONPATH": str(TESTS.parent)}
    done = subprocess.run(command, cwd=tmp_path, env=env, text=True, capture_output=True, timeout=200)
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert "lim.masker.name='randon'" in line
    assert "did you mean 'random'" in line


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("lim.mask_ratio=0.3", "lim.mask_ratio is lim.masker.ratio now"),
        ("lim.masker.rato=0.3", "did you mean 'lim.masker.ratio'?"),
    ],
)
def test_a_name_that_sacred_would_refuse_is_refused_with_the_right_one(
    tmp_path: Path, option: str, words: str
) -> None:
    arguments = ["--config=qmix_lim", "--env-config=smax", "with", "t_max=200", option]
    with pytest.raises(LimaskError, match=re.escape(words)):
        run_host("pymarlzooplus", arguments, tmp_path / "results")
    assert not (tmp_path / "results").exists()


# -- checkouts --------------------------------------------------------------------------------------------

SHORT = ["with", "t_max=200", "batch_size=8", "buffer_size=50", "test_nepisode=8", "learner_log_interval=0"]
SHORT += ["lim.autoencoder.warmup=0"]


def copied(source: Path, tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", "results")
    return Path(shutil.copytree(source, tmp_path / "checkout", symlinks=True, ignore=ignored))


def git_status(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "status", "--porcelain"]
    return subprocess.run(command, text=True, capture_output=True, check=True).stdout


def check_results(results: Path, loss: str = "loss") -> None:
    """Sacred knows that the run is complete, and all of what it was told."""
    (run_file,) = results.rglob("run.json")
    assert json.loads(run_file.read_text())["status"] == "COMPLETED"
    info = json.loads((run_file.parent / "info.json").read_text())
    steps = info[f"{loss}_T"] if f"{loss}_T" in info else last_steps(run_file.parent, loss)
    assert steps[-1] >= 200, "the last update is not among the results"
    for key in (loss, "test_return_mean"):
        values = info.get(key) or json.loads((run_file.parent / "metrics.json").read_text())[key]["values"]
        assert all(isinstance(value, (int, float)) or "value" in value for value in values)


def last_steps(folder: Path, key: str) -> list[int]:
    steps: list[int] = json.loads((folder / "metrics.json").read_text())[key]["steps"]
    return steps


@pytest.mark.parametrize("source", checkout_parts.by_family())
def test_installed_checkout_runs_by_itself_and_is_clean_after_uninstall(source: Path, tmp_path: Path) -> None:
    checkout = copied(source, tmp_path)
    before = git_status(checkout)
    install(checkout, with_compat=True)
    wrapped = ["mappo_lim"] if family_of(source).key == "epymarl" else []
    for algorithm in ["qmix_lim", *wrapped]:
        run([sys.executable, "src/main.py", f"--config={algorithm}", "--env-config=smax", *SHORT], checkout)
        check_results(checkout / "results", "loss" if algorithm == "qmix_lim" else "pg_loss")
        shutil.rmtree(checkout / "results")
    uninstall(checkout)
    assert git_status(checkout) == before


@pytest.mark.parametrize("source", checkout_parts.by_family())
def test_masker_of_a_users_own_is_found_in_an_installed_checkout(source: Path, tmp_path: Path) -> None:
    """By the host's own main, through ``limask run``, and by the check of a campaign."""
    checkout = copied(source, tmp_path)
    install(checkout, with_compat=True)
    checkout_parts.write_masker(checkout)
    arguments = ["--config=qmix_lim", "--env-config=smax", *SHORT, "lim.masker.name=hide_enemies"]
    by_itself = [sys.executable, "src/main.py"]
    through = [sys.executable, "-m", "limask", "run", "--compat", "--host", ".", "--results", "results"]
    for command in (by_itself, through):
        run([*command, *arguments], checkout)
        (info,) = (checkout / "results").rglob("info.json")
        stats = json.loads(info.read_text())
        for key, expected in (("mask_rate_enemy", 1.0), ("mask_rate_ally", 0.0)):
            values = stats.get(key) or json.loads((info.parent / "metrics.json").read_text())[key]["values"]
            assert set(values) == {expected}
        shutil.rmtree(checkout / "results")
    assert any("modules/maskers/__init__.py: you edited it" in line for line in uninstall(checkout))


@pytest.mark.parametrize("source", checkout_parts.by_family())
def test_unedited_checkout_runs_through_limask_run(source: Path, tmp_path: Path) -> None:
    checkout = copied(source, tmp_path)
    before = git_status(checkout)
    command = [sys.executable, "-m", "limask", "run", "--compat", "--sink", "tensorboard"]
    command += ["--host", str(checkout), "--results", str(tmp_path / "out")]
    command += ["--config=qmix_lim", "--env-config=smax", *SHORT, "save_model=True"]
    run(command, tmp_path)
    check_results(tmp_path / "out")
    run_folder = latest_run(tmp_path / "out")
    assert run_folder is not None
    assert read_curves(run_folder)["loss"].steps[-1] >= 200
    assert list((tmp_path / "out/models").rglob("autoencoder.th"))
    assert list((tmp_path / "out/tensorboard").rglob("events.out.tfevents.*"))
    assert git_status(checkout) == before
    assert not (checkout / "results").exists()


def test_divergence_is_an_exit_status_of_its_own(tmp_path: Path) -> None:
    """Whatever the message says, and unlike that of any other mistake."""
    command = [sys.executable, "-m", "limask", "run", "--host", "pymarlzooplus", "--config=qmix_fc"]
    command += ["--env-config=smax", *SHORT[:-1], "lr=1e18", "grad_norm_clip=1e18"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parent)}
    done = subprocess.run(command, cwd=tmp_path, env=env, text=True, capture_output=True, timeout=300)
    assert done.returncode == DIVERGED_STATUS, done.stderr[-2000:]
    assert "training stops before the networks are spoiled" in done.stderr
    said = (tmp_path / "results" / DIVERGED_FILE).read_text()
    assert re.match("(TD loss|norm of the TD loss's gradient) is (nan|inf) at t_env=", said)
    assert "Traceback" not in done.stderr
