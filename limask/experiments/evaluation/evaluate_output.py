"""What ``limask evaluate`` prints and writes."""

from __future__ import annotations

import csv
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from limask.errors import LimaskError
from limask.experiments import display
from limask.experiments.evaluation.units import MEASURES, UNITS
from limask.experiments.statistics import Interval
from limask.files import replace

CSV, PNG = "evaluate.csv", "evaluate.png"
NAMES = (CSV, PNG)

#: Where in a campaign's folder both lie, if all of it is evaluated.
FOLDER = "evaluation"

#: Of a picture with several panels: these side by side, at most, and characters in a line below each.
_COLUMNS, _CHARACTERS = 3, 44

_HEADER = (
    "run", "arm", "environment", "seed", "steps", "map", "perturbation", "severity", "episodes",
    "win_rate", "win_rate_low", "win_rate_high", "return", "return_error",
)  # fmt: skip


class Row(NamedTuple):
    """A run at one severity.

    ``run`` is its folder, ``steps`` are the checkpoint's environment steps, ``map_name`` is where it fights;
    ``win_rate`` in [0, 1] has its 95 % Wilson interval, and is NaN where the environment knows no wins;
    ``mean_return`` has its standard error; ``measures`` are what else was asked for (``MEASURES``), by name.
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
    measures: Mapping[str, float] = MappingProxyType({})

    @property
    def has_wins(self) -> bool:
        """Whether the environment knows wins."""
        return not math.isnan(self.win_rate.value)

    @property
    def fault(self) -> str:
        """What goes wrong, as ``dropout 0.4``."""
        return f"{self.perturbation} {self.severity:g}"

    @property
    def return_interval(self) -> Interval:
        """The mean return and its 95 % interval, of a normal distribution."""
        mean, half = self.mean_return, 1.96 * self.return_error
        return Interval(mean, mean - half, mean + half)


class Table:
    """The printed table; its rows are printed as they come.

    Args:
        kinds: of what goes wrong.
        names: arm, environment and map of each run that will be in it.
    """

    def __init__(self, kinds: Sequence[str], names: Sequence[tuple[str, str, str]]) -> None:
        self._heads = ("arm", "trained on", "acts on")
        self._widths = [max(map(len, column)) for column in zip(self._heads, *names, strict=True)]
        self._kinds = kinds

    def heading(self) -> str:
        """Its head."""
        numbers = f"{'won':>7} {'95 %':>15} {'return':>14} {'episodes':>8}"
        head = {0: "severity", 1: "".join(self._kinds)}.get(len(self._kinds), "goes wrong")
        return f"{self._names(self._heads)} {'seed':>4} {'steps':>10} {head:>17} {numbers}"

    def line(self, row: Row) -> str:
        """A row."""
        won, share, interval = row.win_rate, "–", ""
        if row.has_wins:
            share, interval = f"{won.value:.1%}", f"{won.low:.1%} – {won.high:.1%}"
        names = self._names((row.arm, row.environment, row.map_name))
        returned = f"{row.mean_return:.2f} ± {row.return_error:.2f}"
        wrong = row.fault if len(self._kinds) > 1 else f"{row.severity:g}"
        numbers = f"{wrong:>17} {share:>7} {interval:>15} {returned:>14} {row.episodes:>8}"
        return f"{names} {row.seed:>4} {row.steps:>10,} {numbers}"

    def _names(self, names: Sequence[str]) -> str:
        return "  ".join(f"{name:<{width}}" for name, width in zip(names, self._widths, strict=True))


def measures_table(rows: Sequence[Row]) -> display.Table:
    """What else was asked for, a line for each row."""
    names = list(dict.fromkeys(name for row in rows for name in row.measures))
    lines = []
    for row in rows:
        values = (row.measures[name] for name in names)
        numbers = ("–" if math.isnan(value) else f"{value:.4g}" for value in values)
        lines.append([row.arm, row.map_name, str(row.seed), row.fault, *numbers])
    return display.Table(["arm", "on", "seed", "goes wrong", *names], lines, (0, 1, 3))


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """One line for each run and severity."""

    names = list(dict.fromkeys(name for row in rows for name in row.measures))

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            lines.writerow((*_HEADER, *names))
            for *who, severity, episodes, win_rate, mean_return, error, measures in rows:
                measured = (measures.get(name, math.nan) for name in names)
                numbers = map(_number, (*win_rate, mean_return, error, *measured))
                lines.writerow((*who, f"{severity:g}", episodes, *numbers))

    replace(path, write)


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def read_csv(path: Path) -> list[Row]:
    """Inverse of ``write_csv``; the runs' folders may have been left out.

    Raises:
        LimaskError: it is no such file.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.DictReader(file)
            if absent := set(_HEADER[1:]) - set(lines.fieldnames or ()):
                raise ValueError(f"no column {', '.join(sorted(absent))}")
            return [_read(line) for line in lines]
    except FileNotFoundError as error:
        raise LimaskError(f"{path} is not there: expected a file that `limask evaluate` wrote") from error
    except (OSError, TypeError, ValueError, csv.Error) as error:
        raise LimaskError(f"{path} is no table of `limask evaluate` ({error})") from error


