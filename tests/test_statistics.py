"""Statistics of many runs against hand-computed numbers, and against scipy and rliable."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from limask.experiments.statistics import (
    Interval,
    interquartile_mean,
    kaplan_meier,
    mean_difference,
    mean_score,
    performance_profile,
    probability_of_improvement,
    rank_correlation,
    restricted_mean,
    restricted_mean_ratio,
    share_reached,
)

# Of five runs, one reaches the threshold at 100 steps, two at 300, one after the budget of 400, one never.
TIMES = [300.0, None, 100.0, 450.0, 300.0]
BUDGETS = {"3m": 400.0, "8m": 1000.0}
ARM = {"3m": [100.0, 200.0], "8m": [900.0, None]}
BASELINE = {"3m": [200.0, None], "8m": [None, None]}

# Eight runs on two maps: 0, 1, ..., 7 eighths.
SCORES = {"3m": [0.0, 0.25, 0.5, 0.875], "8m": [0.125, 0.375, 0.625, 0.75]}


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def reordered(arm: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    return {name: list(arm[name])[::-1] for name in reversed(list(arm))}


def random_scores(n_runs: int, seed: int) -> dict[str, list[float]]:
    """Win rates on three maps in steps of 1/32, so with ties."""
    draws = generator(seed).beta(2, 2, size=(3, n_runs)) * 32 // 1 / 32
    return dict(zip("abc", draws.tolist(), strict=True))


# T_τ


def test_restricted_mean() -> None:
    # (100 + 300 + 300 + 400 + 400) / 5
    assert restricted_mean(TIMES, 400) == 300
    # (100 + 200 + 200 + 200 + 200) / 5
    assert restricted_mean(TIMES, 200) == 180
    # (100 + 300 + 300 + 450 + 1000) / 5
    assert restricted_mean(TIMES, 1000) == 430


def test_a_run_that_fails_counts_as_the_budget() -> None:
    assert restricted_mean([None, None], 400) == 400
    assert restricted_mean([100, None], 400) == restricted_mean([100, 400], 400)
    assert restricted_mean([100, math.inf], 400) == restricted_mean([100, None], 400)


def test_share_reached() -> None:
    assert share_reached(TIMES, 400) == 3 / 5
    assert share_reached(TIMES, 450) == 4 / 5
    assert share_reached([None], 400) == 0


def test_kaplan_meier() -> None:
    # One of five at 100, two more at 300: 4/5, then 2/5 up to the budget.
    steps, not_yet = kaplan_meier(TIMES, 400)
    assert steps.tolist() == [100, 300]
    assert not_yet.tolist() == [4 / 5, 2 / 5]


def test_kaplan_meier_where_no_run_or_every_run_reaches_the_threshold() -> None:
    assert [column.tolist() for column in kaplan_meier([None, 500], 400)] == [[], []]
    assert [column.tolist() for column in kaplan_meier([400, 200], 400)] == [[200, 400], [1 / 2, 0]]


def test_area_below_kaplan_meier_is_the_restricted_mean() -> None:
    # 100 steps at 1, 200 at 4/5, 100 at 2/5: 100 + 160 + 40
    steps, not_yet = kaplan_meier(TIMES, 400)
    area = np.diff([0, *steps, 400]) @ [1, *not_yet]
    assert area == pytest.approx(300) == restricted_mean(TIMES, 400)


def test_kaplan_meier_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    drawn = generator().integers(1, 60, size=40) * 10.0
    theirs = stats.ecdf(stats.CensoredData(drawn[drawn <= 400], right=np.full((drawn > 400).sum(), 400.0))).sf
    ours = kaplan_meier(list(drawn), 400)
    # Theirs lists the censored budget as well, where the curve does not fall.
    falls = np.diff(theirs.probabilities, prepend=1) < 0
    assert ours.steps.tolist() == theirs.quantiles[falls].tolist()
    assert ours.not_yet == pytest.approx(theirs.probabilities[falls])


def test_ratio() -> None:
    # 3m: arm (100 + 200) / 2 = 150, baseline (200 + 400) / 2 = 300: 1/2.
    on_3m = restricted_mean_ratio({"3m": ARM["3m"]}, {"3m": BASELINE["3m"]}, {"3m": 400}, generator())
    assert on_3m.value == pytest.approx(1 / 2)
    # 8m: arm (900 + 1000) / 2 = 950, baseline 1000: 0.95.  Geometric mean: sqrt(0.5 * 0.95).
    value, low, high = restricted_mean_ratio(ARM, BASELINE, BUDGETS, generator())
    assert value == pytest.approx(math.sqrt(0.475))
    assert low < value < high


def test_interval_of_a_ratio() -> None:
    # Two draws of 100 and 400 average 100, 250, 400 with chances 1/4, 1/2, 1/4; the baseline is 200.
    interval = restricted_mean_ratio({"3m": [100, 400]}, {"3m": [200]}, {"3m": 800}, generator())
    assert interval == pytest.approx((1.25, 0.5, 2.0))
    # A single run of each cannot be drawn otherwise.
    interval = restricted_mean_ratio({"3m": [100]}, {"3m": [200]}, {"3m": 800}, generator())
    assert interval == pytest.approx((0.5, 0.5, 0.5))


def test_ratio_of_an_arm_to_itself() -> None:
    value, low, high = restricted_mean_ratio(ARM, ARM, BUDGETS, generator())
    assert value == 1
    assert low < 1 < high
    # No run reaches the threshold: nothing tells the arms apart.
    never = {"3m": [None] * 3}
    assert restricted_mean_ratio(never, never, {"3m": 400}, generator()) == (1, 1, 1)


def test_swapped_arms_have_the_inverse_ratio() -> None:
    assert restricted_mean_ratio(ARM, BASELINE, BUDGETS, generator()).value == pytest.approx(
        1 / restricted_mean_ratio(BASELINE, ARM, BUDGETS, generator()).value
    )


# Scores


def test_interquartile_mean() -> None:
    # Two of eight are cut off at either end, from both maps together: (2 + 3 + 4 + 5) / 4 = 3.5 eighths.
    value, low, high = interquartile_mean(SCORES, generator())
    assert value == 3.5 / 8
    assert low < value < high
    # A quarter of five, rounded down, is one: (0.2 + 0.3 + 0.7) / 3 = 0.4.
    assert interquartile_mean({"3m": [0.3, 1.0, 0.0, 0.7, 0.2]}, generator()).value == pytest.approx(0.4)
    # Two of eight, not one: (0 + 0 + 0 + 0.4) / 4 = 0.1, and not (0 + 0 + 0 + 0 + 0.4 + 0.8) / 6 = 0.2.
    lopsided = {"3m": [0.0, 0.0, 0.0, 0.0], "8m": [0.0, 0.4, 0.8, 1.0]}
    assert interquartile_mean(lopsided, generator()).value == pytest.approx(0.1)
    # Nothing is cut off of three: (0 + 0 + 0.9) / 3 = 0.3.
    assert interquartile_mean({"3m": [0.0, 0.9, 0.0]}, generator()).value == pytest.approx(0.3)


def test_intervals_hold_95_percent() -> None:
    # Three draws of three are all 0 with chance 1/27 = 3.7 %, and all 0.9 likewise: both lie above 2.5 %.
    assert interquartile_mean({"3m": [0.0, 0.3, 0.9]}, generator()) == pytest.approx((0.4, 0.0, 0.9))
    # Six draws beat 0.5 as six coins fall: never with chance 1/64 = 1.6 %, at most once with 7/64 = 10.9 %.
    coins = probability_of_improvement({"3m": [0.0, 1.0] * 3}, {"3m": [0.5]}, generator())
    assert coins == pytest.approx((1 / 2, 1 / 6, 5 / 6))


def test_runs_are_drawn_within_their_map() -> None:
    # All runs of a map are equal, so that only draws across maps could move the mean: (0 + 0 + 1 + 1) / 4.
    assert interquartile_mean({"3m": [0.0] * 4, "8m": [1.0] * 4}, generator()) == (0.5, 0.5, 0.5)


def test_means_over_maps_of_runs() -> None:
    """(0.5 + 0.1) / 2 and (0.2 + 0.4) / 2: runs of one map do not outweigh another's."""
    arm, baseline = {"3m": [0.4, 0.6], "8m": [0.1]}, {"3m": [0.2], "8m": [0.3, 0.4, 0.5]}
    value, low, high = mean_score(arm, generator())
    assert (value, low, high) == pytest.approx((0.3, 0.25, 0.35))
    value, low, high = mean_difference(arm, baseline, generator())
    assert value == pytest.approx(0.0) and low < -0.05 < 0.05 < high
    assert mean_difference(baseline, arm, generator()).value == pytest.approx(0.0)
    assert mean_difference(SCORES, SCORES, generator()).value == 0


