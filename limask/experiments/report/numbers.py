"""The numbers of a campaign's report: pure functions of the runs' tests.

What each number means is said in ``metrics`` (one run) and ``statistics`` (many runs). A map is measured by
win rates where its runs log them, and else by returns, which know no threshold: such a map has no T_τ.
Every statistic draws from a generator of its own with the same seed, so that none depends on what else is
reported.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, TypeVar

import numpy as np

from limask.experiments import metrics
from limask.experiments import statistics as stats
from limask.experiments.report.data import (
    Band,
    Cell,
    Estimate,
    Improvement,
    Numbers,
    Overall,
    Ratio,
    Result,
    Score,
    Survival,
    Task,
)
from limask.experiments.storage.sacred_files import Curve

#: Tests that must hold a threshold together, and that the final score is the average of.
K = 3

#: Resamples for each point of a band, which is drawn and not quoted.
_BAND_RESAMPLES = 2_000

T = TypeVar("T")


def compared(arms: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of an arm and its baseline: the last arm against every earlier one, the first one first, and then
    the arms between against the first. By this the first arm is the campaign's baseline and the last one what
    the campaign is about; the arms between are controls."""
    if len(arms) < 2:
        return []
    first, *between, last = arms
    return [(last, first), *((last, arm) for arm in between), *((arm, first) for arm in between)]


def tasks(budgets: Mapping[str, int], results: Sequence[Result]) -> list[Task]:
    """What each map is measured by, over so many environment steps; maps without results are left out."""
    found = []
    for name, budget in budgets.items():
        logged = [result.tests for result in results if result.map == name]
        if not logged:
            continue
        if all(any(test.win_rate is not None for test in tests) for tests in logged if tests):
            found.append(Task(name, "win rate", budget))
            continue
        returns = [test.mean_return for tests in logged for test in tests if test.mean_return is not None]
        found.append(Task(name, "return", budget, float(np.nanmin(returns)) if returns else 0.0))
    return found


def score(result: Result, task: Task, thresholds: Sequence[float]) -> Score:
    """What one run comes to.

    Raises:
        ValueError: the curve is too short to be judged.
    """
    steps, values = closed(result, task)
    # Above the floor, so that what is lost to a divergence counts as the floor, in returns as in win rates.
    above = [value - task.floor for value in values]
    times = {}
    for threshold in thresholds if task.measure == "win rate" else ():
        time = metrics.steps_to_threshold(steps, values, threshold, K)
        times[threshold] = time if time is not None and time <= task.budget else None
    return Score(
        result.arm,
        result.map,
        result.seed,
        times,
        task.floor + metrics.final_win_rate(steps, above, task.budget, K),
        task.floor + metrics.area_under_curve(steps, above, task.budget),
        result.is_diverged,
        Curve(steps, values),
    )


def closed(result: Result, task: Task) -> Curve:
    """The run's curve; that of a run that diverged ends with as many NaN at the budget as a final score is
    the average of, and begins at 0 if it has no test at all."""
    pairs = [
        (test.steps, value)
        for test in result.tests
        if (value := test.win_rate if task.measure == "win rate" else test.mean_return) is not None
    ]
    steps, values = [step for step, _ in pairs], [value for _, value in pairs]
    if result.is_diverged:
        steps += [task.budget] * K if steps else [0] + [task.budget] * (K - 1)
        values += [float("nan")] * K
    return Curve(tuple(steps), tuple(values))


def on_grid(curve: Curve, grid: Sequence[float], floor: float) -> list[float | None]:
    """A curve's values at the steps of a grid, None before its first and after its last test.

    Straight lines join the tests, as they do for the area under the curve. The last value before each grid
    step would shift every curve to the right by up to an interval, for hosts test a little after the round
    step. Nothing is made up outside of the tests; what is NaN is the floor.
    """
    if not curve.steps:
        return [None] * len(grid)
    values = np.interp(grid, *curve)
    return [
        None if not curve.steps[0] <= step <= curve.steps[-1] else floor if np.isnan(value) else float(value)
        for step, value in zip(grid, values, strict=True)
    ]


def numbers(
    arms: Sequence[str],
    tasks: Sequence[Task],
    scores: Sequence[Score],
    *,
    test_interval: int,
    thresholds: Sequence[float],
) -> Numbers:
    """Everything that the report says in numbers; ``scores`` must not be empty."""
    table = _Table(scores, tasks)
    present = [arm for arm in arms if any(score.arm == arm for score in scores)]
    used = [task for task in tasks if any(score.map == task.map for score in scores)]
    keys = [(arm, task) for task in used for arm in present if table.runs(arm, task.map)]
    reaching = [(arm, task, t) for t in thresholds for arm, task in keys if task.measure == "win rate"]
    return Numbers(
        present,
        used,
        list(thresholds),
        list(scores),
        [table.cell(arm, task) for arm, task in keys],
        [overall for arm in present if (overall := table.overall(arm))],
        [ratio for t in thresholds for pair in compared(present) for ratio in table.ratios(*pair, t)],
        [better for pair in compared(present) if (better := table.improvement(*pair))],
        [table.band(arm, task, range(0, task.budget + 1, test_interval)) for arm, task in keys],
        [table.survival(*key) for key in reaching],
    )


