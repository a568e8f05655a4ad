"""``limask campaign report`` on folders written by hand, and its page in a real browser."""

from __future__ import annotations

import base64
import errno
import html
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from limask import cli, files
from limask.errors import LimaskError
from limask.experiments.campaign.folder import CampaignFolder, Outcome
from limask.experiments.campaign.plan import Campaign
from limask.experiments.evaluation.evaluate_output import Row, write_csv
from limask.experiments.report import tables, text
from limask.experiments.report.data import Estimate, Ratio
from limask.experiments.report.numbers import compared, on_grid
from limask.experiments.report.page import page
from limask.experiments.report.plots import pictures
from limask.experiments.report.runs import read_report
from limask.experiments.report.write import report_campaign
from limask.experiments.statistics import Interval
from limask.experiments.storage.sacred_files import Curve
from limask.files import write_json

BLOCK: dict[str, Any] = {
    "host": "pymarlzooplus",
    "t_max": 1000,
    "test_interval": 100,
    "thresholds": [0.5, 0.8],
    "seeds": [0, 1],
    "arms": {"base": {"config": "qmix_fc"}, "ours": {"config": "qmix_lim"}},
    "environments": {"3m": {"env_config": "smax"}},
}

#: Tests a little after each round step, as hosts make them.
STEPS = (10, 110, 210, 310, 410, 510, 610, 710, 810, 910)

FILM = Path(__file__).parents[1] / "docs/assets/jammed.gif"


def campaign_folder(root: Path, **changed: Any) -> CampaignFolder:
    folder = CampaignFolder(root, Campaign.from_block({**BLOCK, **changed}))
    root.mkdir()
    write_json(root / "campaign.json", folder.campaign.to_block())
    return folder


def write_run(
    folder: CampaignFolder,
    name: str,
    won: Sequence[float] | None,
    /,
    *,
    steps: Sequence[float] = STEPS,
    returns: Sequence[float] | None = None,
    outcome: Outcome | None = None,
    **config: Any,
) -> Path:
    """An attempt at the run ``name`` as the campaign and its host leave it; returns its folder."""
    run = next(run for run in folder.campaign.runs() if run.id == name)
    attempt = folder.next_attempt(run)
    record = {
        "run": name,
        "options": {"seed": run.seed},
        "command": folder.campaign.command(run, attempt.results),
        "started": "2026-01-01T00:00:00+00:00",
        "python": "3.11.7",
        "packages": {"limask": "0.1.0", "torch": "2.13.0"},
        "gpus": None,
    }
    attempt.create(record)
    sacred = attempt.results / "sacred" / run.arm.config / run.environment.id / "1"
    sacred.mkdir(parents=True)
    write_json(sacred / "config.json", {"seed": run.seed, "batch_size": 32, "batch_size_run": 8, **config})
    metrics = {
        "test_battle_won_mean": won,
        "test_return_mean": returns,
        "episode": [10.0 * step for step in steps],
    }
    logged = {
        key: {"steps": list(steps)[: len(values)], "values": list(values)}
        for key, values in metrics.items()
        if values is not None
    }
    write_json(sacred / "metrics.json", logged)
    attempt.settle(outcome or Outcome("finished", 100.0))
    return attempt.folder


def example(root: Path) -> CampaignFolder:
    """Three arms on two maps, five seeds, in which runs of every kind occur."""
    maps = {"3m": {"env_config": "smax"}, "3m_sight_0.6": {"env_config": "smax"}}
    arms = {name: {"config": name} for name in ("qmix_fc", "qmix_entity", "qmix_lim")}
    folder = campaign_folder(
        root, t_max=200_000, test_interval=10_000, seeds=list(range(5)), arms=arms, environments=maps
    )
    generator = np.random.default_rng(0)
    half = {"qmix_fc": 90_000, "qmix_entity": 70_000, "qmix_lim": 45_000}
    for run in folder.campaign.runs():
        steps = np.arange(20) * 10_050 + 144
        slow = 1.6 if run.environment.id == "3m_sight_0.6" else 1.0
        middle = half[run.arm.id] * slow * generator.uniform(0.7, 1.3)
        won = generator.binomial(32, 0.95 / (1 + np.exp((middle - steps) / 12_000))) / 32
        n_tests, outcome = 20, Outcome("finished", 200 + 10 * generator.random())
        if run.id == "qmix_fc/3m_sight_0.6/seed_1":
            won *= 0
        if run.id == "qmix_entity/3m_sight_0.6/seed_2":
            n_tests, outcome = 8, Outcome("diverged", 90.0, "TD loss is nan at t_env=80212")
        if run.id == "qmix_lim/3m_sight_0.6/seed_4":
            for _ in range(2):
                write_run(folder, run.id, None, outcome=Outcome("failed", 3.0, "exit status 1: <no good>"))
            outcome = Outcome("failed", 3.0, "exit status 1: <no good>")
        lim = {"trunk": "fc" if run.arm.id == "qmix_fc" else "entity", "minibatches": "auto"}
        write_run(folder, run.id, won[:n_tests].tolist(), steps=steps.tolist(), outcome=outcome, lim=lim)
    return folder


