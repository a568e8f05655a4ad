"""``limask bench peers``: the table by hand, what is refused, and real runs, of JaxMARL by a stand-in."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from limask.cli import main
from limask.experiments.bench import peers
from limask.experiments.bench.peers import Point, first_at, jaxmarl_settings, table
from limask.experiments.display import markdown_table

#: As much of JaxMARL's script as is looked at: it "trains" by telling Weights & Biases what it was given.
QMIX = """
import wandb


def single_run(config):
    config = {**config, **config["alg"]}
    assert config["WANDB_MODE"] != "disabled" and config["SAVE_PATH"] is None
    wandb.init(project=config["PROJECT"], mode=config["WANDB_MODE"])
    per_update = config["NUM_ENVS"] * config["NUM_STEPS"]
    n_updates = config["TOTAL_TIMESTEPS"] // per_update
    won = 0.0
    for update in range(1, n_updates + 1):
        if update % int(n_updates * config["TEST_INTERVAL"]) == 0:
            won = update / n_updates
        wandb.log({
            "env_step": update * per_update,
            "test_returned_won_episode": won,
            "test_returned_episode_returns": won * 2,
        })
"""


@pytest.fixture
def jaxmarl(tmp_path: Path) -> Path:
    """A checkout of JaxMARL as far as it matters here."""
    folder = tmp_path / "jaxmarl/baselines/QLearning"
    (folder / "config/alg").mkdir(parents=True)
    (folder / "qmix_rnn.py").write_text(QMIX)
    (folder / "config/config.yaml").write_text("PROJECT: ''\nWANDB_MODE: disabled\nSAVE_PATH: models\n")
    (folder / "config/alg/ql_rnn_smax.yaml").write_text("NUM_ENVS: 16\nLR: 0.00005\nGAMMA: 0.99\n")
    return tmp_path / "jaxmarl"


def curve(*rates: float) -> list[Point]:
    """A test each 10 steps and 3 CPU seconds."""
    return [Point(10 * i, rate, 3.0 * i) for i, rate in enumerate(rates)]


def test_the_table_by_hand() -> None:
    curves = {
        ("qmix", "3m", 0): curve(0, 0, 0.6, 0.6, 0.6),  # three tests from step 20 on
        ("qmix", "3m", 1): curve(0, 0.9, 0.9, 0.9, 0.9),  # already 0.6 from 0 on, and 0.9 from 10 on
        ("qmix", "3m", 2): curve(0, 0, 0, 0, 0.9),  # one lucky test is not enough
        ("ours", "3m", 0): curve(0.8, 0.8, 0.8),
    }
    text = markdown_table(table(curves)).splitlines()
    assert text[0].split(" | ")[3:] == ["CPU s to 50 %", "steps to 50 %", "CPU s to 80 %", "steps to 80 % |"]
    assert text[2] == (
        "| 3m | qmix | 12 (12, 12, 12) | 6 (6, 0, –) | 20 (20, 0, –) | – (–, 3, –) | – (–, 10, –) |"
    )
    assert text[3] == "| 3m | ours | 6 (6) | 0 (0) | 0 (0) | 0 (0) | 0 (0) |"


def test_where_a_run_gets_there() -> None:
    assert first_at(curve(0, 0, 0, 0.4, 1, 1), 0.5) == Point(30, 0.4, 9.0)
    assert first_at(curve(0, 1), 0.5) is None


@pytest.mark.parametrize("steps", [50_000, 150_000, 333_333])
def test_jaxmarl_is_tested_as_often_and_learns_as_much(steps: int) -> None:
    given = jaxmarl_settings("3m", 7, steps)
    n_updates = steps // 1024
    assert int(n_updates * given["TEST_INTERVAL"]) == 10  # type: ignore[operator]
    learned = given["NUM_EPOCHS"] * given["BUFFER_BATCH_SIZE"] * given["NUM_STEPS"]  # type: ignore[operator]
    assert learned / 1024 == 32
    assert given["EPS_DECAY"] * steps == pytest.approx(50_000)  # type: ignore[operator]


def test_a_race(
    jaxmarl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "HOSTS", {"qmix_fc": peers.HOSTS["qmix_fc"]})
    monkeypatch.setattr(peers, "_COMMON", ("test_interval=1000", "test_nepisode=8", "buffer_size=256"))
    monkeypatch.setattr("limask.experiments.bench.run._LEAST_STEPS", 1)
    output = tmp_path / "out"
    command = ["bench", "peers", "--maps", "3m", "--seeds", "4", "--steps", "2048", "--output", str(output)]
    monkeypatch.setattr(peers, "TEST_INTERVAL", 1000)
    assert main([*command, "--jaxmarl", str(jaxmarl)]) == 0
    rows = list(csv.DictReader((output / "peers.csv").open()))
    theirs, ours = ([row for row in rows if row["peer"] == peer] for peer in ("jaxmarl", "qmix_fc"))
    assert [(row["steps"], row["win_rate"]) for row in theirs][-2:] == [("1024", "0.5"), ("2048", "1.0")]
    assert len(ours) >= 2 and all(row["seed"] == "4" for row in rows)
    seconds = [float(row["cpu_seconds"]) for row in ours]
    assert 1 < seconds[0] <= seconds[-1], "they count from the start of the process"
    told = capsys.readouterr()
    assert "jaxmarl on 3m, seed 4" in told.err and "| 3m | qmix_fc | " in told.out
    monkeypatch.setattr(peers.subprocess, "run", lambda *args, **kwargs: pytest.fail("trained again"))
    assert main([*command, "--jaxmarl", str(jaxmarl)]) == 0
    assert main([*command, "--jaxmarl", str(jaxmarl), "--peers", "jaxmarl"]) == 0
    assert {row["peer"] for row in csv.DictReader((output / "peers.csv").open())} == {"jaxmarl"}
    (jaxmarl / "baselines/QLearning/qmix_rnn.py").unlink()
    assert main([*command, "--jaxmarl", str(jaxmarl)]) == 2
    assert "expected a checkout of JaxMARL" in capsys.readouterr().err


def test_a_run_that_fails_is_told_of(
    jaxmarl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (jaxmarl / "baselines/QLearning/qmix_rnn.py").write_text("import nothing_of_that_name\n")
    output = tmp_path / "out"
    assert main(["bench", "peers", "--jaxmarl", str(jaxmarl), "--output", str(output)]) == 2
    told = capsys.readouterr().err
    assert "ended with status 1" in told and "No module named 'nothing_of_that_name'" in told
    assert not list(output.glob("curves/*.csv")), "half a curve is none"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--steps 20000", "--steps 20000: expected at least 50000"),
        ("--maps 3m 3m", "--maps 3m 3m: one of them is there twice"),
        ("--maps 3n", "'3n' is no SMAX scenario"),
        ("--python /no/python", "--python /no/python: no such program"),
        ("--peers jaxmarl", "--peers jaxmarl: expected --jaxmarl with a checkout"),
        ("--peers qmix qmix", "--peers qmix qmix: one of them is there twice"),
    ],
)
def test_bad_options(options: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert main(["bench", "peers", *options.split(), "--output", str(output)]) == 2
    assert words in capsys.readouterr().err
    assert not output.exists()
