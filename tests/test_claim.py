"""The claim's page says what its committed CSV files come to."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from limask.experiments.evaluation.units import MEASURES

CLAIM = Path(__file__).parents[1] / "docs/results/claim"


@pytest.fixture(scope="module")
def endpoints() -> ModuleType:
    spec = importlib.util.spec_from_file_location("endpoints", CLAIM / "endpoints.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_files_come_to(endpoints: ModuleType) -> None:
    text, _ = endpoints.page()
    assert text == (CLAIM / "endpoints.md").read_text(encoding="utf-8"), "run docs/results/claim/endpoints.py"


CURVES = """arm,map,seed,steps,win_rate,return
qmix_fc,3s_vs_3z,0,50000,0.5,1
qmix_fc,3s_vs_3z,0,100000,0.8,1
qmix_fc,3s_vs_3z,0,110000,0.8,1
qmix_fc,3s_vs_3z,0,120000,0.8,1
qmix_fc,3s_vs_3z,0,150000,0.8,1
qmix_fc,3s_vs_3z,1,100000,0.8,1
qmix_fc,3s_vs_3z,1,110000,0.8,1
qmix_fc,3s_vs_3z,1,120000,0.8,1
qmix_fc,3s_vs_3z,1,150000,0.8,1
qmix_lim,3s_vs_3z,0,50000,0.9,1
qmix_lim,3s_vs_3z,0,60000,0.9,1
qmix_lim,3s_vs_3z,0,70000,0.9,1
qmix_lim,3s_vs_3z,0,150000,0.9,1
qmix_lim,3s_vs_3z,1,50000,1.0,1
qmix_lim,3s_vs_3z,1,60000,1.0,1
qmix_lim,3s_vs_3z,1,70000,1.0,1
qmix_lim,3s_vs_3z,1,150000,1.0,1
"""
RUNS = """arm,map,seed,state,result,attempts,seconds
qmix_fc,3s_vs_3z,0,done,finished,1,60
qmix_fc,3s_vs_3z,1,done,finished,1,62
qmix_lim,3s_vs_3z,0,done,finished,1,90
qmix_lim,3s_vs_3z,1,done,finished,2,10
qmix_lim,3s_vs_3z,2,waiting,,0,
"""


@pytest.fixture
def folder(endpoints: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a claim of two arms on one map with two seeds."""
    monkeypatch.setattr(endpoints, "HERE", tmp_path)
    (tmp_path / "curves.csv").write_text(CURVES, encoding="utf-8")
    (tmp_path / "runs.csv").write_text(RUNS, encoding="utf-8")
    return tmp_path


def add_sensors(folder: Path, arm: str) -> Path:
    """The folder of the second campaign, whose ``arm`` did as qmix_fc in the first."""
    other = folder / "claim_sensors"
    other.mkdir()
    for name, text in (("curves.csv", CURVES), ("runs.csv", RUNS)):
        lines = [line for line in text.splitlines(True) if "lim," not in line]
        (other / name).write_text("".join(lines).replace("qmix_fc", arm), encoding="utf-8")
    return other


def test_endpoints_by_hand(endpoints: ModuleType, folder: Path) -> None:
    """Half the steps, in both seeds: the interval is the ratio itself."""
    text, _ = endpoints.page()
    assert (
        "Over 3s_vs_3z the ratio is 0.50 (0.50 to 0.50). Its upper end is to be below 0.73: **success**"
        in text
    )
    assert "| qmix_lim | 2 of 3 |" in text
    assert "| qmix_lim | 95 % (90 % to 100 %) |" in text
    assert "`qmix_lim` less `qmix_fc`, in points: 15 (10 to 20)." in text
    assert "| qmix_fc | 1:01 |" in text and "| qmix_lim | 1:30 |" in text
    assert text.count("Not measured yet.") == 3
    swapped = CURVES.replace("fc", "x").replace("lim", "fc").replace("x,", "lim,")
    (folder / "curves.csv").write_text(swapped, encoding="utf-8")
    text, _ = endpoints.page()
    assert "the ratio is 2.00 (2.00 to 2.00). Its upper end is to be below 0.73: **no success**" in text


