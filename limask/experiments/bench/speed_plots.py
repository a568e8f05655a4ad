"""What ``limask bench speed`` writes: a table and two pictures."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from limask.files import replace

# Okabe and Ito's colours, which the colour-blind can tell apart.
_HOST, _PARITY, _LIM = "#666666", "#0072B2", "#009E73"

_TICKS = (10, 20, 50, 100, 200, 500, 1000)


class Growth(NamedTuple):
    """Update times: pairs of what grows (agents; time steps) and the row measured there."""

    agents: Sequence[tuple[float, Any]]
    steps: Sequence[tuple[float, Any]]


def write_csv(path: Path, rows: Sequence[Any]) -> None:
    """One line per row, columns ``case,shape,host_ms,limask_ms,ratio,spread``."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            lines.writerow(("case", "shape", "host_ms", "limask_ms", "ratio", "spread"))
            for case, shape, *numbers in rows:
                lines.writerow((case, shape, *(f"{number:.4g}" for number in numbers)))

    replace(path, write)


def write_bars(path: Path, rows: Sequence[Any]) -> None:
    """How many times faster than the host each case is, with the interquartile range."""
    from matplotlib.figure import Figure

    shown = [row for row in rows if not row.case.startswith("growth")]
    figure = Figure(figsize=(9, 0.8 + 0.24 * len(shown)), dpi=100, layout="constrained")
    axes = figure.subplots()
    places = range(len(shown))[::-1]
    colours = [_LIM if row.ratio >= 1 else "#D55E00" for row in shown]
    axes.barh(
        places,
        [row.ratio for row in shown],
        xerr=[row.spread / 2 for row in shown],
        color=colours,
        height=0.7,
    )
    axes.set_yticks(places, [f"{row.case} · {row.shape}" for row in shown], fontsize=8)
    axes.axvline(1, color="black", linewidth=1)
    axes.set(xlabel="host's time over limask's (above 1: limask is faster)", xscale="log")
    axes.set_xticks((0.25, 0.5, 1, 2, 4, 8), ("¼", "½", "1", "2", "4", "8"))
    axes.minorticks_off()
    axes.margins(y=0.01)
    axes.spines[["top", "right"]].set_visible(False)
    replace(path, lambda temporary: figure.savefig(temporary, format="png"))


def write_growth(path: Path, growth: Growth) -> None:
    """Update time over the number of agents and over the episodes' length, with fitted exponents."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), dpi=100, layout="constrained")
    names = ("agents", "time steps of an episode")
    for axes, points, name in zip(figure.subplots(1, 2), growth, names, strict=True):
        for label, colour, column, case in (
            ("host's qmix", _HOST, "host_ms", "parity"),
            ("qmix_fc, the host's maths", _PARITY, "limask_ms", "parity"),
            ("qmix_lim", _LIM, "limask_ms", "qmix_lim"),
        ):
            chosen = [(x, getattr(row, column)) for x, row in points if row.case.endswith(case)]
            x, y = np.array(chosen).T
            axes.loglog(x, y, "o-", color=colour, label=f"{label}: exponent {exponent(x, y):.2f}")
        axes.set(xlabel=name, ylabel="milliseconds per update")
        axes.set_xticks(x, [f"{value:.0f}" for value in x])
        axes.set_yticks(_TICKS, [str(tick) for tick in _TICKS])
        slowest = max(row.host_ms + row.limask_ms for _, row in points)
        axes.set_ylim(0.8 * min(min(row.host_ms, row.limask_ms) for _, row in points), 2 * slowest)
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    replace(path, lambda temporary: figure.savefig(temporary, format="png"))


def exponent(x: np.ndarray, y: np.ndarray) -> float:
    """Slope of the line through the logarithms: p in ``y ∝ x^p``."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