# -- numbers --------------------------------------------------------------------------------------------

NEVER = [0.0] * 10


def rising(n_lost: int) -> list[float]:
    """Tests all lost up to the ``n_lost``-th, all won after it."""
    return [0.0] * n_lost + [1.0] * (10 - n_lost)


@pytest.fixture
def two_arms(tmp_path: Path) -> CampaignFolder:
    """One seed of the baseline fails to learn; all others learn at a known step."""
    folder = campaign_folder(tmp_path / "two")
    for name, won in (("base/3m/seed_0", rising(5)), ("base/3m/seed_1", NEVER)):
        write_run(folder, name, won)
    for name, won in (("ours/3m/seed_0", rising(1)), ("ours/3m/seed_1", rising(2))):
        write_run(folder, name, won, lim={"trunk": "entity"})
    return folder


def test_numbers_by_hand(two_arms: CampaignFolder) -> None:
    numbers = read_report(two_arms.root).numbers
    # Two of three tests in a row won average 2/3: the first of them is one before the first that is won.
    times = {(score.arm, score.seed): score.times for score in numbers.scores}
    assert times["base", 0] == {0.5: 410, 0.8: 510}
    assert times["base", 1] == {0.5: None, 0.8: None}
    assert times["ours", 0] == {0.5: 10, 0.8: 110}
    assert times["ours", 1] == {0.5: 110, 0.8: 210}
    base, ours = numbers.cells
    assert (base.n_runs, base.reached, ours.reached) == (2, {0.5: 0.5, 0.8: 0.5}, {0.5: 1.0, 0.8: 1.0})
    assert base.restricted_mean == {0.5: (410 + 1000) / 2, 0.8: (510 + 1000) / 2}
    assert ours.restricted_mean == {0.5: 60, 0.8: 160}
    # A run of the baseline was cut off: it would have needed more steps, and the ratio is an upper bound.
    assert [ratio.bound for ratio in numbers.ratios] == ["≤", "≤"]
    assert [ratio.estimate and ratio.estimate.value for ratio in numbers.ratios] == [
        pytest.approx(60 / 705),
        pytest.approx(160 / 755),
    ]
    assert (base.final.value, ours.final.value) == (0.5, 1.0)
    # From 410 to 510 the line rises from 0 to 1, and then it is 1 to the end at 1000.
    assert base.area.value == pytest.approx((0.5 * 0.1 + 0.49 + 0) / 2)
    assert ours.area.value == pytest.approx((0.5 * 0.1 + 0.89 + 0.5 * 0.1 + 0.79) / 2)
    # Of the four pairs two are ties.
    assert numbers.improvements[0].estimate.value == 0.75
    curve = next(curve for curve in numbers.survival if (curve.arm, curve.threshold) == ("base", 0.5))
    assert (curve.steps, curve.not_yet) == ([410], [0.5])
    # Shares of runs above each score that occurs: one of two, then none; both, then none.
    profiles = [[(at, share.value) for at, share in overall.profile] for overall in numbers.overall]
    assert profiles == [[(0.0, 0.5), (1.0, 0.0)], [(0.0, 1.0), (1.0, 0.0)]]


def test_curves_on_the_grid(two_arms: CampaignFolder) -> None:
    band = read_report(two_arms.root).numbers.bands[0]
    # Neither 0, before the first test, nor 1000, after the last one.
    assert band.steps == list(range(100, 1000, 100))
    # Seed 0 is at 0.9 a tenth before the test at 510, seed 1 at 0.
    assert band.values[4].value == pytest.approx(0.45)
    curve = Curve((10.0, 20.0, 40.0), (1.0, 0.0, math.nan))
    assert on_grid(curve, [0, 10, 15, 20, 30, 40, 50], -2.0) == [None, 1.0, 0.5, 0.0, -2.0, -2.0, None]
    assert on_grid(Curve(), [0, 10], 0.0) == [None, None]