def test_probability_of_improvement() -> None:
    # 3m, pairs: 0.2 loses to 0.5 and 0.5; 0.5 ties with both; 0.9 beats both: (0 + 1 + 2) / 6 = 1/2.
    # 8m: 0.4 beats 0.1, ties with 0.4, loses to 0.6 and 0.6: (1 + 1/2) / 4 = 3/8.  Average: 7/16.
    arm = {"3m": [0.2, 0.5, 0.9], "8m": [0.4]}
    baseline = {"3m": [0.5, 0.5], "8m": [0.1, 0.4, 0.6, 0.6]}
    value, low, high = probability_of_improvement(arm, baseline, generator())
    assert value == pytest.approx(7 / 16)
    assert low < value < high
    assert probability_of_improvement(baseline, arm, generator()).value == pytest.approx(9 / 16)


def test_probability_of_improvement_over_itself_and_over_a_weaker_arm() -> None:
    value, low, high = probability_of_improvement(SCORES, SCORES, generator())
    assert value == 0.5
    assert low < 0.5 < high
    assert probability_of_improvement({"3m": [0.8, 0.9]}, {"3m": [0.1, 0.2]}, generator()) == (1, 1, 1)


def test_performance_profile() -> None:
    # Above 0: all but one of eight; above 3 eighths: 4, 5, 6 and 7; above 0.9: none.
    profile = performance_profile(SCORES, [0, 0.375, 0.9], generator())
    assert [interval.value for interval in profile] == [7 / 8, 4 / 8, 0]
    assert profile[1].low < 0.5 < profile[1].high
    assert profile[2] == (0, 0, 0)
    # Neither bound rises with the threshold.
    assert profile[0].low >= profile[1].low and profile[0].high >= profile[1].high