def _read(line: Mapping[str, str]) -> Row:
    won = Interval(*(float(line[name] or "nan") for name in _HEADER[9:12]))
    mean, error = (float(line[name]) for name in _HEADER[12:])
    measures = {name: float(line[name] or "nan") for name in MEASURES if name in line}
    return Row(
        line.get("run", ""), line["arm"], line["environment"], int(line["seed"]), int(line["steps"]),
        line["map"], line["perturbation"], float(line["severity"]), int(line["episodes"]), won, mean, error,
        measures,
    )  # fmt: skip


class Point(NamedTuple):
    """An arm at one severity: the mean over its runs, and the band's ends."""

    severity: float
    value: float
    low: float
    high: float


def curves(rows: Sequence[Row]) -> dict[str, list[Point]]:
    """Degradation curve of each arm, by the name in the legend: of win rates, or of returns where any of the
    environments knows no wins.

    The band reaches from the worst run to the best, or is the 95 % interval of an arm's only run. Arms that
    were trained in several environments have a curve for each.
    """
    has_wins = all(row.has_wins for row in rows)
    intervals = [row.win_rate if has_wins else row.return_interval for row in rows]
    several = len({row.environment for row in rows}) > 1
    by_arm: dict[str, dict[float, list[Interval]]] = {}
    for row, interval in zip(rows, intervals, strict=True):
        name = f"{row.arm}, trained on {row.environment}" if several else row.arm
        by_arm.setdefault(name, {}).setdefault(row.severity, []).append(interval)
    return {name: _points(by_severity) for name, by_severity in by_arm.items()}


def _points(by_severity: Mapping[float, Sequence[Interval]]) -> list[Point]:
    points = []
    for severity, intervals in sorted(by_severity.items()):
        values = [interval.value for interval in intervals]
        if len(intervals) == 1:
            low, high = intervals[0].low, intervals[0].high
        else:
            low, high = min(values), max(values)
        points.append(Point(severity, sum(values) / len(values), low, high))
    return points


def write_png(path: Path, rows: Sequence[Row]) -> None:
    """Draw win rates, or returns, over the severity, a panel for each perturbation: 800 by 500 pixels for
    one. Of several, each begins at severity 0 if any of them does: nothing is the same of every kind."""
    figure = _drawn(rows)
    replace(path, lambda temporary: figure.savefig(temporary, format="png"))


def _drawn(rows: Sequence[Row]) -> Any:
    """The figure of ``write_png``."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    kinds = list(dict.fromkeys(row.perturbation for row in rows))
    n_columns = min(len(kinds), _COLUMNS)
    n_lines = -(-len(kinds) // n_columns)
    size = (8, 5) if len(kinds) == 1 else (4 * n_columns, 3 * n_lines + 1)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    panels = figure.subplots(n_lines, n_columns, squeeze=False).flatten().tolist()
    for axes in panels[len(kinds) :]:
        axes.set_visible(False)
    n_runs = len({row.run for row in rows})
    names = list(curves(rows))
    first = next((row.perturbation for row in rows if row.severity == 0), None)
    nothing = [row for row in rows if row.severity == 0 and row.perturbation == first]
    band = "95 % interval" if n_runs == len(names) else "worst to best run"
    for kind, axes in zip(kinds, panels, strict=False):
        own = [row for row in rows if row.perturbation == kind]
        begins = [] if any(row.severity == 0 for row in own) else nothing
        by_arm = curves(begins + own)
        for i, name in enumerate(names):
            colour, marker = display.nth_style(i)
            severity, value, low, high = zip(*by_arm[name], strict=True)
            axes.plot(severity, value, color=colour, marker=marker, linewidth=2, clip_on=False, label=name)
            axes.fill_between(severity, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_xticks(sorted({row.severity for row in begins + own}))
        label = UNITS[kind]
        axes.set_xlabel(label if len(kinds) == 1 else textwrap.fill(f"{kind}: {label}", _CHARACTERS))
        axes.set_ylabel("mean return")
        if all(row.has_wins for row in rows):
            axes.set(ylabel="battles won", ylim=(0, 1))
            axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.grid(color="#dddddd", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    maps = ", ".join(sorted({row.map_name for row in rows}))
    figure.suptitle(f"{maps}: {rows[0].episodes} episodes of each run ({n_runs} runs; band: {band})")
    panels[0].legend(frameon=True, framealpha=0.9, edgecolor="none")
    return figure
