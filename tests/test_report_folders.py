"""``limask report``: folders of runs that no campaign made, as every host leaves them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from limask.cli import main
from limask.errors import LimaskError
from limask.experiments.report.data import Report
from limask.experiments.report.folders import read_folders
from limask.experiments.report.marl_eval import to_marl_eval
from limask.experiments.report.text import counted
from limask.experiments.storage.sacred_files import Curve, read_curves

STEPS = tuple(range(10, 1000, 100))
QMIX = {
    "name": "qmix", "env": "smax", "env_args": {"map_name": "3m", "seed": 1}, "seed": 1, "t_max": 1000,
    "test_interval": 100, "lr": 0.001, "save_model": False,
}  # fmt: skip


def rising(n_lost: int) -> list[float]:
    """Tests all lost up to the ``n_lost``-th, all won after it."""
    return [0.0] * n_lost + [1.0] * (len(STEPS) - n_lost)


def leave(
    folder: Path,
    won: Sequence[float] | None,
    *,
    checkout: str = "/src/epymarl",
    status: str = "COMPLETED",
    start: str = "2026-01-01T00:00:00",
    in_info: bool = False,
    measure: str = "test_battle_won_mean",
    **config: Any,
) -> Path:
    """Sacred's folder of a run that took 100 seconds."""
    folder.mkdir(parents=True)
    record = {
        "status": status, "start_time": start, "stop_time": f"{start[:-5]}01:40",
        "experiment": {"base_dir": f"{checkout}/src", "dependencies": ["torch==2.13.0"]},
        "host": {"python_version": "3.11.7"},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "config.json").write_text(json.dumps(QMIX | config))
    steps = list(STEPS)[: len(won or ())]
    metrics = {measure: {"steps": steps, "values": won}} if won else {}
    info = {measure: [{"dtype": "float64", "value": value} for value in won or ()], f"{measure}_T": steps}
    (folder / "metrics.json").write_text(json.dumps({} if in_info else metrics))
    (folder / "info.json").write_text(json.dumps(info))
    return folder


def read(*folders: Path, budget: int | None = None) -> Report:
    return read_folders(folders, budget=budget, thresholds=[0.5])


def cells(report: Report) -> dict[tuple[str, str], tuple[int, float]]:
    """By arm and map: runs, and the interquartile mean of their average scores."""
    return {(cell.arm, cell.map): (cell.n_runs, cell.area.value) for cell in report.numbers.cells}


def test_runs_are_grouped_by_config_map_and_seed(tmp_path: Path) -> None:
    sacred = tmp_path / "results/sacred"
    for seed in (1, 2):
        leave(sacred / f"qmix/3m/{seed}", rising(5), seed=seed)
        leave(
            sacred / f"qmix_lim/3m/{seed}", rising(2), seed=seed, name="qmix_lim", env_args={"map_name": "3m"}
        )
        leave(sacred / f"qmix/8m/{seed}", rising(8), seed=seed, env_args={"map_name": "8m", "seed": seed})
    leave(sacred / "qmix/3m/3", None, seed=3, status="RUNNING")
    report = read(tmp_path)
    assert report.title == f"Runs in {tmp_path.name}"
    # Areas: tests at 10, 110, …, 910; a line joins the last lost and the first won, half of it won.
    assert cells(report) == {
        ("qmix", "3m"): (2, pytest.approx(0.54)),
        ("qmix_lim", "3m"): (2, pytest.approx(0.84)),
        ("qmix", "8m"): (2, pytest.approx(0.24)),
    }
    assert report.numbers.ratios[0].arm == "qmix_lim"
    assert counted(report).startswith(
        "6 of 7 runs count (2 arms, 2 maps, 3 seeds, the first 1,000 environment steps each); missing: 1 "
    )
    (running,) = report.missing
    assert (running.id, running.left_out) == ("qmix/3m/seed_3", "no test was logged")
    first = report.runs[0]
    assert (first.status, first.seconds, first.command) == ("finished", 100.0, str(sacred / "qmix/3m/1"))
    assert first.made_with["packages"] == {"torch": "2.13.0"}


def test_arms_and_maps_of_one_name_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    one, two = {"masker": {"ratio": 0.5}, "weight": 1}, {"masker": {"ratio": 0.8}, "weight": 2}
    leave(tmp_path / "sacred/1", rising(5), lim=one)
    leave(tmp_path / "sacred/2", rising(5), lim=one, seed=2, save_model=True, t_max=1010)  # the same training
    leave(tmp_path / "sacred/3", rising(5), lim=two)
    leave(tmp_path / "sacred/4", rising(5), lim=two, env_args={"map_name": "3m", "sight_range": 0.5})
    leave(tmp_path / "sacred/5", rising(5), checkout="/src/pymarl2", rnn_hidden_dim=64)
    zoo = leave(tmp_path / "sacred/6", rising(5), name="vdn")
    (zoo / "run.json").write_text('{"experiment": {"base_dir": "/venv/pymarlzooplus"}}')
    # As few options are named as it takes (here lim.masker.ratio), by the last part of their names.
    assert {key: n for key, (n, _) in cells(read(tmp_path)).items()} == {
        ("qmix epymarl ratio=0.5", "3m no sight_range"): 2,
        ("qmix epymarl ratio=0.8", "3m no sight_range"): 1,
        ("qmix epymarl ratio=0.8", "3m sight_range=0.5"): 1,
        ("qmix pymarl2", "3m no sight_range"): 1,
        ("vdn", "3m no sight_range"): 1,
    }