# Properties that the intervals share

#: Each takes an arm, another arm and a generator; the interval is of the first.
OF_SCORES: dict[str, Callable[..., Interval]] = {
    "interquartile_mean": lambda arm, _, rng: interquartile_mean(arm, rng),
    "mean_score": lambda arm, _, rng: mean_score(arm, rng),
    "mean_difference": mean_difference,
    "probability_of_improvement": probability_of_improvement,
    "performance_profile": lambda arm, _, rng: performance_profile(arm, [0.4], rng)[0],
    # Scores may stand for steps.
    "restricted_mean_ratio": lambda arm, other, rng: restricted_mean_ratio(
        arm, other, dict.fromkeys(arm, 0.9), rng
    ),
}
each_statistic = pytest.mark.parametrize("statistic", OF_SCORES.values(), ids=OF_SCORES)


@each_statistic
def test_neither_order_nor_chance_changes_a_result(statistic: Callable[..., Interval]) -> None:
    arm, other = random_scores(6, seed=1), random_scores(5, seed=2)
    assert statistic(arm, other, generator(3)) == statistic(reordered(arm), reordered(other), generator(3))


@each_statistic
def test_more_runs_narrow_the_interval(statistic: Callable[..., Interval]) -> None:
    arm, other = random_scores(4, seed=1), random_scores(4, seed=2)
    value, low, high = statistic(arm, other, generator())
    # The same runs four times over: about half the width.
    more = [{name: list(runs) * 4 for name, runs in runs_of.items()} for runs_of in (arm, other)]
    narrow = statistic(*more, generator())
    assert narrow.value == pytest.approx(value)
    assert 0 < narrow.high - narrow.low < 0.7 * (high - low)


def test_the_number_of_resamples_does_not_move_an_interval() -> None:
    few, many = (interquartile_mean(random_scores(10, seed=1), generator(2), n) for n in (3000, 30_000))
    assert few == pytest.approx(many, abs=0.01)


# Bad input


