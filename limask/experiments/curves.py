"""Learning curves as a CSV file and as a picture."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from limask.experiments.files import replace
from limask.experiments.sacred_files import Curve

# Okabe and Ito's colours, which the colour-blind can tell apart; markers tell apart what is printed grey.
_STYLES = (("#0072B2", "o"), ("#E69F00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#56B4E9", "v"))


class ArmCurves(NamedTuple):
    """Tests of one training: ``win_rate`` in [0, 1] and mean ``returns`` over environment steps."""

    arm: str
    win_rate: Curve
    returns: Curve


def write_csv(path: Path, curves: Sequence[ArmCurves], *, seed: int, map_name: str) -> None:
    """Write one row per test, as it was logged; a return that was not logged is left blank."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(("arm", "seed", "map", "steps", "win_rate", "return"))
            for arm, win_rate, returns in curves:
                return_at = dict(zip(*returns, strict=True))
                for steps, won in zip(*win_rate, strict=True):
                    rows.writerow((arm, seed, map_name, f"{steps:.0f}", won, return_at.get(steps, "")))

    replace(path, write)


def write_png(path: Path, curves: Sequence[ArmCurves], *, title: str, meanings: Mapping[str, str]) -> None:
    """Draw the win rates over environment steps, 800 by 500 pixels.

    Args:
        path: of the PNG file.
        curves: at most five.
        title: above the picture.
        meanings: what each arm is, for the legend.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter, StrMethodFormatter

    # Not pyplot: it would choose a backend for the whole process.
    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    axes = figure.subplots()
    for (arm, win_rate, _), (colour, marker) in zip(curves, _STYLES, strict=False):
        axes.plot(
            *win_rate, color=colour, marker=marker, markersize=4, linewidth=2, clip_on=False,
            label=f"{arm}: {meanings[arm]}",
        )  # fmt: skip
    axes.set(title=title, xlabel="environment steps", ylabel="battles won in test", ylim=(0, 1))
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=True, framealpha=0.9, edgecolor="none")
    replace(path, lambda temporary: figure.savefig(temporary, format="png"))