def test_a_band_is_drawn_only_where_all_runs_have_tests(tmp_path: Path) -> None:
    folder = campaign_folder(tmp_path / "c")
    write_run(folder, "ours/3m/seed_0", rising(1))
    write_run(folder, "ours/3m/seed_1", rising(1)[:9], steps=STEPS[:9])
    (band,) = read_report(folder.root).numbers.bands
    assert band.steps == list(range(100, 900, 100))


def test_what_lies_behind_the_budget_was_not_reached(tmp_path: Path) -> None:
    folder = campaign_folder(tmp_path / "c", seeds=[0])
    write_run(folder, "ours/3m/seed_0", [*NEVER, 0.0, 1.0, 1.0], steps=(*STEPS, 1010, 1110, 1210))
    (score,) = read_report(folder.root).numbers.scores
    assert (score.times, score.final) == ({0.5: None, 0.8: None}, 0)


def test_each_map_is_judged_over_its_own_budget(tmp_path: Path) -> None:
    """On the longer map tests go on to 1810: who never wins counts with 2000 steps there."""
    maps = {"3m": {"env_config": "smax"}, "8m": {"env_config": "smax", "t_max": 2000}}
    folder = campaign_folder(tmp_path / "c", seeds=[0], environments=maps)
    longer = (*STEPS, *(step + 900 for step in STEPS[1:]))
    for arm, short, long in (("base", NEVER, [0.0] * 19), ("ours", rising(5), [0.0] * 9 + [1.0] * 10)):
        write_run(folder, f"{arm}/3m/seed_0", short)
        write_run(folder, f"{arm}/8m/seed_0", long, steps=longer)
    report = read_report(folder.root)
    numbers = report.numbers
    means = {(cell.arm, cell.map): cell.restricted_mean[0.5] for cell in numbers.cells}
    ours = {"3m": 410, "8m": 810}  # the test before the first one won: two of three average 2/3
    assert means == {
        ("base", "3m"): 1000, ("base", "8m"): 2000, ("ours", "3m"): ours["3m"], ("ours", "8m"): ours["8m"],
    }  # fmt: skip
    ratios = [ratio.estimate.value for ratio in numbers.ratios if ratio.threshold == 0.5 and ratio.estimate]
    assert ratios == pytest.approx([0.41, 0.405, (0.41 * 0.405) ** 0.5])
    assert [band.steps[-1] for band in numbers.bands] == [900, 900, 1800, 1800]
    assert "the first 1,000" not in text.counted(report)
    assert "1,000 to 2,000 environment steps each" in text.counted(report)
    axes = Figure().subplots(2)
    for panel, ax in zip(pictures(numbers)["learning_curves"], axes, strict=True):
        panel.draw(ax)
    assert [ax.get_xlim() for ax in axes] == [(0, 1000), (0, 2000)]


def test_divergence_is_a_result(tmp_path: Path) -> None:
    folder = campaign_folder(tmp_path / "c", seeds=[0, 1, 2])
    nan = Outcome("diverged", 9.0, "TD loss is nan at t_env=512")
    write_run(folder, "ours/3m/seed_0", rising(1)[:5], outcome=nan)
    write_run(folder, "ours/3m/seed_1", None, outcome=nan)
    write_run(folder, "ours/3m/seed_2", rising(1))
    report = read_report(folder.root)
    late, at_once, never = report.numbers.scores
    # What was reached before stays reached; from then on nothing is won.
    assert late.times == {0.5: 10, 0.8: 110} and at_once.times == {0.5: None, 0.8: None}
    assert (late.final, at_once.final, never.final) == (0, 0, 1)
    assert late.area == pytest.approx(0.05 + 0.3) and at_once.area == 0
    (cell,) = report.numbers.cells
    assert (cell.n_runs, cell.n_diverged) == (3, 2)
    band = report.numbers.bands[0]
    at = dict(zip(band.steps, (value.value for value in band.values), strict=True))
    # IQM of three runs is their mean: at 400 two have all won, at 500 and after one has.
    assert at[400] == pytest.approx(2 / 3) and at[500] == at[900] == pytest.approx(1 / 3)
    assert [run.status for run in report.runs if not run.left_out] == ["diverged", "diverged", "finished"]
    assert "2 of them diverged" in text.counted(report)


