"""T_τ, the final win rate and the area under the curve against hand-computed curves."""

import math
from collections.abc import Callable

import pytest

from limask.experiments.metrics import area_under_curve, final_win_rate, steps_to_threshold

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
    for threshold in (0, 80, math.nan):
        with pytest.raises(ValueError, match=rf"threshold={threshold}: expected a win rate in \(0, 1\]"):
            steps_to_threshold(STEPS, [1.0] * 6, threshold)


@pytest.mark.parametrize(
    ("values", "budget", "expected"),
    [
        # Last three: (0.5 + 0.75 + 1) / 3.
        ([0.0, 0.0, 0.0, 0.5, 0.75, 1.0], 50, 0.75),
        # Evaluations at 0 to 30 are within the budget: (0 + 0 + 0.75) / 3.
        ([0.0, 0.0, 0.0, 0.75, 1.0, 1.0], 39, 0.25),
        # An early NaN is over; one of the last three is not.
        ([math.nan, 1.0, 1.0, 1.0, 1.0, 1.0], 50, 1.0),
        ([1.0, 1.0, 1.0, 1.0, 1.0, math.nan], 50, 0.0),
    ],
)
def test_final_win_rate(values: list[float], budget: float, expected: float) -> None:
    assert final_win_rate(STEPS, values, budget) == pytest.approx(expected)


def test_final_win_rate_of_one_evaluation() -> None:
    assert final_win_rate(STEPS, [0.0, 0.0, 0.0, 0.5, 0.75, 1.0], 50, k=1) == 1.0


@pytest.mark.parametrize(
    ("steps", "values", "budget", "expected"),
    [
        # Trapezoids of 10 steps: 10 * (0 + 0 + 0.25 + 0.75 + 1) = 20, of 50.
        (STEPS, [0.0, 0.0, 0.0, 0.5, 1.0, 1.0], 50, 0.4),
        # Cut off at 35, where the line from 0.5 to 1 is at 0.75: 10 * 0.25 + 5 * 0.625 = 5.625, of 35.
        (STEPS, [0.0, 0.0, 0.0, 0.5, 1.0, 1.0], 35, 5.625 / 35),
        # The first value holds from 0, the last to 40: 10 * 0.5 + 20 * 0.75 + 10 * 1 = 30, of 40.
        ([10, 30], [0.5, 1.0], 40, 0.75),
        ([10], [0.5], 10, 0.5),
        # Two evaluations at one step: 10 * 0 + 10 * 1, of 20.
        ([0, 10, 10, 20], [0.0, 0.0, 1.0, 1.0], 20, 0.5),
        # The lines from 10 to 20 and from 20 to 30 have no area: 30 of 50.
        (STEPS, [1.0, 1.0, math.nan, 1.0, 1.0, 1.0], 50, 0.6),
        # Stopped as it diverged after 20 of 50 steps: 20 of 50.
        ([0, 10, 20, 50], [1.0, 1.0, 1.0, math.nan], 50, 0.4),
        (STEPS, [math.nan] * 6, 50, 0.0),
    ],
)
def test_area_under_curve(steps: list[float], values: list[float], budget: float, expected: float) -> None:
    assert area_under_curve(steps, values, budget) == pytest.approx(expected)


def test_area_does_not_depend_on_where_a_line_is_evaluated() -> None:
    fine = [step / 50 for step in range(51)]
    assert area_under_curve(range(51), fine, 50) == pytest.approx(
        area_under_curve([0, 13, 50], [0, 0.26, 1], 50)
    )


@pytest.mark.parametrize("of_run", [final_win_rate, area_under_curve])
def test_bad_runs(of_run: Callable[..., float]) -> None:
    with pytest.raises(ValueError, match="2 steps given for 1 values"):
        of_run([0, 10], [1.0], 10)
    with pytest.raises(ValueError, match="no evaluation given"):
        of_run([], [], 10)
    with pytest.raises(ValueError, match="0 comes after 10"):
        of_run([10, 0], [1.0, 1.0], 10)
    with pytest.raises(ValueError, match="step -5: expected no negative steps"):
        of_run([-5, 10], [1.0, 1.0], 10)
    for budget in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"budget={budget}: expected a positive number"):
            of_run(STEPS, [1.0] * 6, budget)
    # Evaluated every 10 steps: 50 is near enough to 70, but not to 71.
    assert of_run(STEPS, [1.0] * 6, 70) == 1.0
    with pytest.raises(ValueError, match="ends at step 50 of 71: expected a whole run, or NaN at the budget"):
        of_run(STEPS, [1.0] * 6, 71)


def test_final_win_rate_of_too_few_evaluations() -> None:
    with pytest.raises(ValueError, match="2 evaluations up to budget=15: expected at least k=3"):
        final_win_rate(STEPS, [1.0] * 6, 15)
    with pytest.raises(ValueError, match="k=0: expected at least 1 evaluation"):
        final_win_rate(STEPS, [1.0] * 6, 50, k=0)
