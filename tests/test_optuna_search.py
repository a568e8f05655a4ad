"""``examples/optuna_search.py``: what a trial is worth, and a small search through a real host."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from example_parts import EXAMPLES, load_example

optuna = pytest.importorskip("optuna", reason="examples/optuna_search.py needs optuna")
FILE = EXAMPLES / "optuna_search.py"
search = load_example("optuna_search")


def write_run(results: Path, *values: float) -> None:
    """What ``limask run`` leaves of a run with these tests."""
    run = results / "sacred/qmix_lim/3m/1"
    run.mkdir(parents=True)
    tests = {"steps": list(range(len(values))), "values": values}
    (run / "metrics.json").write_text(json.dumps({"test_battle_won_mean": tests}))


def test_score_by_hand(tmp_path: Path) -> None:
    """The mean of the last five."""
    write_run(tmp_path / "a", 1.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    assert search.score(tmp_path / "a") == pytest.approx(0.3)
    write_run(tmp_path / "b", 0.5, 1.0)
    assert search.score(tmp_path / "b") == pytest.approx(0.75)
    with pytest.raises(ValueError, match="has no test of a run"):
        search.score(tmp_path / "c")


def test_an_interrupted_search_goes_on_and_failed_runs_end_their_trial_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    calls: list[tuple[int, str]] = []

    def train(options: Any, chosen: dict[str, object], seed: int, results: Path) -> float:
        calls.append((seed, results.parts[-2]))
        if results.parts[-2] == "trial_1":
            raise subprocess.CalledProcessError(1, "limask")
        return float(seed)

    monkeypatch.setattr(search, "train", train)
    study = search.main(["--trials", "1", "--seeds", "2", "4"])
    assert study.best_value == 3.0
    study = search.main(["--trials", "3", "--seeds", "2", "4"])
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert calls == [(2, "trial_0"), (4, "trial_0"), (2, "trial_1"), (2, "trial_2"), (4, "trial_2")]
    assert set(study.best_params) == {
        "lr",
        "lim.masker.ratio",
        "lim.autoencoder.weight",
        "lim.autoencoder.warmup",
    }


def test_a_trial_through_pymarlzooplus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its options are the host's and limask's own: a wrong name would end the run."""
    monkeypatch.chdir(tmp_path)
    small = ["env_args.map_name=3m", "batch_size=8", "buffer_size=20", "test_nepisode=8"]
    study = search.main([*small, "--trials", "1", "--steps", "400", "--seeds", "1"])
    assert 0 <= study.best_value <= 1
    assert "Finished Training" in (tmp_path / "search/trial_0/seed_1/log.txt").read_text()
