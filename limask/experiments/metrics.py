"""What a learning curve is summed up to: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

#: Averages that equal the threshold on paper may miss it in binary: (0.7 + 0.8 + 0.9) / 3 < 0.8.
_ROUNDING = 1e-9


def steps_to_threshold(
    steps: Sequence[float], values: Sequence[float], threshold: float, k: int = 3
) -> float | None:
    """T_τ: the first evaluation from which ``k`` consecutive evaluations average at least ``threshold``.

    Args:
        steps: environment steps of the evaluations, in order.
        values: their results, as win rates in [0, 1]; NaN reaches no threshold.
        threshold: τ, in the unit of ``values``.
        k: how many evaluations must hold the threshold together, so that one lucky test is not enough.

    Returns:
        Environment steps, or None where the threshold was not reached within the curve (right-censored).

    Raises:
        ValueError: ``steps`` and ``values`` differ in length, ``steps`` decrease, or ``k`` is below 1.
    """
    if len(steps) != len(values):
        raise ValueError(f"{len(steps)} steps given for {len(values)} values")
    if k < 1:
        raise ValueError(f"k={k}: expected at least 1 evaluation")
    for earlier, later in pairwise(steps):
        if not earlier <= later:
            raise ValueError(f"steps must not decrease: {later} comes after {earlier}")
    for first in range(len(values) - k + 1):
        if sum(values[first : first + k]) / k >= threshold - _ROUNDING:
            return float(steps[first])
    return None
