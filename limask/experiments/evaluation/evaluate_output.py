"""What ``limask evaluate`` prints and writes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from limask.experiments.display import nth_style
from limask.experiments.evaluation.units import UNITS
from limask.experiments.statistics import Interval
from limask.files import replace

CSV, PNG = "evaluate.csv", "evaluate.png"
NAMES = (CSV, PNG)

_HEADER = (
    "run", "arm", "environment", "seed", "steps", "map", "perturbation", "severity", "episodes",
    "win_rate", "win_rate_low", "win_rate_high", "return", "return_error",
)  # fmt: skip


class Row(NamedTuple):
    """A run at one severity.

    ``run`` is its folder, ``steps`` are the checkpoint's environment steps, ``map_name`` is where it fights;
    ``win_rate`` in [0, 1] has its 95 % Wilson interval, ``mean_return`` its standard error.
    """

    run: str
    arm: str
    environment: str
    seed: int
    steps: int
    map_name: str
    perturbation: str
    severity: float
    episodes: int
    win_rate: Interval
    mean_return: float
    return_error: float


def heading(perturb: str | None) -> str:
    """Head of the printed table."""
    names = f"{'arm':<16} {'trained on':<16} {'seed':>4} {'steps':>10}  {'fights on':<12}"
    return f"{names} {perturb or 'severity':>13} {'won':>7} {'95 %':>15} {'return':>14} {'episodes':>8}"


def line(row: Row) -> str:
    """A row of the printed table."""
    won = row.win_rate
    interval = f"{won.low:.1%} – {won.high:.1%}"
    returned = f"{row.mean_return:.2f} ± {row.return_error:.2f}"
    names = f"{row.arm:<16} {row.environment:<16} {row.seed:>4} {row.steps:>10,}  {row.map_name:<12}"
    return f"{names} {row.severity:>13g} {won.value:>7.1%} {interval:>15} {returned:>14} {row.episodes:>8}"


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """One line for each run and severity."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            lines.writerow(_HEADER)
            for *names, severity, episodes, win_rate, mean_return, error in rows:
                numbers = (f"{number:.6g}" for number in (*win_rate, mean_return, error))
                lines.writerow((*names, f"{severity:g}", episodes, *numbers))

    replace(path, write)


class Point(NamedTuple):
    """An arm at one severity: the mean win rate over its runs, and the band's ends."""

    severity: float
    win_rate: float
    low: float
    high: float


def curves(rows: Sequence[Row]) -> dict[str, list[Point]]:
    """Degradation curve of each arm, by the name in the legend.

    The band reaches from the worst run to the best, or is the 95 % interval of an arm's only run. Arms that
    were trained in several environments have a curve for each.
    """
    several = len({row.environment for row in rows}) > 1
    by_arm: dict[str, list[Row]] = {}
    for row in rows:
        name = f"{row.arm}, trained on {row.environment}" if several else row.arm
        by_arm.setdefault(name, []).append(row)
    return {name: _points(rows) for name, rows in by_arm.items()}


def _points(rows: Sequence[Row]) -> list[Point]:
    points = []
    for severity in sorted({row.severity for row in rows}):
        intervals = [row.win_rate for row in rows if row.severity == severity]
        values = [interval.value for interval in intervals]
        if len(intervals) == 1:
            low, high = intervals[0].low, intervals[0].high
        else:
            low, high = min(values), max(values)
        points.append(Point(severity, sum(values) / len(values), low, high))
    return points


def write_png(path: Path, rows: Sequence[Row]) -> None:
    """Draw the win rates over the severity, 800 by 500 pixels."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    axes = figure.subplots()
    by_arm = curves(rows)
    for i, (name, points) in enumerate(by_arm.items()):
        colour, marker = nth_style(i)
        severity, win_rate, low, high = zip(*points, strict=True)
        axes.plot(severity, win_rate, color=colour, marker=marker, linewidth=2, clip_on=False, label=name)
        axes.fill_between(severity, low, high, color=colour, alpha=0.15, linewidth=0)
    maps = ", ".join(sorted({row.map_name for row in rows}))
    n_runs = len({row.run for row in rows})
    band = "95 % interval" if n_runs == len(by_arm) else "worst to best run"
    axes.set(
        title=f"SMAX {maps}: {rows[0].episodes} battles of each run ({n_runs} runs; band: {band})",
        xlabel=UNITS[rows[0].perturbation],
        ylabel="battles won",
        ylim=(0, 1),
    )
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=True, framealpha=0.9, edgecolor="none")
    replace(path, lambda temporary: figure.savefig(temporary, format="png"))