class _Table:
    """The runs' scores by arm and map."""

    def __init__(self, scores: Sequence[Score], tasks: Sequence[Task]) -> None:
        self._tasks = tasks
        self._scores: dict[tuple[str, str], list[Score]] = {}
        for score in scores:
            self._scores.setdefault((score.arm, score.map), []).append(score)

    def runs(self, arm: str, map_name: str) -> list[Score]:
        return self._scores.get((arm, map_name), [])

    def cell(self, arm: str, task: Task) -> Cell:
        runs = self.runs(arm, task.map)
        thresholds = runs[0].times
        times = {threshold: [run.times[threshold] for run in runs] for threshold in thresholds}
        return Cell(
            arm,
            task.map,
            task.measure,
            len(runs),
            sum(run.is_diverged for run in runs),
            {t: stats.restricted_mean(times[t], task.budget) for t in thresholds},
            {t: stats.share_reached(times[t], task.budget) for t in thresholds},
            _middle({task.map: [run.final for run in runs]}),
            _middle({task.map: [run.area for run in runs]}),
        )

    def overall(self, arm: str) -> Overall | None:
        maps = self._maps(arm, measure="win rate")
        if not maps:
            return None
        final = self._by_map(arm, maps, lambda run: run.final)
        # Between two scores that occur, the share of runs above is the same.
        at = sorted({0.0, 1.0, *itertools.chain(*final.values())})
        profile = stats.performance_profile(final, at, _generator())
        return Overall(
            arm,
            maps,
            _middle(final),
            _middle(self._by_map(arm, maps, lambda run: run.area)),
            [(each, _estimate(share, final)) for each, share in zip(at, profile, strict=True)],
        )

    def ratios(self, arm: str, baseline: str, threshold: float) -> list[Ratio]:
        """Of each map, and of all of them at the end if there are several."""
        maps = self._maps(arm, baseline, measure="win rate")
        chosen = [[name] for name in maps] + ([maps] if len(maps) > 1 else [])
        return [self._ratio(arm, baseline, threshold, maps) for maps in chosen]

    def _ratio(self, arm: str, baseline: str, threshold: float, maps: list[str]) -> Ratio:
        ours, theirs = (
            self._by_map(name, maps, lambda run: run.times[threshold]) for name in (arm, baseline)
        )
        times = [time for of in (ours, theirs) for runs in of.values() for time in runs if time is not None]
        estimate = None
        if 0 not in times:
            budgets = {task.map: float(task.budget) for task in self._tasks if task.map in maps}
            interval = stats.restricted_mean_ratio(ours, theirs, budgets, _generator())
            estimate = _estimate(interval, ours, theirs)
        is_cut, is_baseline_cut = (None in itertools.chain(*of.values()) for of in (ours, theirs))
        bound: Literal["", "≤", "≥"] = ""
        if is_cut != is_baseline_cut:
            bound = "≤" if is_baseline_cut else "≥"
        return Ratio(arm, baseline, threshold, maps, estimate, bool(times), bound)

    def improvement(self, arm: str, baseline: str) -> Improvement | None:
        maps = self._maps(arm, baseline)
        if not maps:
            return None
        ours, theirs = (self._by_map(name, maps, lambda run: run.final) for name in (arm, baseline))
        interval = stats.probability_of_improvement(ours, theirs, _generator())
        return Improvement(arm, baseline, maps, _estimate(interval, ours, theirs))

    def band(self, arm: str, task: Task, grid: Sequence[float]) -> Band:
        """Only at steps that every run has: an average over fewer and fewer runs would bend the curve."""
        curves = [on_grid(run.curve, grid, task.floor) for run in self.runs(arm, task.map)]
        points = [
            (step, _middle({task.map: [value for value in values if value is not None]}, _BAND_RESAMPLES))
            for step, *values in zip(grid, *curves, strict=True)
            if None not in values
        ]
        return Band(arm, task.map, [step for step, _ in points], [value for _, value in points])

    def survival(self, arm: str, task: Task, threshold: float) -> Survival:
        times = [run.times[threshold] for run in self.runs(arm, task.map)]
        steps, not_yet = stats.kaplan_meier(times, task.budget)
        return Survival(arm, task.map, threshold, steps.tolist(), not_yet.tolist())

    def _maps(self, *arms: str, measure: str | None = None) -> list[str]:
        """The maps on which runs of all of the arms count."""
        return [
            task.map
            for task in self._tasks
            if measure in (None, task.measure) and all(self.runs(arm, task.map) for arm in arms)
        ]

    def _by_map(self, arm: str, maps: Iterable[str], number: Callable[[Score], T]) -> dict[str, list[T]]:
        return {name: [number(run) for run in self.runs(arm, name)] for name in maps}


def _generator() -> np.random.Generator:
    return np.random.default_rng(0)


def _middle(scores: dict[str, list[float]], resamples: int = stats.RESAMPLES) -> Estimate:
    return _estimate(stats.interquartile_mean(scores, _generator(), resamples), scores)


def _estimate(interval: stats.Interval, *runs_by_map: Mapping[str, Sequence[object]]) -> Estimate:
    """Without an interval where a map has a single run: drawn anew, that is the same run again and again."""
    if any(len(runs) == 1 for by_map in runs_by_map for runs in by_map.values()):
        return Estimate(interval.value)
    return Estimate(*interval)