def test_runs_that_are_left_out(tmp_path: Path) -> None:
    folder = campaign_folder(tmp_path / "c", seeds=[0, 1, 2], max_attempts=1)
    write_run(folder, "base/3m/seed_0", rising(5))
    write_run(folder, "base/3m/seed_1", None, outcome=Outcome("failed", 1.0, "exit status 1: no good"))
    write_run(folder, "base/3m/seed_2", rising(5)[:2], steps=(10, 900))
    broken = write_run(folder, "ours/3m/seed_0", rising(1))
    next(broken.rglob("metrics.json")).write_text('{"test_return_mean": {"steps": null, "values": []}}')
    write_run(folder, "ours/3m/seed_1", rising(1))
    report = read_report(folder.root)
    left_out = {run.id: run.left_out for run in report.missing}
    assert left_out == {
        "base/3m/seed_1": "exit status 1: no good",
        "base/3m/seed_2": "2 evaluations up to budget=1000: expected at least k=3",
        "ours/3m/seed_0": "metrics.json is damaged",
        "ours/3m/seed_2": "not finished yet",
    }
    counted = "2 of 6 planned runs count (2 arms × 1 map × 3 seeds, 1,000 environment steps each); missing: "
    assert text.counted(report).startswith(counted)
    assert "1 crashed" in text.counted(report) and "2 left out" in text.counted(report)
    assert "(4 of 6)" in text.cautions(report)[0]
    assert len(text.cautions(report)) == 2


def test_an_arm_without_runs_is_named(tmp_path: Path) -> None:
    folder = campaign_folder(tmp_path / "c", seeds=[0])
    write_run(folder, "base/3m/seed_0", rising(5))
    report = read_report(folder.root)
    assert text.headlines(report) == ["Only base has runs that count: there is nothing to compare it with."]
    assert "No run of ours counts: nothing is said of it." in text.cautions(report)


def test_a_single_seed_has_no_interval(tmp_path: Path) -> None:
    folder = campaign_folder(tmp_path / "c", seeds=[0])
    write_run(folder, "base/3m/seed_0", rising(5))
    write_run(folder, "ours/3m/seed_0", rising(1))
    report = read_report(folder.root)
    estimates = [cell.final for cell in report.numbers.cells] + [
        ratio.estimate for ratio in report.numbers.ratios
    ]
    assert estimates and not any(estimate and estimate.is_interval for estimate in estimates)
    assert text.headlines(report)[0] == (
        "To a win rate of 50 %, ours needed 98 % fewer environment steps than base on 3m (ratio 0.02); with "
        "one seed there is no interval, and another seed may turn this round."
    )
    assert text.cautions(report) == [
        "An arm has only one run on a map: its numbers come without an interval."
    ]


@pytest.mark.parametrize(
    ("bound", "value", "words"),
    [
        ("≤", 0.61, "ours needs at least 39 % fewer environment steps than base .* ratio is ≤ 0.61"),
        ("≥", 0.61, "ours needs at most 39 % fewer environment steps than base .* ratio is ≥ 0.61"),
        ("≥", 1.4, "ours needs at least 40 % more environment steps than base .* ratio is ≥ 1.40"),
        ("≤", 1.4, "ours needs at most 40 % more environment steps than base .* ratio is ≤ 1.40"),
    ],
)
def test_ratios_of_runs_that_were_cut_off_are_bounds(bound: Any, value: float, words: str) -> None:
    estimate = Estimate(value, value - 0.01, value + 0.01)
    ratio = Ratio("ours", "base", 0.5, ["a"], estimate, True, bound)
    assert re.search(words, text.ratio_sentence(ratio, [1000]))


def test_what_nothing_reached_and_what_one_run_shows_is_not_drawn(tmp_path: Path) -> None:
    folder = campaign_folder(tmp_path / "c", seeds=[0])
    write_run(folder, "base/3m/seed_0", [0.6] * 10)
    report = read_report(folder.root)
    drawn = pictures(report.numbers)
    assert [panel.title for panel in drawn["survival"]] == ["3m, win rate 50 %"]
    assert "profile" not in drawn and [panel.is_wide for panel in drawn["learning_curves"]] == [True]
    assert text.never_reached(report) == [
        "No run reaches a win rate of 80 % on 3m within 1,000 environment steps."
    ]
    assert text.counted(report).startswith("1 of 2 planned runs count (2 arms")
    shown = page(report)
    assert text.never_reached(report)[0].replace(" %", "\u00a0%") in shown
    assert shown.count('<figure class="broad">') == shown.count('<figure class="narrow">') == 1


