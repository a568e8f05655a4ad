"""The report's tables, as text: the page and the Markdown file show the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

from limask.config.nested import flat
from limask.experiments.display import Table, clock, percent
from limask.experiments.report.data import Cell, Estimate, Ratio, Report, RunRecord
from limask.experiments.report.text import many
from limask.protocols import Block


def interval(estimate: Estimate | None, text: Callable[[float], str]) -> str:
    """``0.73 (0.61 to 0.88)``, ``0.73 (one seed)``, or a dash."""
    if estimate is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{text(estimate.value)} (one seed)"
    return f"{text(estimate.value)} ({text(estimate.low)} to {text(estimate.high)})"


def over(maps: Sequence[str]) -> str:
    """``3m``, or ``2 maps``."""
    return maps[0] if len(maps) == 1 else f"{len(maps)} maps"


def two_digits(value: float) -> str:
    """``0.73``"""
    return f"{value:.2f}"


def ablation(report: Report) -> Table:
    """Arm × map: steps to each threshold, share of runs that reached it, final score, average score."""
    numbers = report.numbers
    thresholds = numbers.thresholds if numbers.overall else []
    header = ["map", "arm", "runs"]
    for threshold in thresholds:
        header += [f"steps to {percent(threshold)}", f"reached {percent(threshold)}"]
    rows = []
    for cell in numbers.cells:
        row = [cell.map, cell.arm, str(cell.n_runs)]
        for threshold in thresholds:
            row += _steps(cell, threshold)
        rows.append([*row, *_scores(cell)])
    for overall in numbers.overall if len(_win_maps(report)) > 1 else []:
        n_runs = sum(cell.n_runs for cell in numbers.cells if _is_in(cell, overall.arm, overall.maps))
        row = [over(overall.maps), overall.arm, str(n_runs), *[""] * 2 * len(thresholds)]
        rows.append([*row, interval(overall.final, percent), interval(overall.area, percent)])
    measures = {task.measure for task in numbers.tasks}
    measure = measures.pop() if len(measures) == 1 else "score"
    return Table([*header, f"final {measure}", f"average {measure}"], rows, (0, 1))


def _win_maps(report: Report) -> list[str]:
    return [task.map for task in report.numbers.tasks if task.measure == "win rate"]


def _is_in(cell: Cell, arm: str, maps: Iterable[str]) -> bool:
    return cell.arm == arm and cell.map in maps


def _steps(cell: Cell, threshold: float) -> list[str]:
    if threshold not in cell.reached:
        return ["–", "–"]
    n_reached = round(cell.reached[threshold] * cell.n_runs)
    mark = "" if n_reached else "≥ "
    return [f"{mark}{cell.restricted_mean[threshold]:,.0f}", f"{n_reached} of {cell.n_runs}"]


def _scores(cell: Cell) -> list[str]:
    text = percent if cell.measure == "win rate" else two_digits
    return [interval(cell.final, text), interval(cell.area, text)]


def ratio_text(ratio: Ratio) -> str:
    """``≤ 0.73 (0.61 to 0.88)``, with the bound only where there is one, or that nobody got there."""
    sign = f"{ratio.bound} " if ratio.bound and ratio.estimate else ""
    return sign + interval(ratio.estimate, two_digits) if ratio.is_reached else "not reached"


def ratios(report: Report) -> Table:
    """Ratio of the steps of two arms to each threshold, on each map and over all maps."""
    by_row: dict[tuple[str, str], list[str]] = {}
    for ratio in report.numbers.ratios:
        key = f"{ratio.arm} / {ratio.baseline}", over(ratio.maps)
        by_row.setdefault(key, []).append(ratio_text(ratio))
    goals = [f"steps to {percent(threshold)}" for threshold in report.numbers.thresholds]
    return Table(["arms", "map", *goals], [[*key, *texts] for key, texts in by_row.items()], (0, 1))


def improvements(report: Report) -> Table:
    """Probability of improvement of each pair of arms."""
    rows = [
        [
            f"{better.arm} over {better.baseline}",
            ", ".join(better.maps),
            interval(better.estimate, two_digits),
        ]
        for better in report.numbers.improvements
    ]
    return Table(["arms", "maps", "probability"], rows, (0, 1))


def costs(report: Report) -> Table:
    """Wall-clock time, environment steps per second and episodes of finished runs, and what the steps to each
    threshold take at that speed."""
    thresholds = report.numbers.thresholds if report.numbers.overall else []
    rows = []
    for cell in report.numbers.cells:
        finished = [run for run in report.runs if _is_in_cell(run, cell) and run.status == "finished"]
        seconds, steps, episodes = (
            _mean(getattr(run, what) for run in finished) for what in ("seconds", "steps", "episodes")
        )
        speed = steps / seconds if steps and seconds else None
        rows.append(
            [
                cell.map,
                cell.arm,
                _text(seconds, clock),
                _text(speed, lambda value: f"{value:,.0f}"),
                _text(episodes, lambda value: f"{value:,.0f}"),
                *(_time(cell, threshold, speed) for threshold in thresholds),
            ]
        )
    goals = [f"time to {percent(threshold)}" for threshold in thresholds]
    return Table(["map", "arm", "time per run", "steps per second", "episodes", *goals], rows, (0, 1))


def _text(value: float | None, text: Callable[[float], str]) -> str:
    return "–" if value is None else text(value)


def _time(cell: Cell, threshold: float, speed: float | None) -> str:
    if not speed or threshold not in cell.reached:
        return "–"
    mark = "" if cell.reached[threshold] else "≥ "
    return mark + clock(cell.restricted_mean[threshold] / speed)


def _is_in_cell(run: RunRecord, cell: Cell) -> bool:
    return (run.arm, run.map) == (cell.arm, cell.map)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def arms(report: Report) -> Table:
    """What each arm is: its config, what the campaign lays over it, and what it comes to."""
    rows = []
    for arm in report.campaign.arms:
        overrides = " ".join(f"{key}={value}" for key, value in flat(arm.overrides).items())
        rows.append([arm.id, arm.config, overrides or "–", _differs(report, arm.id) or "–"])
    return Table(["arm", "config", "overrides", _unlike(report)], rows, range(4))


def runs(report: Report) -> Table:
    """Every planned run; its options where they are not those that ``arms`` tells of its arm."""
    others = [run.differs for run in report.runs if run.differs not in ("", _differs(report, run.arm))]
    rows = [
        [
            run.arm,
            run.map,
            str(run.seed),
            run.status,
            str(run.attempts),
            clock(run.seconds) if run.seconds is not None else "–",
            f"{run.steps:,.0f}" if run.steps is not None else "–",
            f"left out: {run.left_out}" if run.left_out else run.reason or "–",
            *([run.differs or "–"] if others else []),
        ]
        for run in report.runs
    ]
    header = ["arm", "map", "seed", "status", "attempts", "time", "steps", "note"]
    return Table([*header, *([_unlike(report)] if others else [])], rows, (0, 1, 3, 7, 8))


def _differs(report: Report, arm: str) -> str:
    """Of an arm's first run that says so: on another map or with another seed it may be more."""
    return next((run.differs for run in report.runs if run.arm == arm and run.differs), "")


def _unlike(report: Report) -> str:
    return f"options unlike {report.campaign.arms[0].id}'s"


def made_with(report: Report) -> Table:
    """Versions and machines, with the number of runs where they are not the same for all."""
    found: dict[str, dict[str, int]] = {}
    records = [_plain(run.made_with) for run in report.runs if run.made_with]
    for key in dict.fromkeys(key for record in records for key in record):
        for record in records:
            value = record.get(key, "none")
            found.setdefault(key, {})[value] = found.setdefault(key, {}).get(value, 0) + 1
    rows = [
        [
            key,
            next(iter(values))
            if len(values) == 1
            else ", ".join(f"{value} ({many(range(n), 'run')})" for value, n in values.items()),
        ]
        for key, values in found.items()
    ]
    return Table(["what", "version"], rows, (0, 1))


def _plain(record: Block) -> dict[str, str]:
    flattened = flat(record)
    return {
        key.removeprefix("packages.").replace("_", " "): value
        if isinstance(value, str)
        else json.dumps(value)
        for key, value in flattened.items()
        if value is not None
    }
