"""What a learning curve is summed up to: pure functions.

A run that diverged is a result.  NaN reaches no threshold and wins nothing; a run that stopped as it diverged
is closed by its reader with NaN at the budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

#: Averages that equal the threshold on paper may miss it in binary: (0.7 + 0.8 + 0.9) / 3 < 0.8.
_ROUNDING = 1e-9


def steps_to_threshold(
    steps: Sequence[float], values: Sequence[float], threshold: float, k: int = 3
) -> float | None:
    """T_τ: the first evaluation from which ``k`` consecutive evaluations average at least ``threshold``.

    Args:
        steps: environment steps of the evaluations, in order.
        values: their results, as win rates in [0, 1]; NaN reaches no threshold.
        threshold: τ, a win rate in (0, 1].
        k: how many evaluations must hold the threshold together, so that one lucky test is not enough.

    Returns:
        Environment steps, or None where the threshold was not reached within the curve (right-censored).

    Raises:
        ValueError: ``steps`` and ``values`` differ in length, ``steps`` decrease, ``threshold`` is out of
            range, or ``k`` is below 1.
    """
    _check(steps, values)
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold}: expected a win rate in (0, 1]")
    _check_k(k)
    for first in range(len(values) - k + 1):
        if sum(values[first : first + k]) / k >= threshold - _ROUNDING:
            return float(steps[first])
    return None


def final_win_rate(steps: Sequence[float], values: Sequence[float], budget: float, k: int = 3) -> float:
    """Win rate at the budget: average of the last ``k`` evaluations up to it.

    Args:
        steps: environment steps of the evaluations, in order.
        values: their results, as win rates in [0, 1].
        budget: in environment steps; later evaluations do not count.
        k: how many evaluations are averaged, as one of some dozens of episodes is a rough estimate.

    Returns:
        Win rate in [0, 1]; 0 where one of the ``k`` is NaN.

    Raises:
        ValueError: as in :func:`area_under_curve`, ``k`` is below 1, or there are fewer evaluations.
    """
    _check_covers(steps, values, budget)
    _check_k(k)
    last = [value for step, value in zip(steps, values, strict=True) if step <= budget][-k:]
    if len(last) < k:
        raise ValueError(f"{len(last)} evaluations up to budget={budget}: expected at least k={k}")
    return float(np.nan_to_num(np.mean(last)))


def area_under_curve(steps: Sequence[float], values: Sequence[float], budget: float) -> float:
    """Area under the learning curve from step 0 to the budget, over the budget: the average win rate.

    Straight lines join the evaluations, so runs that were evaluated at different steps compare; the first and
    the last value hold up to the ends.  A line from or to NaN has no area below it.

    Args:
        steps: environment steps of the evaluations, in order.
        values: their results, as win rates in [0, 1].
        budget: in environment steps; what lies behind it is cut off.

    Returns:
        Average win rate in [0, 1].

    Raises:
        ValueError: ``steps`` and ``values`` differ in length or are empty, ``steps`` decrease or are
            negative, ``budget`` is not positive, or the curve ends before it by more than twice the
            longest distance between evaluations, as that of a run that is not over does.
    """
    _check_covers(steps, values, budget)
    at_start, at_budget = np.interp([0, budget], steps, values)
    inside = [point for point in zip(steps, values, strict=True) if 0 < point[0] < budget]
    x, y = np.array([(0, at_start), *inside, (budget, at_budget)]).T
    return float(np.nansum(np.diff(x) * (y[1:] + y[:-1]) / 2) / budget)


def _check(steps: Sequence[float], values: Sequence[float]) -> None:
    if len(steps) != len(values):
        raise ValueError(f"{len(steps)} steps given for {len(values)} values")
    for earlier, later in pairwise(steps):
        if not earlier <= later:
            raise ValueError(f"steps must not decrease: {later} comes after {earlier}")


def _check_k(k: int) -> None:
    if k < 1:
        raise ValueError(f"k={k}: expected at least 1 evaluation")


def _check_covers(steps: Sequence[float], values: Sequence[float], budget: float) -> None:
    _check(steps, values)
    if not 0 < budget < np.inf:
        raise ValueError(f"budget={budget}: expected a positive number of environment steps")
    if not len(steps):
        raise ValueError("no evaluation given, expected at least one")
    if not steps[0] >= 0:
        raise ValueError(f"step {steps[0]}: expected no negative steps")
    # The last evaluation of a whole run lies an interval before the budget, or a little more.
    longest = max(later - earlier for earlier, later in pairwise([0, *steps]))
    if steps[-1] < budget - 2 * longest:
        raise ValueError(
            f"the curve ends at step {steps[-1]} of {budget}: expected a whole run, "
            "or NaN at the budget for a run that diverged"
        )