def test_a_lone_run_counts(tmp_path: Path) -> None:
    arms = {"base": {"config": "qmix_fc"}}
    folder = campaign_folder(tmp_path / "c", seeds=[0], arms=arms)
    write_run(folder, "base/3m/seed_0", rising(5))
    assert text.counted(read_report(folder.root)).startswith("1 of 1 planned run counts (1 arm × 1 map × 1")


def test_options_are_told_once(tmp_path: Path) -> None:
    """In the table of arms; beside a run only where it differs from what stands there."""
    folder = campaign_folder(tmp_path / "c")
    for seed in (0, 1):
        write_run(folder, f"base/3m/seed_{seed}", NEVER, lr=1)
        write_run(folder, f"ours/3m/seed_{seed}", NEVER, lr=2)
    report = read_report(folder.root)
    assert tables.arms(report).rows[1][-1] == "lr=2" and tables.runs(report).header[-1] == "note"
    shutil.rmtree(folder.root / "runs/ours/3m/seed_1")
    write_run(folder, "ours/3m/seed_1", NEVER, lr=3)
    report = read_report(folder.root)
    assert tables.runs(report).header[-1] == "options unlike base's"
    assert [row[-1] for row in tables.runs(report).rows] == ["none", "lr=2", "none", "lr=3"]


def test_what_is_compared() -> None:
    assert compared(["a"]) == []
    assert compared(["a", "b"]) == [("b", "a")]
    assert compared(["a", "b", "c", "d"]) == [("d", "a"), ("d", "b"), ("d", "c"), ("b", "a"), ("c", "a")]


@pytest.mark.parametrize(
    ("estimate", "is_reached", "words"),
    [
        (
            Estimate(0.73, 0.61, 0.88),
            True,
            "ours needs 27 % fewer .* base over 2 maps: .* 0.73, .* 0.61 to 0.88",
        ),
        (Estimate(1.4, 1.1, 1.8), True, "ours needs 40 % more environment steps than base"),
        (Estimate(0.9, 0.7, 1.2), True, "No difference .* ratio is 0.90, .* 0.70 to 1.20, contains 1"),
        (Estimate(1.0, 1.0, 1.0), False, "No run of ours or base reached a win rate of 50 % within 1,000"),
        (None, True, "no ratio of ours to base over 2 maps, as a run wins that often untrained"),
    ],
)
def test_headline_says_it_either_way(estimate: Estimate | None, is_reached: bool, words: str) -> None:
    ratio = Ratio("ours", "base", 0.5, ["a", "b"], estimate, is_reached)
    assert re.search(words, text.ratio_sentence(ratio, [1000]))


def test_a_run_that_wins_untrained_has_no_ratio(tmp_path: Path) -> None:
    folder = campaign_folder(tmp_path / "c", seeds=[0])
    write_run(folder, "base/3m/seed_0", rising(5))
    write_run(folder, "ours/3m/seed_0", rising(0), steps=(0, *STEPS[1:]))
    assert [ratio.estimate for ratio in read_report(folder.root).numbers.ratios] == [None, None]


def test_maps_that_only_one_arm_has_are_not_compared(tmp_path: Path) -> None:
    maps = {"3m": {"env_config": "smax"}, "8m": {"env_config": "smax"}}
    folder = campaign_folder(tmp_path / "c", seeds=[0], environments=maps)
    for name in ("base/3m", "ours/3m", "base/8m"):
        write_run(folder, f"{name}/seed_0", rising(3))
    report = read_report(folder.root)
    assert [ratio.maps for ratio in report.numbers.ratios] == [["3m"], ["3m"]]
    assert [overall.maps for overall in report.numbers.overall] == [["3m", "8m"], ["3m"]]
    assert tables.ablation(report).rows[-1][:3] == ["3m", "ours", "1"]


# -- records --------------------------------------------------------------------------------------------