def test_a_run_that_was_made_twice_counts_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(tmp_path / "sacred/1", rising(8), start="2026-01-01T00:00:00")
    later = leave(tmp_path / "sacred/2", rising(2), start="2026-01-02T00:00:00")
    leave(tmp_path / "sacred/3", rising(9), start="2026-01-03T00:00:00", status="INTERRUPTED")
    leave(tmp_path / "sacred/4", rising(9), seed=4, evaluate=True)
    assert [run.command for run in read(tmp_path, later).runs] == [str(later)]
    told = capsys.readouterr().err
    assert f"left out: {tmp_path}/sacred/1: config, map and seed are those of {later}" in told
    assert f"left out: {tmp_path}/sacred/3: config, map and seed are those of {later}" in told
    assert f"left out: {tmp_path}/sacred/4: it evaluated a checkpoint" in told


def test_what_pymarl_leaves_in_info_is_read_as_well(tmp_path: Path) -> None:
    folder = leave(tmp_path / "sacred/1", rising(5), in_info=True)
    assert read_curves(folder) == {"test_battle_won_mean": Curve(tuple(map(float, STEPS)), tuple(rising(5)))}
    assert cells(read(tmp_path)) == {("qmix", "3m"): (1, pytest.approx(0.54))}


def test_runs_are_compared_over_what_the_shortest_has_or_the_budget(tmp_path: Path) -> None:
    leave(tmp_path / "sacred/1", rising(5), t_max=5000)
    with pytest.raises(
        LimaskError,
        match="none of the 1 runs can be reported on .*ends at step 910.* of 5000.* --budget STEPS takes",
    ):
        read(tmp_path)
    assert read(tmp_path, budget=1000).numbers.budgets() == [1000]
    leave(tmp_path / "sacred/2", rising(5), seed=2, t_max=900)
    report = read(tmp_path)
    assert (report.numbers.budgets(), report.campaign.test_interval, len(report.numbers.scores)) == (
        [900],
        100,
        2,
    )


def test_a_run_of_limasks_that_diverged_has_learned_nothing_from_then_on(tmp_path: Path) -> None:
    leave(tmp_path / "a/sacred/1", rising(0)[:5], status="FAILED")
    (tmp_path / "a/diverged.txt").write_text("TD loss is nan at t_env=500")
    leave(tmp_path / "b/sacred/1", rising(0), seed=2)
    report = read(tmp_path)
    assert [(score.seed, score.final) for score in report.numbers.scores] == [(1, 0.0), (2, 1.0)]
    assert [run.status for run in report.runs] == ["diverged", "finished"]


def test_curves_for_marl_eval(tmp_path: Path) -> None:
    """At the steps that all runs of the environment have; returns where no win rate is logged."""
    leave(tmp_path / "sacred/1", rising(5), env_args={"map_name": "3m"})
    leave(tmp_path / "sacred/2", rising(2), env_args={"map_name": "8m"}, seed=2)
    returns, lbf = "test_return_mean", {"key": "lbforaging:Foraging-8x8-2p-3f-v3"}
    leave(tmp_path / "sacred/3", [0.5] * 10, env="gymma", measure=returns, env_args=lbf)
    written = to_marl_eval(read(tmp_path))
    assert {name: {key: list(arms) for key, arms in maps.items()} for name, maps in written.items()} == {
        "smax": {"3m": ["qmix"], "8m": ["qmix"]},
        "gymma": {"lbforaging:Foraging-8x8-2p-3f-v3": ["qmix"]},
    }
    run = written["smax"]["3m"]["qmix"]["seed_1"]
    # Steps 100 to 900 lie between the first test and the last, at 10 and 910; step 500 nine tenths of the way
    # from the last lost one to the first won one.
    assert list(run) == [*(f"step_{n}" for n in range(9)), "absolute_metrics"]
    assert [run[f"step_{n}"]["step_count"] for n in range(9)] == list(range(100, 1000, 100))
    assert run["step_3"]["win_rate"] == [0.0] and run["step_5"]["win_rate"] == [1.0]
    assert run["step_4"]["win_rate"] == [pytest.approx(0.9)]
    assert run["absolute_metrics"] == {"win_rate": [1.0]}
    other = written["gymma"]["lbforaging:Foraging-8x8-2p-3f-v3"]["qmix"]["seed_1"]
    assert other["step_0"] == {"step_count": 100, "return": [0.5]}


def test_the_command_writes_a_report_and_does_not_replace_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2, 3):
        leave(tmp_path / f"results/sacred/qmix/3m/{seed}", rising(5), seed=seed)
        leave(tmp_path / f"results/sacred/vdn/3m/{seed}", rising(7), seed=seed, name="vdn")
    assert main(["report", "results"]) == 0
    assert "Report: report/report.html" in capsys.readouterr().out
    page = (tmp_path / "report/report.html").read_text()
    assert "<h1>Runs in results</h1>" in page
    assert "limask campaign run" not in page and "Campaign" not in page
    assert "<p>qmix/3m/seed_1</p><pre>results/sacred/qmix/3m/1</pre>" in page
    assert "# Runs in results" in (tmp_path / "report/report.md").read_text()
    assert json.loads((tmp_path / "report/marl_eval.json").read_text())["smax"]["3m"].keys() == {
        "qmix",
        "vdn",
    }
    assert main(["report", "results"]) == 2
    assert "report/report.html is there already" in capsys.readouterr().err
    assert main(["report", "results", "--force", "--budget", "900"]) == 0
    for arguments, words in (
        (["nowhere"], "nowhere is not there"),
        (["report"], "report holds no run: expected folders as sacred writes them"),
        (["results", "--budget", "0"], "--budget=0: expected at least 1"),
        (["results", "--thresholds", "1.5"], "--thresholds 1.5: expected win rates"),
    ):
        assert main(["report", *arguments, "--output", "other"]) == 2
        told = capsys.readouterr().err
        assert words in told and told.count("\n") == 1
        assert not (tmp_path / "other").exists()
