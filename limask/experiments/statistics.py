"""What many runs are summed up to, with 95 % intervals: pure functions of T_τ and of scores.

An arm is a mapping from a map to one number per run (seed): environment steps T_τ, or None where a run did
not reach τ, or scores such as win rates.  Every run counts, also one that diverged: its numbers are those
that :mod:`limask.experiments.metrics` makes of it.  The order of runs and maps changes nothing.

Written in numpy alone, as the package needs scipy nowhere; the tests hold it against scipy and rliable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

#: How often the runs are drawn anew for an interval.
RESAMPLES = 10_000

_QUANTILES = (0.025, 0.975)


class Interval(NamedTuple):
    """A value and its 95 % interval, from ``low`` to ``high``.

    Few runs make it too narrow, and a single run of each map gives it no width at all.
    """

    value: float
    low: float
    high: float


class Survival(NamedTuple):
    """Share ``not_yet[i]`` of the runs, 1 at first, needs more than ``steps[i]`` environment steps."""

    steps: FloatArray
    not_yet: FloatArray


def restricted_mean(times: Sequence[float | None], budget: float) -> float:
    """RMST_τ(B) = mean of min(T_τ, B): environment steps that a run spends below τ, of the first B.

    Source: Royston and Parmar, "Restricted mean survival time", 2013.

    Args:
        times: T_τ of each run of one arm on one map in environment steps, or None where τ was not reached.
        budget: B in environment steps; a later T_τ counts as B.

    Raises:
        ValueError: there is no run, a time is negative or NaN, or ``budget`` is not positive and finite.
    """
    return float(_capped(times, budget).mean())


def share_reached(times: Sequence[float | None], budget: float) -> float:
    """Share of the runs in [0, 1] with T_τ ≤ B.  Arguments and errors as in :func:`restricted_mean`."""
    return _reached(times, budget).size / len(times)


def kaplan_meier(times: Sequence[float | None], budget: float) -> Survival:
    """Share of the runs that are still below τ, at each step where it falls.

    As every run is censored at the same budget, none leaves before another's T_τ: the product-limit estimator
    of Kaplan and Meier (1958) telescopes to the plain share.  The area below the curve is RMST_τ(B).

    Arguments and errors as in :func:`restricted_mean`.

    Returns:
        Two arrays of shape (different T_τ ≤ B), empty where no run reached τ.
    """
    steps, n_reaching = np.unique(_reached(times, budget), return_counts=True)
    return Survival(steps, (len(times) - n_reaching.cumsum()) / len(times))


def restricted_mean_ratio(
    arm: Mapping[str, Sequence[float | None]],
    baseline: Mapping[str, Sequence[float | None]],
    budgets: Mapping[str, float],
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Interval:
    """Geometric mean over maps of RMST_τ(B) of ``arm`` over that of ``baseline``; 0.5 is half the steps.

    A single map gives that map's ratio.  A map on which no run of either arm reaches τ has the ratio 1.

    Args:
        arm: T_τ of its runs by map, as in :func:`restricted_mean`.
        baseline: likewise; the number of runs may differ.
        budgets: B by map, in environment steps.
        generator: draws the runs anew, within each map and arm.
        resamples: how often.

    Raises:
        ValueError: there is no map, the maps of the three differ, a run reaches τ at step 0 (no ratio to 0),
            ``resamples`` is below 1, or as in :func:`restricted_mean`.
    """
    maps = _common_maps(arm, baseline, budgets)
    strata = [_capped(times[name], budgets[name], name) for times in (arm, baseline) for name in maps]
    if any(times.min() <= 0 for times in strata):
        raise ValueError("T=0: expected runs that reach the threshold after some training")

    def statistic(strata: list[FloatArray]) -> FloatArray:
        log_means = np.log([times.mean(axis=-1) for times in strata])
        ratio: FloatArray = np.exp((log_means[: len(maps)] - log_means[len(maps) :]).mean(axis=0))
        return ratio

    return Interval(*_bootstrap(statistic, strata, generator, resamples).tolist())


def mean_score(
    scores: Mapping[str, Sequence[float]], generator: np.random.Generator, resamples: int = RESAMPLES
) -> Interval:
    """Mean over maps of the mean of each map's runs.  Arguments and errors as in
    :func:`interquartile_mean`."""
    return Interval(*_bootstrap(_mean_of_means, _strata(scores), generator, resamples).tolist())


def mean_difference(
    arm: Mapping[str, Sequence[float]],
    baseline: Mapping[str, Sequence[float]],
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Interval:
    """How much more runs of ``arm`` score than those of ``baseline``: :func:`mean_score` of the one less that
    of the other.  Arguments and errors as in :func:`probability_of_improvement`."""
    n_maps = len(_common_maps(arm, baseline))

    def statistic(strata: list[FloatArray]) -> FloatArray:
        return _mean_of_means(strata[:n_maps]) - _mean_of_means(strata[n_maps:])

    return Interval(*_bootstrap(statistic, _strata(arm) + _strata(baseline), generator, resamples).tolist())


def _mean_of_means(strata: list[FloatArray]) -> FloatArray:
    means: FloatArray = np.mean([runs.mean(axis=-1) for runs in strata], axis=0)
    return means


def interquartile_mean(
    scores: Mapping[str, Sequence[float]], generator: np.random.Generator, resamples: int = RESAMPLES
) -> Interval:
    """IQM: mean of the middle half of all runs of all maps, a quarter (rounded down) cut off at either end.

    Source: Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", 2021.

    Args:
        scores: one per run by map, on a scale that maps share.
        generator: draws the runs anew, within each map.
        resamples: how often.

    Raises:
        ValueError: there is no map, a map has no run, a score is not finite, or ``resamples`` is below 1.
    """

    def statistic(strata: list[FloatArray]) -> FloatArray:
        runs = np.sort(np.concatenate(strata, axis=-1), axis=-1)
        n_cut = runs.shape[-1] // 4
        mean: FloatArray = runs[..., n_cut : runs.shape[-1] - n_cut].mean(axis=-1)
        return mean

    return Interval(*_bootstrap(statistic, _strata(scores), generator, resamples).tolist())


def probability_of_improvement(
    arm: Mapping[str, Sequence[float]],
    baseline: Mapping[str, Sequence[float]],
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Interval:
    """Chance that a run of ``arm`` scores above one of ``baseline`` on the same map, averaged over maps.

    On each map it is the share of pairs of runs (Mann–Whitney) that ``arm`` wins, where a tie is half a win.
    Source and errors as in :func:`interquartile_mean`; also ValueError where the maps of the two differ.

    Args:
        arm: scores of its runs by map; higher is better.
        baseline: likewise; the number of runs may differ.
        generator: draws the runs anew, within each map and arm.
        resamples: how often.
    """
    n_maps = len(_common_maps(arm, baseline))

    def statistic(strata: list[FloatArray]) -> FloatArray:
        shares = []
        for ours, theirs in zip(strata[:n_maps], strata[n_maps:], strict=True):
            difference = ours[..., :, None] - theirs[..., None, :]
            shares.append((np.sign(difference).mean(axis=(-2, -1)) + 1) / 2)
        chance: FloatArray = np.mean(shares, axis=0)
        return chance

    return Interval(*_bootstrap(statistic, _strata(arm) + _strata(baseline), generator, resamples).tolist())


def performance_profile(
    scores: Mapping[str, Sequence[float]],
    thresholds: Sequence[float],
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> list[Interval]:
    """For each threshold, the share in [0, 1] of all runs of all maps that score above it.

    The intervals hold for each threshold by itself, not for the whole profile at once.
    Source and errors as in :func:`interquartile_mean`; also ValueError without thresholds or outside [0, 1].

    Args:
        scores: win rates, or others in [0, 1], one per run by map.
        thresholds: in the scores' unit.
        generator: draws the runs anew, within each map.
        resamples: how often.
    """
    if not len(thresholds) or not all(0 <= threshold <= 1 for threshold in thresholds):
        raise ValueError(f"thresholds {list(thresholds)}: expected scores in [0, 1], at least one")

    def statistic(strata: list[FloatArray]) -> FloatArray:
        runs = np.concatenate(strata, axis=-1)
        return np.array([(runs > threshold).mean(axis=-1) for threshold in thresholds]).T

    profile = _bootstrap(statistic, _strata(scores), generator, resamples)
    return [Interval(*column) for column in profile.T.tolist()]


def _bootstrap(
    statistic: Callable[[list[FloatArray]], FloatArray],
    strata: list[FloatArray],
    generator: np.random.Generator,
    resamples: int,
) -> FloatArray:
    """Value, low and high of a statistic, shape (3, ...): stratified bootstrap, percentile interval.

    ``statistic`` takes an array per stratum with runs on the last axis and keeps the axes before it.
    Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993.
    """
    if resamples < 1:
        raise ValueError(f"resamples={resamples}: expected at least 1")
    drawn = [runs[generator.integers(runs.size, size=(resamples, runs.size))] for runs in strata]
    return np.stack([statistic(strata), *np.quantile(statistic(drawn), _QUANTILES, axis=0)])


def _reached(times: Sequence[float | None], budget: float, where: str = "times") -> FloatArray:
    """T_τ of the runs that reached τ within the budget, in order."""
    if not 0 < budget < math.inf:
        raise ValueError(f"{where}: budget={budget}, expected a positive number of environment steps")
    if not len(times):
        raise ValueError(f"{where}: no run given, expected at least one")
    reaching = np.array([time for time in times if time is not None], dtype=np.float64)
    if not (reaching >= 0).all():
        raise ValueError(f"{where}: {list(times)}, expected environment steps, or None for runs that failed")
    return np.sort(reaching[reaching <= budget])


def _capped(times: Sequence[float | None], budget: float, where: str = "times") -> FloatArray:
    """min(T_τ, B) of every run, in order."""
    reached = _reached(times, budget, where)
    return np.concatenate([reached, np.full(len(times) - reached.size, budget)])


def _strata(scores: Mapping[str, Sequence[float]]) -> list[FloatArray]:
    """Scores of each map, in an order that does not depend on how they were given, as draws do on it."""
    strata = {name: np.sort(np.asarray(scores[name], dtype=np.float64)) for name in _common_maps(scores)}
    for name, runs in strata.items():
        if not runs.size:
            raise ValueError(f"{name}: no run given, expected at least one")
        if not np.isfinite(runs).all():
            raise ValueError(f"{name}: scores {runs.tolist()}, expected finite numbers")
    return list(strata.values())


def _common_maps(*of: Mapping[str, object]) -> list[str]:
    """The maps that all of the mappings have, in alphabetical order."""
    maps, *others = [sorted(mapping) for mapping in of]
    for other in others:
        if other != maps:
            raise ValueError(f"maps {maps} and {other} given, expected the same")
    if not maps:
        raise ValueError("no map given, expected at least one")
    return maps


def rank_correlation(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Spearman's rank correlation in [-1, 1]; equal numbers share the mean of their ranks.

    Source: Spearman, "The proof and measurement of association between two things", 1904.

    Args:
        first: numbers (n,), n ≥ 2.
        second: as many.

    Returns:
        NaN where all numbers of one of the two are equal.

    Raises:
        ValueError: they are not as many, or fewer than two, or not finite.
    """
    ranks = []
    for numbers in map(np.asarray, (first, second)):
        if numbers.ndim != 1 or numbers.size < 2 or not np.isfinite(numbers).all():
            raise ValueError(f"{numbers.tolist()}: expected two finite numbers or more")
        _, place, count = np.unique(numbers, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(count) - (count - 1) / 2)[place])
    if ranks[0].size != ranks[1].size:
        raise ValueError(f"{ranks[0].size} and {ranks[1].size} numbers given, expected as many of both")
    x, y = (rank - rank.mean() for rank in ranks)
    scale = math.sqrt((x @ x) * (y @ y))
    return float(x @ y) / scale if scale else math.nan


_Z = 1.959963984540054  # 97.5 % of a standard normal distribution lie below


def wilson_interval(share: float, n: int) -> Interval:
    """A share of ``n`` independent trials with its 95 % interval, which has a width also at 0 and 1.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    weight = 1 + _Z**2 / n
    centre = (share + _Z**2 / (2 * n)) / weight
    half = _Z / weight * math.sqrt(share * (1 - share) / n + (_Z / (2 * n)) ** 2)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))