def test_configs_commands_and_versions(tmp_path: Path) -> None:
    checkout = tmp_path / "epymarl"
    folder = campaign_folder(tmp_path / "c", host=str(checkout), seeds=[0])
    write_run(folder, "base/3m/seed_0", NEVER, lim={"trunk": "fc", "rec": 1}, label="a")
    write_run(folder, "ours/3m/seed_0", NEVER, lim={"trunk": "entity"}, batch_size=64, label="b")
    report = read_report(folder.root)
    base, ours = report.runs
    assert (base.differs, ours.differs) == ("none", "batch_size=64 no lim.rec lim.trunk=entity")
    results = "c/runs/ours/3m/seed_0/attempt_1/results"
    assert ours.command == (
        f"python -m limask run --host epymarl --results {results} --config=qmix_lim --env-config=smax with "
        "t_max=1000 test_interval=100 seed=0"
    )
    assert tables.made_with(report).rows == [["python", "3.11.7"], ["limask", "0.1.0"], ["torch", "2.13.0"]]
    assert tables.ablation(report).rows[0] == [
        "3m", "base", "1", "≥ 1,000", "0 of 1", "≥ 1,000", "0 of 1", "0 % (one seed)", "0 % (one seed)"
    ]  # fmt: skip
    # 910 steps in 100 seconds; the budget of 1000 steps takes 110.
    assert tables.costs(report).rows[0] == ["3m", "base", "1:40", "9", "9,100", "≥ 1:50", "≥ 1:50"]
    assert text.updates(report) == (
        "Hosts do not log the number of updates, and the arms' configs differ in it: "
        "base: batch_size_run=8, batch_size=32; ours: batch_size_run=8, batch_size=64."
    )


# -- what cannot be reported on -------------------------------------------------------------------------


