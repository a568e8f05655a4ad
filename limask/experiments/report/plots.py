"""The report's pictures: as panels for the page, and together on one sheet for a paper.

A panel is a function that draws on matplotlib's axes, so that page and paper show the same. An arm has the
same colour and marker in every picture.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from limask.experiments.display import Axes, nth_style, percent
from limask.experiments.report.data import Numbers, Ratio, Score, Survival, Task
from limask.experiments.report.numbers import compared
from limask.experiments.report.tables import over
from limask.files import replace

# Stand for the page's colours of text and lines, which change with the reader's scheme.
_INK, _RULE = "#010203", "#d0d1d2"

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": _INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "font.size": 8.5,
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "svg.fonttype": "none",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}

#: Letters of a legend that are as wide as a panel.
_LETTERS = 56

_COARSE_RATIOS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_FINE_RATIOS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.25, 1.5, 2, 2.5, 3, 4)


class Panel(NamedTuple):
    """One picture: what it shows, how it is drawn on matplotlib's axes, its height in inches, whether arms
    are told apart by their colours alone, so that it needs a legend, and whether it is alone and worth all of
    a wide page."""

    title: str
    draw: Callable[[Axes], None]
    height: float = 2.7
    has_legend: bool = True
    is_wide: bool = False


def style(numbers: Numbers, arm: str) -> tuple[str, str]:
    """Colour and marker of an arm."""
    return nth_style(numbers.arms.index(arm))


def pictures(numbers: Numbers) -> dict[str, list[Panel]]:
    """Panels of each picture by its name; a picture without panels is left out."""
    win_maps = [task.map for task in numbers.tasks if task.measure == "win rate"]
    found = {
        "learning_curves": [
            Panel(task.map, partial(_curves, numbers, task), is_wide=len(numbers.tasks) == 1)
            for task in numbers.tasks
        ],
        "survival": [
            Panel(f"{name}, win rate {percent(threshold)}", partial(_survival, numbers, name, threshold))
            for name in win_maps
            for threshold in numbers.thresholds
            if any(curve.steps for curve in numbers.survival if _is_of(curve, name, threshold))
        ],
        "forest": [
            Panel(f"{arm} / {baseline}", partial(_forest, numbers, ratios), 1 + 0.2 * len(ratios), False)
            for arm, baseline in compared(numbers.arms)
            if (ratios := _drawn(numbers, arm, baseline))
        ],
        # Of single runs it would be a step where the table has a number.
        "profile": [Panel("runs that end above a win rate", partial(_profile, numbers))]
        if win_maps and numbers.fewest_seeds > 1
        else [],
    }
    return {name: panels for name, panels in found.items() if panels}


def svg(panel: Panel, prefix: str, width: float = 4.2) -> str:
    """A panel as SVG to be put into a page: transparent, as wide as there is room, text and axes in the
    page's own colours. ``prefix`` keeps its ids apart from those of other panels; ``width``, in inches, says
    how large text is beside it."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": prefix}):
        figure = Figure(figsize=(width, panel.height), layout="constrained")
        figure.patch.set_visible(False)
        panel.draw(figure.subplots())
        text, label = StringIO(), escape(panel.title)
        figure.savefig(text, format="svg", metadata={"Creator": None, "Date": None})
    picture = text.getvalue()
    picture = picture[picture.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    picture = re.sub(r"<metadata>.*?</metadata>", "", picture, flags=re.DOTALL)
    picture = re.sub(r' (?:width|height)="[\d.]+pt"', "", picture, count=2)
    picture = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", picture)
    return picture.replace(_INK, "currentColor").replace(_RULE, "var(--rule)").strip()


def write_png(path: Path, panels: Sequence[Panel], numbers: Numbers) -> None:
    """All panels on one sheet with a legend, 200 dpi, on white."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    n_columns = min(2, len(panels))
    n_rows = math.ceil(len(panels) / n_columns)
    height = n_rows * max(panel.height for panel in panels) + 0.5
    ink = {key: "black" for key, value in _STYLE.items() if value == _INK}
    with matplotlib.rc_context({**_STYLE, **ink}):
        figure = Figure(figsize=(4.2 * n_columns, height), dpi=200, layout="constrained")
        all_axes = figure.subplots(n_rows, n_columns, squeeze=False).flatten()
        for axes, panel in zip(all_axes, panels, strict=False):
            panel.draw(axes)
            axes.set_title(panel.title)
        for axes in all_axes[len(panels) :]:
            axes.set_axis_off()
        handles = [
            Line2D([], [], color=colour, marker=marker, markersize=4, label=arm)
            for arm in numbers.arms
            for colour, marker in [style(numbers, arm)]
        ]
        if panels[0].has_legend:
            longest = max(map(len, numbers.arms))
            fitting = max(1, _LETTERS * n_columns // (longest + 6))
            figure.legend(
                handles=handles,
                loc="outside upper center",
                ncols=min(4, fitting, len(handles)),
                frameon=False,
            )
        replace(path, lambda temporary: figure.savefig(temporary, format="png", facecolor="white"))


def _curves(numbers: Numbers, task: Task, axes: Axes) -> None:
    if task.measure == "win rate":
        for threshold in numbers.thresholds:
            axes.axhline(
                threshold, color=axes.spines["left"].get_edgecolor(), linewidth=0.8, linestyle=":", alpha=0.7
            )
    for run in numbers.scores:
        if run.map == task.map and _n_runs(numbers, run) > 1:
            colour, _ = style(numbers, run.arm)
            axes.plot(run.curve.steps, run.curve.values, color=colour, linewidth=0.6, alpha=0.3)
    for band in numbers.bands:
        if band.map != task.map or not band.steps:
            continue
        colour, marker = style(numbers, band.arm)
        every = max(1, len(band.steps) // 10)
        axes.plot(
            band.steps, [value.value for value in band.values],
            color=colour, marker=marker, markersize=3.5, markevery=every, linewidth=1.6,
        )  # fmt: skip
        if band.values[0].is_interval:
            lows, highs = zip(*((value.low, value.high) for value in band.values), strict=True)
            axes.fill_between(band.steps, lows, highs, color=colour, alpha=_shade(numbers), linewidth=0)
    _over_steps(axes, task.budget)
    if task.measure == "win rate":
        _share(axes.yaxis)
        axes.set(ylabel="test win rate", ylim=(0, 1))
    else:
        axes.set(ylabel="test return")


def _n_runs(numbers: Numbers, run: Score) -> int:
    return sum((other.arm, other.map) == (run.arm, run.map) for other in numbers.scores)


def _is_of(curve: Survival, map_name: str, threshold: float) -> bool:
    return (curve.map, curve.threshold) == (map_name, threshold)


def _survival(numbers: Numbers, map_name: str, threshold: float, axes: Axes) -> None:
    (budget,) = numbers.budgets([map_name])
    for curve in numbers.survival:
        if not _is_of(curve, map_name, threshold):
            continue
        colour, marker = style(numbers, curve.arm)
        ends = curve.not_yet[-1] if curve.not_yet else 1.0
        axes.step(
            [0, *curve.steps, budget], [1, *curve.not_yet, ends],
            where="post", color=colour, marker=marker, markersize=3.5, linewidth=1.6, clip_on=False,
        )  # fmt: skip
    _over_steps(axes, budget)
    _share(axes.yaxis)
    axes.set(ylabel="runs not there yet", ylim=(0, 1))


def _drawn(numbers: Numbers, arm: str = "", baseline: str = "") -> list[Ratio]:
    """Ratios of a pair of arms, or of all, of those that there are."""
    return [
        ratio
        for ratio in numbers.ratios
        if arm in ("", ratio.arm) and baseline in ("", ratio.baseline) and ratio.estimate and ratio.is_reached
    ]


def _forest(numbers: Numbers, ratios: Sequence[Ratio], axes: Axes) -> None:
    """A row for each threshold and map; what is over several maps is a diamond."""
    colour, _ = style(numbers, ratios[0].arm)
    places: list[float] = []
    for i, ratio in enumerate(ratios):
        # Half a row between thresholds.
        places.append(i + 0.5 * numbers.thresholds.index(ratio.threshold))
        value, *ends = _ends(ratio)
        axes.plot(ends, [places[-1]] * len(ends), color=colour, linewidth=1.6)
        marker, size = ("D", 6) if len(ratio.maps) > 1 else ("o", 4.5)
        axes.plot(value, places[-1], marker, color=colour, markersize=size)
    axes.axvline(1, color=axes.spines["left"].get_edgecolor(), linewidth=0.9)
    axes.set_yticks(places, [f"{over(ratio.maps)}, {percent(ratio.threshold)}" for ratio in ratios])
    axes.set_ylim(places[-1] + 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("ratio of steps (below 1: fewer)")
    _over_ratios(axes, [end for ratio in _drawn(numbers) for end in _ends(ratio)])


def _ends(ratio: Ratio) -> list[float]:
    """Value, and low and high where there is an interval."""
    estimate = ratio.estimate
    assert estimate is not None
    return [end for end in (estimate.value, estimate.low, estimate.high) if end is not None]


def _over_ratios(axes: Axes, ends: Sequence[float]) -> None:
    """The same axis of ratios in all panels, with 1 in it."""
    low, high = min(*ends, 1) / 1.1, max(*ends, 1) * 1.1
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    ticks = [tick for tick in (_COARSE_RATIOS if high / low > 5 else _FINE_RATIOS) if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _profile(numbers: Numbers, axes: Axes) -> None:
    for overall in numbers.overall:
        colour, _ = style(numbers, overall.arm)
        at, shares = zip(*overall.profile, strict=True)
        axes.step(at, [share.value for share in shares], where="post", color=colour, linewidth=1.6)
        if shares[0].is_interval:
            lows, highs = zip(*((share.low, share.high) for share in shares), strict=True)
            axes.fill_between(at, lows, highs, step="post", color=colour, alpha=_shade(numbers), linewidth=0)
    _share(axes.xaxis)
    _share(axes.yaxis)
    axes.set(xlabel="final win rate", ylabel="runs above it", xlim=(0, 1), ylim=(0, 1))


def _shade(numbers: Numbers) -> float:
    """Opacity of bands: many of them would hide one another."""
    return 0.18 if len(numbers.arms) <= 3 else 0.08


def _over_steps(axes: Axes, budget: int) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.set(xlabel="environment steps", xlim=(0, budget))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _share(axis: Axes) -> None:
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
