"""The speed benchmark: its arithmetic by hand, and one small run of it for real."""

from __future__ import annotations

import csv
import importlib.util
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from limask.cli import main
from limask.experiments.bench import replay, speed, speed_plots, timing


def test_contestants_run_in_turns_on_the_same_data_after_the_warm_up() -> None:
    said: list[tuple[str, int]] = []
    numbers = iter(range(100))

    def timed(name: str, data: int) -> float:
        said.append((name, data))
        return float(data)

    contestants = {"host": lambda data: timed("host", data), "ours": lambda data: timed("ours", data)}
    times = timing.race(contestants, lambda: next(numbers), turns=2, warm_up=1)
    assert said == [("host", 0), ("ours", 0), ("host", 1), ("ours", 1), ("host", 2), ("ours", 2)]
    assert times["host"].tolist() == times["ours"].tolist() == [1.0, 2.0]


def test_ratio_is_the_median_of_the_turns_ratios_and_spread_their_quartiles() -> None:
    times = {"host": np.array([4.0, 6.0, 8.0, 10.0, 12.0]), "ours": np.array([4.0, 3.0, 2.0, 10.0, 4.0])}
    (row,) = timing.rows("update", "3m", times)
    # Ratios 1, 2, 4, 1, 3: median 2, quartiles 1 and 3. Medians 8 s and 4 s.
    assert row == timing.Row("update, ours", "3m", 8000.0, 4000.0, 2.0, 2.0)


def test_exponent_of_a_power_law() -> None:
    x = np.array([3.0, 9.0, 27.0])
    assert speed_plots.exponent(x, 5 * x**1.5) == pytest.approx(1.5)


def test_csv_has_the_documented_columns(tmp_path: Path) -> None:
    speed_plots.write_csv(tmp_path / "speed.csv", [timing.Row("update, parity", "3m", 2.0, 1.0, 2.0, 0.125)])
    lines = (tmp_path / "speed.csv").read_text().splitlines()
    assert lines == ["case,shape,host_ms,limask_ms,ratio,spread", '"update, parity",3m,2,1,2,0.125']


def test_a_small_run_times_every_kind_of_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "QUICK", speed.Effort(1, ("3m",), True))
    monkeypatch.setattr(speed, "BATCH", 4)
    assert main(["bench", "speed", "--quick", "--output", str(tmp_path)]) == 0
    with (tmp_path / "speed.csv").open() as file:
        rows = list(csv.DictReader(file))
    kinds = {row["case"].rpartition(",")[0] for row in rows}
    assert kinds == {
        "update, replay", "update, full length", "acting, actions chosen", "acting, agent alone",
        "end to end, per step", "steps without learning",
    }  # fmt: skip
    assert all(float(row["host_ms"]) > 0 and float(row["limask_ms"]) > 0 for row in rows)
    assert (tmp_path / "speed.png").stat().st_size > 10_000


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what one program has held at most")
def test_memory_of_an_update_is_what_it_adds_to_a_fresh_program() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        added = fresh.submit(speed._peak_of_update, "qmix_fc", speed.PARITY, "3m").result()
    # 3m, 32 episodes of 102 states, 3 agents: the gates of 192 numbers alone are 7 MiB.
    assert 7 < added < 500


def test_both_replay_buffers_are_timed_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MAPS", ("3m",)), ("RUNS", 5), ("TURNS", 1)):
        monkeypatch.setattr(replay, name, value)
    assert main(["bench", "replay", "--output", str(tmp_path)]) == 0
    with (tmp_path / "replay.csv").open() as file:
        inserted, sampled, memory = csv.DictReader(file)
    assert float(inserted["limask_ms"]) > 0 < float(sampled["limask_ms"])
    # 40 of 160 episodes, of which the host's take 22 MiB; at most a quarter of it is left.
    assert float(memory["host_ms"]) == pytest.approx(22.05 / 4, abs=0.01)
    assert 0.1 < float(memory["limask_ms"]) < 22.05 / 16


def test_the_pages_tables_are_what_the_committed_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(__file__).parents[1] / "docs/write_speed.py"
    spec = importlib.util.spec_from_file_location("write_speed", path)
    assert spec is not None and spec.loader is not None
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    assert page.main(["--check"]) == 0, "run docs/write_speed.py"
    (tmp_path / "speed.csv").write_text(
        'case,shape,host_ms,limask_ms,ratio,spread\n"update, replay, parity",3m,2,1,2,0.125\n'
    )
    monkeypatch.setattr(page, "CSV", tmp_path / "speed.csv")
    assert page.main(["--check"]) == 1
    assert page.table({"update, replay, parity": "p"}, {"3m": "3m", "LBF": "lbf"}) == (
        "| | 3m | LBF |\n|---|---|---|\n| p | 2.00 ± 0.12 | – |"
    )