@pytest.mark.parametrize("statistic", [restricted_mean, share_reached, kaplan_meier])
@pytest.mark.parametrize(
    ("times", "budget", "complaint"),
    [
        ([], 400, "no run given, expected at least one"),
        ([100], 0, "budget=0, expected a positive number"),
        ([100], math.nan, "budget=nan, expected a positive number"),
        ([100], math.inf, "budget=inf, expected a positive number"),
        ([100, -1], 400, r"\[100, -1\], expected environment steps"),
        # None says that a run failed; NaN may be anything.
        ([100, math.nan], 400, r"\[100, nan\], expected environment steps, or None"),
    ],
)
def test_bad_times(
    statistic: Callable[..., object], times: list[float | None], budget: float, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        statistic(times, budget)


def test_bad_arms() -> None:
    with pytest.raises(ValueError, match=r"maps \['3m', '8m'\] and \['3m'\] given, expected the same"):
        restricted_mean_ratio(ARM, {"3m": [100]}, BUDGETS, generator())
    with pytest.raises(ValueError, match="expected the same"):
        restricted_mean_ratio(ARM, BASELINE, {"3m": 400}, generator())
    with pytest.raises(ValueError, match="no map given"):
        restricted_mean_ratio({}, {}, {}, generator())
    with pytest.raises(ValueError, match="8m: no run given"):
        restricted_mean_ratio(ARM, {"3m": [100], "8m": []}, BUDGETS, generator())
    with pytest.raises(ValueError, match="8m: budget=-5"):
        restricted_mean_ratio(ARM, BASELINE, {"3m": 400, "8m": -5}, generator())
    with pytest.raises(ValueError, match="T=0: expected runs that reach the threshold after some training"):
        restricted_mean_ratio(ARM, {"3m": [0, 100], "8m": [100]}, BUDGETS, generator())
    with pytest.raises(ValueError, match="expected the same"):
        probability_of_improvement(SCORES, {"3m": [0.5]}, generator())


@each_statistic
def test_bad_scores(statistic: Callable[..., Interval]) -> None:
    for arm, complaint in (
        ({}, "no map given"),
        ({"3m": []}, "3m: no run given, expected at least one"),
        ({"3m": [0.5, math.nan]}, "3m: .*nan.*expected"),
    ):
        with pytest.raises(ValueError, match=complaint):
            statistic(arm, arm, generator())


def test_bad_thresholds_and_resamples() -> None:
    for threshold in (-0.1, 50, math.nan):
        with pytest.raises(ValueError, match=rf"thresholds \[0.5, {threshold}\]: expected scores in"):
            performance_profile(SCORES, [0.5, threshold], generator())
    with pytest.raises(ValueError, match="at least one"):
        performance_profile(SCORES, [], generator())
    with pytest.raises(ValueError, match="resamples=0: expected at least 1"):
        interquartile_mean(SCORES, generator(), resamples=0)


# Against rliable, the implementation of those who proposed these statistics


def assert_same(ours: Interval, value: float, bounds: Sequence[float]) -> None:
    """Chance moves a bound by about a hundredth of the interval."""
    assert ours.value == pytest.approx(value)
    assert ours[1:] == pytest.approx(tuple(bounds), abs=0.06 * (ours.high - ours.low))


@pytest.fixture
def runs_by_map() -> tuple[list[dict[str, list[float]]], list[np.ndarray]]:
    """Two arms, ours and as rliable's matrices of runs by maps."""
    arms = [random_scores(10, seed=1), random_scores(7, seed=2)]
    # rliable draws from numpy's global generator.
    np.random.seed(0)
    return arms, [np.array(list(arm.values())).T for arm in arms]


def test_interquartile_mean_is_rliables(runs_by_map: Any) -> None:
    pytest.importorskip("rliable")
    from rliable import library, metrics

    (arm, _), (matrix, _) = runs_by_map
    values, bounds = library.get_interval_estimates(
        {"arm": matrix}, lambda runs: np.array([metrics.aggregate_iqm(runs)]), reps=3000
    )
    assert_same(interquartile_mean(arm, generator()), values["arm"][0], bounds["arm"][:, 0])


def test_probability_of_improvement_is_rliables(runs_by_map: Any) -> None:
    pytest.importorskip("rliable")
    from rliable import library, metrics

    arms, matrices = runs_by_map
    values, bounds = library.get_interval_estimates(
        {"pair": matrices}, lambda x, y: np.array([metrics.probability_of_improvement(x, y)]), reps=1000
    )
    assert_same(probability_of_improvement(*arms, generator()), values["pair"], bounds["pair"][:, 0])


def test_performance_profile_is_rliables(runs_by_map: Any) -> None:
    pytest.importorskip("rliable")
    from rliable import library

    (arm, _), (matrix, _) = runs_by_map
    thresholds = [0.2, 0.5, 0.8]
    shares, bounds = library.create_performance_profile({"arm": matrix}, thresholds, reps=3000)
    for ours, value, bound in zip(
        performance_profile(arm, thresholds, generator()), shares["arm"], bounds["arm"].T, strict=True
    ):
        assert_same(ours, value, bound)


def test_rank_correlation_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(0)
    for _ in range(20):
        first, second = generator.integers(0, 6, size=(2, 30))  # with many equal numbers
        expected = stats.spearmanr(first, second).statistic
        assert rank_correlation(first, second) == pytest.approx(expected)
    assert rank_correlation([1, 5, 7], [2, 3, 900]) == pytest.approx(1)
    assert math.isnan(rank_correlation([1, 2], [3, 3]))


@pytest.mark.parametrize(("first", "second"), [([1], [2]), ([1, 2], [1, 2, 3]), ([1, math.nan], [1, 2])])
def test_rank_correlation_refuses(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        rank_correlation(first, second)
