"""The claim's page says what its committed CSV files come to."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

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


def test_endpoints_by_hand(endpoints: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the steps, in both seeds: the interval is the ratio itself."""
    monkeypatch.setattr(endpoints, "HERE", tmp_path)
    (tmp_path / "curves.csv").write_text(CURVES, encoding="utf-8")
    (tmp_path / "runs.csv").write_text(RUNS, encoding="utf-8")
    text, _ = endpoints.page()
    assert (
        "Over 3s_vs_3z the ratio is 0.50 (0.50 to 0.50). Its upper end is to be below 0.73: **success**"
        in text
    )
    assert "| qmix_lim | 2 of 3 |" in text
    assert "| qmix_lim | 95 % (90 % to 100 %) |" in text
    assert "`qmix_lim` less `qmix_fc`, in points: 15 (10 to 20)." in text
    assert "| qmix_fc | 1:01 |" in text and "| qmix_lim | 1:30 |" in text
    assert text.count("Not measured yet.") == 2
    swapped = CURVES.replace("fc", "x").replace("lim", "fc").replace("x,", "lim,")
    (tmp_path / "curves.csv").write_text(swapped, encoding="utf-8")
    text, _ = endpoints.page()
    assert "the ratio is 2.00 (2.00 to 2.00). Its upper end is to be below 0.73: **no success**" in text


def test_arms_of_the_other_campaigns_are_compared_where_they_are_made(
    endpoints: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "HERE", tmp_path)
    (tmp_path / "curves.csv").write_text(CURVES, encoding="utf-8")
    (tmp_path / "runs.csv").write_text(RUNS, encoding="utf-8")
    other = tmp_path / "claim_sensors"
    other.mkdir()
    for name, text in (("curves.csv", CURVES), ("runs.csv", RUNS)):
        informed = "".join(
            line.replace("qmix_fc", "qmix_lim_saliency")
            for line in text.splitlines(True)
            if "lim," not in line
        )
        (other / name).write_text(informed, encoding="utf-8")
    text, _ = endpoints.page()
    assert "| 3s_vs_3z | 1.50 (1.00 to 2.00) | 2.00 (2.00 to 2.00) |" in text.partition("## 5.")[2]
    assert "`qmix_lim_saliency` less `qmix_lim`, in points: -15 (-20 to -10)." in text