def test_nothing_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = campaign_folder(tmp_path / "c")
    with pytest.raises(
        LimaskError, match=r"none of the 4 runs can be reported on \(base/3m/seed_0: not fini"
    ):
        report_campaign(folder.root)
    assert cli.main(["campaign", "report", str(folder.root)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (folder.root / "report").exists()
    with pytest.raises(LimaskError, match="is no campaign's folder"):
        report_campaign(tmp_path)


def test_matplotlib_is_missing(two_arms: CampaignFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limask.requirements.find_spec", lambda name: None)
    with pytest.raises(LimaskError, match=r"pip install 'limask\[report\]'"):
        report_campaign(two_arms.root)


# -- files ----------------------------------------------------------------------------------------------


def test_returns_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = campaign_folder(tmp_path / "c")
    for seed in (0, 1):
        write_run(folder, f"base/3m/seed_{seed}", None, returns=[-5.0] * 10)
        write_run(folder, f"ours/3m/seed_{seed}", None, returns=[-4.0] * 7 + [-1.0 - seed] * 3)
    nan = Outcome("diverged", 9.0, "TD loss is nan at t_env=512")
    shutil.rmtree(folder.root / "runs/base/3m/seed_1")
    write_run(folder, "base/3m/seed_1", None, returns=[-3.0] * 3, outcome=nan)
    report_campaign(folder.root)
    assert {"curves.csv", "runs.csv"} <= {path.name for path in folder.root.iterdir()}
    said = (
        "At the end of training, a run of ours is better than one of base with probability 1.00 on 3m, 95 %"
    )
    assert said in capsys.readouterr().out
    written = {path.name for path in (folder.root / "report").iterdir()}
    assert written == {"report.html", "report.md", "report.json", "marl_eval.json", "learning_curves.png"}
    base, ours = json.loads((folder.root / "report/report.json").read_text())["cells"]
    # A run that diverged has the lowest return of all from then on, as returns may be negative.
    assert (base["final"]["value"], ours["final"]["value"]) == (-5, -1.5)
    assert base["restricted_mean"] == {}
    assert "No win rate is logged on 3m" in (folder.root / "report/report.md").read_text()


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of ``example``, with a film and one that is too large to play in it."""
    folder = example(tmp_path_factory.mktemp("campaign") / "pilot")
    films = folder.root / "report/films"
    films.mkdir(parents=True)
    shutil.copy(FILM, films / "battle_1.gif")
    (films / "battle_2.gif").write_bytes(FILM.read_bytes() + bytes(2**22))
    report_campaign(folder.root)
    return folder.root / "report"


def test_page_and_markdown_say_the_same(reported: Path) -> None:
    page, markdown = ((reported / f"report.{kind}").read_text() for kind in ("html", "md"))
    report = read_report(reported.parent)
    for sentence in (*text.headlines(report), text.counted(report), *text.cautions(report)):
        assert html.escape(sentence).replace(" %", "\u00a0%") in page and sentence in markdown
    for make in (tables.ablation, tables.ratios, tables.improvements, tables.costs, tables.arms, tables.runs):
        for row in make(report).rows:
            cells = [html.escape(cell).replace(" %", "\u00a0%") for cell in row]
            assert re.search(".*".join(re.escape(f">{cell}</td>") for cell in cells), page)
            assert f"| {' | '.join(row)} |".replace("<", "\\<") in markdown
    assert all(page.count(f"<p>{run.id}</p>") == 1 for run in report.runs)
    assert all(html.escape(run.command) in page and run.command in markdown for run in report.runs)
    contents = re.findall(r'<a href="#(.+?)">', page)
    assert contents[:2] == ["learning-curves", "survival"] and contents[-1] == "files"
    assert all(f'<section id="{anchor}">' in page for anchor in contents)
    # Each figure's ids are its own.
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)) > 0


def test_films_play_in_the_page(reported: Path) -> None:
    page = (reported / "report.html").read_text()
    (film,) = re.findall(r'<img alt="(.+?)" src="data:image/gif;base64,(.+?)">', page)
    assert film[0] == "battle_1"
    assert base64.b64decode(film[1]) == FILM.read_bytes()
    assert '<a href="#battles">Battles</a>' in page
    report_campaign(example(reported.parent.parent / "without").root)
    assert "Battles" not in (reported.parent.parent / "without/report/report.html").read_text()


def test_nothing_of_the_machine_is_in_the_report(reported: Path) -> None:
    for file in ("report.html", "report.md", "report.json"):
        written = (reported / file).read_text()
        assert str(reported.parent.parent) not in written and sys.executable not in written
        links = re.findall(r'(?:src|href)="(?!#|data:)(.*?)"', written)
        assert all((reported / link).is_file() for link in links)
        assert bool(links) == file.endswith("html")


def test_json_has_the_numbers(reported: Path) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    data = json.loads((reported / "report.json").read_text(), parse_constant=refuse)
    assert len(data["runs"]) == 30 and len(data["scores"]) == 29
    (missing,) = (run for run in data["runs"] if run["left_out"])
    assert (missing["arm"], missing["map"], missing["seed"]) == ("qmix_lim", "3m_sight_0.6", 4)
    (ratio,) = (
        ratio
        for ratio in data["ratios"]
        if (ratio["arm"], ratio["baseline"], ratio["threshold"], len(ratio["maps"]))
        == ("qmix_lim", "qmix_fc", 0.5, 2)
    )
    low, high = ratio["estimate"]["low"], ratio["estimate"]["high"]
    assert 0.3 < low < ratio["estimate"]["value"] < high < 0.7
    assert f"95 % interval {low:.2f} to {high:.2f}" in data["headlines"][0]


def test_pictures_for_papers(reported: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    linked = re.findall(r"\]\((.*?)\)", (reported / "report.md").read_text())
    assert linked == ["learning_curves.png", "survival.png", "forest.png", "profile.png"]
    for name in linked:
        with image.open(reported / name) as picture:
            assert [round(dots) for dots in picture.info["dpi"]] == [200, 200]
            colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
        # An arm has the same colour everywhere.
        assert {(0, 0x9E, 0x73), (0xD5, 0x5E, 0)} <= colours


def test_a_report_that_cannot_be_written_leaves_the_old_one(
    two_arms: CampaignFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limask.experiments.report.write.pictures", lambda numbers: {})
    monkeypatch.setattr("limask.experiments.report.write.page", lambda report, films: "page")
    report_campaign(two_arms.root)
    before = {path: path.read_bytes() for path in (two_arms.root / "report").iterdir()}

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(LimaskError, match="report: No space left on device"):
        report_campaign(two_arms.root)
    assert {path: path.read_bytes() for path in (two_arms.root / "report").iterdir()} == before


def test_what_to_type_to_see_what_agents_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the first and the last arm, on a map and with a seed on which both left checkpoints."""
    monkeypatch.chdir(tmp_path)
    folder = campaign_folder(tmp_path / "a c")
    smax = {"env": "smax", "env_args": {"map_name": "3m"}, "agent_output_type": "q", "mac": "lim_mac"}
    for arm in ("base", "ours"):
        for seed in (0, 1):
            config = smax | {"name": arm, "t_max": 1000, "save_model": True}
            attempt = write_run(folder, f"{arm}/3m/seed_{seed}", rising(3), **config)
            if (arm, seed) != ("base", 0):
                (sacred,) = attempt.glob("results/sacred/*/*/1")
                (sacred / "models/1000").mkdir(parents=True)
                (sacred / "models/1000/agent.th").touch()
    assert cli.main(["campaign", "report", "a c"]) == 0
    *_, watch, jam = capsys.readouterr().out.splitlines()
    runs = "'a c/runs/base/3m/seed_1/attempt_1' 'a c/runs/ours/3m/seed_1/attempt_1'"
    told = "Watch a battle, which the next report plays: limask watch"
    assert watch == f"{told} {runs} --output 'a c/report/films'"
    assert jam == "With sensors that fail: limask evaluate 'a c' --perturb dropout --severity 0 0.4"
    shutil.rmtree(tmp_path / "a c/runs/base")
    assert cli.main(["campaign", "report", "a c"]) == 0
    *_, watch, jam = capsys.readouterr().out.splitlines()
    assert watch == f"{told} 'a c/runs/ours/3m/seed_0/attempt_1' --output 'a c/report/films'"


def test_what_goes_wrong_is_in_the_report(two_arms: CampaignFolder) -> None:
    """The tables of ``limask compare``, of what ``limask evaluate`` left in the campaign's folder."""
    rows = [
        Row("", arm, "3m", seed, 1000, "3m", "dropout", severity, 128, Interval(won, won, won), 20.0, 0.0)
        for arm, shares in (("base", (0.8, 0.2)), ("ours", (0.9, 0.7)))
        for seed in (1, 2)
        for severity, won in zip((0.0, 0.4), shares, strict=True)
    ]
    report_campaign(two_arms.root)
    report = two_arms.root / "report"
    assert "goes wrong" not in (report / "report.md").read_text() + (report / "report.html").read_text()
    (two_arms.root / "evaluation").mkdir()
    write_csv(two_arms.root / "evaluation/evaluate.csv", rows)
    report_campaign(two_arms.root)
    told = (report / "report.md").read_text()
    assert "## When something goes wrong" in told
    assert "| dropout 0.4 | 20 (20, 20) | 70 (70, 70) |" in told
    assert "| ours | 3m | 10 (10 to 10) | 50 (50 to 50) |" in told
    page = (report / "report.html").read_text()
    assert '<section id="when-something-goes-wrong">' in page and "70 (70, 70)" in page
    assert 'href="../evaluation/evaluate.csv"' in page
    tables = json.loads((report / "report.json").read_text())["robustness"]
    assert [table["header"][0] for table in tables] == ["3m: what goes wrong", "more than base"]
    (two_arms.root / "evaluation/evaluate.csv").write_text("x")
    with pytest.raises(LimaskError, match=r"evaluate\.csv is no table of `limask evaluate`"):
        report_campaign(two_arms.root)


# -- in a browser ---------------------------------------------------------------------------------------

#: Relative luminance of a CSS colour, and contrast of all text in pictures with what lies behind it (WCAG 2).
CONTRAST = """() => {
  const light = (css) => {
    const [r, g, b] = css.match(/[\\d.]+/g).slice(0, 3).map((x) => x / 255)
      .map((x) => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return [...document.querySelectorAll("svg text")].map((text) => {
    const a = light(getComputedStyle(text).fill);
    const b = light(getComputedStyle(text.closest("figure")).backgroundColor);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_on_a_phone(scheme: str, browser: Any, reported: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    address = (reported / "report.html").as_uri()
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert not said
    assert [url for url in asked if not url.startswith("data:")] == [address]

    assert page.evaluate("document.documentElement.scrollWidth") == 390
    wide = (
        "[...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth).length"
    )
    assert page.evaluate(wide) > 0

    boxes = page.evaluate(
        "[...document.querySelectorAll('figure svg')].map((svg) => svg.getBoundingClientRect())"
        ".map(({width, height}) => [width, height])"
    )
    # Two maps; two maps at two thresholds; three pairs of arms; one profile.
    assert len(boxes) == 2 + 4 + 3 + 1
    assert all(300 < width <= 390 and height > 100 for width, height in boxes)
    contrasts = page.evaluate(CONTRAST)
    assert len(contrasts) > 50 and min(contrasts) >= 4.5

    page.screenshot(path=tmp_path / "page.png")
    with image.open(tmp_path / "page.png") as picture:
        grey = np.asarray(picture.convert("L"))
    background = float(np.median(grey))
    assert background > 200 if scheme == "light" else background < 60
    # Text stands out from it.
    assert (abs(grey - background) > 100).mean() > 0.01
    page.close()