def test_arms_of_the_other_campaigns_are_compared_where_they_are_made(
    endpoints: ModuleType, folder: Path
) -> None:
    add_sensors(folder, "qmix_lim_saliency")
    text, _ = endpoints.page()
    assert "| 3s_vs_3z | 1.50 (1.00 to 2.00) | 2.00 (2.00 to 2.00) |" in text.partition("## 5.")[2]
    assert "`qmix_lim_saliency` less `qmix_lim`, in points: -15 (-20 to -10)." in text


EVALUATED = (
    "arm,environment,seed,steps,map,perturbation,severity,episodes,win_rate,win_rate_low,win_rate_high,"
)
EVALUATED += "return,return_error"


def evaluated(arm: str, seed: int, fault: str, severity: float, rate: float, more: str = "") -> str:
    return f"\n{arm},3s_vs_3z,{seed},150000,3s_vs_3z,{fault},{severity},128,{rate},0,1,10,0.1{more}"


def test_wins_kept_by_hand(endpoints: ModuleType, folder: Path) -> None:
    """0.7 and 0.5 under two faults, against 0.5 and 0.5 in one seed and 0.3 and 0.5 in the other."""
    other = add_sensors(folder, "qmix_lim_robust")
    text = EVALUATED
    for arm, dropped in (
        ("qmix_lim_robust", (0.7, 0.7)),
        ("entity_burst", (0.5, 0.3)),
        ("fc_burst", (0.8, 0.8)),
        ("sightings_burst", (0.7, 0.7)),
    ):
        for seed, rate in enumerate(dropped):
            text += evaluated(arm, seed, "dropout", 0, 0.9)
            text += evaluated(arm, seed, "dropout", 0.4, rate) + evaluated(arm, seed, "noise", 0.2, 0.5)
    (other / "evaluate.csv").write_text(text, encoding="utf-8")
    page, _ = endpoints.page()
    fourth = page.partition("## 4.")[2].partition("## 5.")[0]
    assert (
        "`qmix_lim_robust` keeps 15 (10 to 20) points more than `entity_burst` over 3s_vs_3z. "
        "The interval is to lie above 0: **success**." in fourth
    )
    assert "| fc_burst | 3s_vs_3z | 0 (0 to 0) | 20 (15 to 25) |" in fourth
    assert "`qmix_lim_robust` less `qmix_lim`, in points: -15 (-20 to -10)." in fourth
    swapped = text.replace("entity_burst", "x").replace("qmix_lim_robust", "entity_burst")
    (other / "evaluate.csv").write_text(swapped.replace("x,", "qmix_lim_robust,"), encoding="utf-8")
    assert "to lie above 0: **no success**" in endpoints.page()[0]


def test_how_they_fight_by_hand(endpoints: ModuleType, folder: Path) -> None:
    columns = list(MEASURES)
    text = f"{EVALUATED},{','.join(columns)}"
    for arm, focus in (("qmix_fc", (0.2, 0.4)), ("qmix_entity", (0.5, 0.5)), ("qmix_lim", (0.6, 0.8))):
        for seed, value in enumerate(focus):
            numbers = [str(value) if name == "focus" else "0.5" for name in columns]
            text += evaluated(arm, seed, "none", 0, 0.9, f",{','.join(numbers)}")
    (folder / "tactics.csv").write_text(text, encoding="utf-8")
    seventh = endpoints.page()[0].partition("## 7.")[2]
    assert f"| {MEASURES['focus']} | 0.30 (0.20, 0.40) | 0.50 (0.50, 0.50) | 0.70 (0.60, 0.80) |" in seventh
    assert f"| {MEASURES['focus']} | 0.40 (0.20 to 0.60) | 0.20 (0.10 to 0.30) |" in seventh
    assert f"| {MEASURES['credit']} | 0.00 (0.00 to 0.00) | 0.00 (0.00 to 0.00) |" in seventh
    assert MEASURES["branches"] not in seventh
