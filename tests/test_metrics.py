"""T_τ against hand-computed curves."""

import math

import pytest

from limask.experiments.metrics import steps_to_threshold

STEPS = [0, 10, 20, 30, 40, 50]


@pytest.mark.parametrize(
    ("values", "threshold", "expected"),
    [
        # Averages of three from each evaluation on: 1/3, 1/2, 2/3, 5/6.
        ([0.0, 0.5, 0.5, 0.5, 1.0, 1.0], 0.5, 10.0),
        ([0.0, 0.5, 0.5, 0.5, 1.0, 1.0], 0.8, 30.0),
        # One lucky test does not count: 1/3 throughout, then 2/3 from 30 on.
        ([0.0, 1.0, 0.0, 0.0, 1.0, 1.0], 0.5, 30.0),
        # An average is enough, though the first of the three is below: (0.25 + 0.5 + 0.75) / 3 = 0.5.
        ([0.0, 0.0, 0.25, 0.5, 0.75, 0.0], 0.5, 20.0),
        # Equal on paper, below in binary.
        ([0.7, 0.8, 0.9, 0.0, 0.0, 0.0], 0.8, 0.0),
        # High too late: only two evaluations are left.
        ([0.0, 0.0, 0.0, 0.0, 1.0, 1.0], 0.8, None),
        ([0.0] * 6, 0.5, None),
        # NaN spoils every average that it is in.
        ([1.0, 1.0, math.nan, 1.0, 1.0, 1.0], 0.5, 30.0),
        ([1.0, 1.0, math.nan, 1.0, 1.0, math.nan], 0.5, None),
    ],
)
def test_three_consecutive_evaluations(values: list[float], threshold: float, expected: float | None) -> None:
    assert steps_to_threshold(STEPS, values, threshold) == expected


def test_other_persistence() -> None:
    values = [0.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    assert steps_to_threshold(STEPS, values, 0.5, k=1) == 10.0
    assert steps_to_threshold(STEPS, values, 0.8, k=2) == 40.0


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_evaluations_reach_nothing(n: int) -> None:
    assert steps_to_threshold(STEPS[:n], [1.0] * n, 0.5) is None


def test_evaluations_at_the_same_step_keep_their_order() -> None:
    assert steps_to_threshold([0, 10, 10, 20], [0.0, 1.0, 1.0, 1.0], 0.9) == 10.0


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="10 comes after 20"):
        steps_to_threshold([0, 20, 10], [1.0, 1.0, 1.0], 0.5)
    with pytest.raises(ValueError, match="3 steps given for 2 values"):
        steps_to_threshold([0, 10, 20], [1.0, 1.0], 0.5)
    with pytest.raises(ValueError, match="k=0"):
        steps_to_threshold([0], [1.0], 0.5, k=0)
