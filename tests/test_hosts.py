"""limask in real run loops: pymarlzooplus always, checkouts where LIMASK_TEST_HOSTS names them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from limask.install import install, uninstall

TESTS = Path(__file__).parent
CHECKOUTS = [Path(path) for path in os.environ.get("LIMASK_TEST_HOSTS", "").split(os.pathsep) if path]
#: Value-based learners of EPyMARL's kind; the other families have their own adapters to come.
EPYMARL = [path for path in CHECKOUTS if (path / "src/learners/maddpg_learner.py").is_file()]
NEEDS_EPYMARL = pytest.mark.skipif(
    not EPYMARL, reason="LIMASK_TEST_HOSTS names no EPyMARL checkout: its runs and parity are not tested"
)

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


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run to the end on one thread, and show the output if it fails."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}
    done = subprocess.run(command, cwd=folder, env=env, text=True, capture_output=True, timeout=500)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done


def check_parity(where: str, all_settings: list[dict[str, Any]]) -> None:
    done = run([sys.executable, str(TESTS / "parity.py"), where, json.dumps(all_settings)], TESTS)
    results = json.loads(done.stdout.strip().splitlines()[-1])
    for settings, differences in zip(all_settings, results, strict=True):
        assert differences.pop("n_losses") == 20
        assert differences.pop("moved") > 1e-4, "the target network never lagged: nothing was compared"
        assert differences.pop("parameters") < 1e-5, settings
        assert max(differences.values()) < 1e-6, (settings, differences)


def test_parity_with_pymarlzooplus() -> None:
    """No mask, no reconstruction, trunk fc: stock QMIX, to the last digits that float64 leaves."""
    check_parity("pymarlzooplus", SETTINGS)


@NEEDS_EPYMARL
def test_parity_with_epymarl() -> None:
    """The same against a checkout's own learner."""
    check_parity(str(EPYMARL[0]), SETTINGS + INDIVIDUAL)


def sacred_run(results: Path, name: str, number: int = 1) -> Path:
    return results / "sacred" / name / "3m" / str(number)


def last(metrics: Path, key: str) -> float:
    return json.loads((metrics / "metrics.json").read_text())[key]["values"][-1]


def test_pymarlzooplus_trains_saves_and_evaluates_the_same_policy_again(tmp_path: Path) -> None:
    """A user's first run: train, save, then evaluate the checkpoint twice through the host's own options."""
    command = [sys.executable, "-m", "limask", "run", "--host", "pymarlzooplus", "--config=qmix_lim"]
    command += ["--env-config=smax", "with", "seed=3", "test_nepisode=8", "env_args.map_name=3m"]
    run([*command, "t_max=400", "batch_size=16", "save_model=True", "learner_log_interval=0"], tmp_path)
    trained = sacred_run(tmp_path / "results", "qmix_lim")
    for key in ("loss", "rec_loss", "mask_rate", "return_mean", "test_return_mean", "test_battle_won_mean"):
        value = last(trained, key)
        assert isinstance(value, (int, float)), f"{key} is logged as {value}"
    checkpoints = sorted((trained / "models").iterdir(), key=lambda path: int(path.name))
    assert {"agent.th", "mixer.th", "opt.th", "autoencoder.th"} <= {p.name for p in checkpoints[-1].iterdir()}
    evaluate = [*command, "evaluate=True", f"checkpoint_path={trained / 'models'}"]
    processes = [
        subprocess.Popen(
            [*evaluate[:4], "--results", str(tmp_path / name), *evaluate[4:]],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parent)},
        )
        for name in ("first", "second")
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    for key in ("test_return_mean", "test_ep_length_mean", "test_battle_won_mean"):
        first, second = (last(sacred_run(tmp_path / name, "qmix_lim"), key) for name in ("first", "second"))
        assert first == second
    assert not (Path(sys.prefix) / "bin" / "results").exists()


def test_a_mistake_is_one_line_and_no_traceback_inside_the_hosts_loop(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "limask", "run", "--host", "pymarlzooplus", "--config=qmix_lim"]
    command += ["--env-config=smax", "with", "lim.masker=randon"]
    env = os.environ | {"PYTHONPATH": str(TESTS.parent)}
    done = subprocess.run(command, cwd=tmp_path, env=env, text=True, capture_output=True, timeout=200)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert "lim.masker='randon'" in line
    assert "did you mean 'random'" in line


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    copy = tmp_path / "epymarl"
    shutil.copytree(EPYMARL[0], copy, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "results"))
    return copy


def git_status(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "status", "--porcelain"]
    return subprocess.run(command, text=True, capture_output=True, check=True).stdout


@NEEDS_EPYMARL
def test_epymarl_installed_runs_stock_and_lim_and_is_clean_after_uninstall(checkout: Path) -> None:
    before = git_status(checkout)
    install(checkout)
    main = [sys.executable, "src/main.py"]
    short = ["t_max=300", "batch_size=8", "test_nepisode=8"]
    for algorithm in ("qmix", "qmix_lim", "mappo_lim"):
        run([*main, f"--config={algorithm}", "--env-config=smax", "with", *short], checkout)
        assert last(checkout / f"results/sacred/{algorithm}/3m/1", "test_return_mean") >= 0
    shutil.rmtree(checkout / "results")
    uninstall(checkout)
    assert git_status(checkout) == before


@NEEDS_EPYMARL
def test_epymarl_runs_unedited_through_limask_run(checkout: Path, tmp_path: Path) -> None:
    before = git_status(checkout)
    command = [
        sys.executable,
        "-m",
        "limask",
        "run",
        "--host",
        str(checkout),
        "--results",
        str(tmp_path / "out"),
    ]
    command += [
        "--config=qmix_lim",
        "--env-config=smax",
        "with",
        "t_max=300",
        "batch_size=8",
        "save_model=True",
    ]
    run(command, tmp_path)
    assert last(sacred_run(tmp_path / "out", "qmix_lim"), "test_return_mean") >= 0
    assert list((tmp_path / "out/models").rglob("autoencoder.th"))
    assert git_status(checkout) == before
    assert not (checkout / "results").exists()
