"""What the report says in words: the headline, what to keep in mind, how to read the numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from limask.experiments.display import percent
from limask.experiments.report.data import Improvement, Ratio, Report, RunRecord
from limask.experiments.report.numbers import K, compared

#: Options that say how many SGD steps follow how many episodes.
_SCHEDULE = ("runner", "batch_size_run", "batch_size", "lim.minibatches")

_CLOCK = "Wall-clock times hold for this machine and for what else ran on it at the time."

ROBUSTNESS = (
    "Trained agents that are not trained any more, under perturbations (`limask evaluate`): the mean of each "
    "arm's win rates, in percent, or of its returns, and each seed's. Means over all that goes wrong, and "
    "differences to the first arm, have 95 % bootstrap intervals over seeds."
)

#: From this number of seeds on, the intervals are about as wide as they should be.
_ENOUGH_SEEDS = 10


def headlines(report: Report) -> list[str]:
    """Sentences on the last arm against each earlier one; the first one is the headline."""
    numbers = report.numbers
    if len(numbers.arms) < 2:
        return [f"Only {numbers.arms[0]} has runs that count: there is nothing to compare it with."]
    last = numbers.arms[-1]
    pairs = [pair for pair in compared(numbers.arms) if pair[0] == last]
    said = [
        ratio_sentence(ratio, numbers.budgets(ratio.maps))
        for pair in pairs
        for ratio in _main_ratios([ratio for ratio in numbers.ratios if (ratio.arm, ratio.baseline) == pair])
    ]
    better = [item for item in numbers.improvements if item.arm == last][: None if not said else 1]
    return [*said, *map(improvement_sentence, better)] or [
        f"{last} has no map in common with an earlier arm yet: there is nothing to compare it with."
    ]


def _main_ratios(ratios: Sequence[Ratio]) -> list[Ratio]:
    """For each threshold the ratio over the most maps."""
    by_threshold: dict[float, Ratio] = {}
    for ratio in ratios:
        if len(ratio.maps) >= len(by_threshold.get(ratio.threshold, ratio).maps):
            by_threshold[ratio.threshold] = ratio
    return list(by_threshold.values())


def ratio_sentence(ratio: Ratio, budgets: Sequence[int]) -> str:
    """Whether ``arm`` needs fewer steps than ``baseline``, in one sentence; no difference is said as such.
    ``budgets`` are the environment steps of the ratio's maps."""
    goal, arm, baseline = f"a win rate of {percent(ratio.threshold)}", ratio.arm, ratio.baseline
    where = on_maps(ratio.maps)
    if not ratio.is_reached:
        return (
            f"No run of {arm} or {baseline} reached {goal} within {steps(budgets)} environment steps "
            f"{where}: which of them is faster cannot be said."
        )
    if ratio.estimate is None:
        return (
            f"Steps to {goal}: no ratio of {arm} to {baseline} {where}, as a run wins that often untrained."
        )
    value, low, high = ratio.estimate.value, ratio.estimate.low, ratio.estimate.high
    # What is cut off at the budget is the one side of the ratio: it is no more than a bound.
    sign = f"{ratio.bound} " if ratio.bound else ""
    is_least = (ratio.bound == "≤") == (value < 1)
    at = f"{'at least' if is_least else 'at most'} " if ratio.bound else ""
    change = f"{abs(1 - value):.0%} {'fewer' if value < 1 else 'more'}".replace("%", " %")
    change, than = ("about as many", "as") if change.startswith("0 ") else (at + change, "than")
    if low is None or high is None:
        return (
            f"To {goal}, {arm} needed {change} environment steps {than} {baseline} {where} "
            f"(ratio {sign}{value:.2f}); with one seed there is no interval, and another seed may turn this "
            "round."
        )
    if ratio.estimate.contains(1):
        return (
            f"No difference between {arm} and {baseline} is shown in the environment steps to {goal} "
            f"{where}: the ratio is {sign}{value:.2f}, and its 95 % interval, {low:.2f} to {high:.2f}, "
            "contains 1."
        )
    return (
        f"To {goal}, {arm} needs {change} environment steps {than} {baseline} {where}: the ratio is {sign}"
        f"{value:.2f}, 95 % interval {low:.2f} to {high:.2f}."
    )


def improvement_sentence(better: Improvement) -> str:
    """How likely a run of ``arm`` ends above one of ``baseline``."""
    estimate = better.estimate
    said = (
        f"At the end of training, a run of {better.arm} is better than one of {better.baseline} with "
        f"probability {estimate.value:.2f} {on_maps(better.maps)}"
    )
    if estimate.low is None:
        return f"{said}; with one seed there is no interval."
    interval = f"95 % interval {estimate.low:.2f} to {estimate.high:.2f}"
    if estimate.contains(0.5):
        return f"{said}: no difference is shown, as the {interval} contains 0.5."
    return f"{said}, {interval}."


def on_maps(maps: Sequence[str]) -> str:
    """``on 3m``, or ``over 2 maps``."""
    return f"on {maps[0]}" if len(maps) == 1 else f"over {len(maps)} maps"


def steps(budgets: Sequence[int]) -> str:
    """``150,000``, or ``150,000 to 300,000`` where maps differ."""
    low, high = min(budgets), max(budgets)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def counted(report: Report) -> str:
    """How many of the runs count, and what became of the others."""
    campaign, missing = report.campaign, report.missing
    axes = [(campaign.arms, "arm"), (campaign.environments, "map"), (campaign.seeds, "seed")]
    # What was found need not be one run of every arm on every map with every seed.
    planned, times, first = ("planned ", " × ", "") if report.is_planned else ("", ", ", "the first ")
    said = (
        f"{len(report.runs) - len(missing)} of {many(report.runs, f'{planned}run')} "
        f"{'counts' if len(report.runs) == 1 else 'count'} "
        f"({times.join(many(things, name) for things, name in axes)}, "
        f"{first}{steps([campaign.budget(env) for env in campaign.environments])} environment steps each)"
    )
    n_diverged = sum(run.status == "diverged" for run in report.runs if not run.left_out)
    if n_diverged:
        said += f"; {n_diverged} of them diverged, which counts as learning nothing from then on"
    if missing:
        kinds = Counter(_kind(run) for run in missing)
        said += f"; missing: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}"
    return said + "."


def many(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}" if len(things) == 1 else f"{len(things)} {name}s"


def _kind(run: RunRecord) -> str:
    names = {"waiting": "not started or cut short", "running": "still running", "failed": "crashed"}
    return names.get(run.status, "left out")


def cautions(report: Report) -> list[str]:
    """What weakens the headline, each in a sentence; empty where nothing does."""
    numbers, said = report.numbers, []
    fewest = numbers.fewest_seeds
    if report.missing:
        said.append(
            f"Runs are missing ({len(report.missing)} of {len(report.runs)}): what is said here is "
            "provisional, and the missing ones need not be like those that count."
        )
    absent = [arm.id for arm in report.campaign.arms if arm.id not in numbers.arms]
    if absent:
        said.append(f"No run of {', '.join(absent)} counts: nothing is said of it.")
    if fewest == 1:
        said.append("An arm has only one run on a map: its numbers come without an interval.")
    elif fewest < _ENOUGH_SEEDS:
        said.append(
            f"Bootstrap intervals of few seeds ({fewest} at the fewest here) are too narrow: nominal 95 % "
            "intervals of 5 seeds cover the truth in about 85 to 90 % of cases."
        )
    if any(task.measure == "return" for task in numbers.tasks):
        maps = ", ".join(task.map for task in numbers.tasks if task.measure == "return")
        said.append(f"No win rate is logged on {maps}: returns are reported there, without thresholds.")
    return said


def never_reached(report: Report) -> list[str]:
    """Win rates that no run of a map reaches, each in a sentence."""
    numbers = report.numbers
    reached = {(curve.map, curve.threshold) for curve in numbers.survival if curve.steps}
    flat = dict.fromkeys((curve.map, curve.threshold) for curve in numbers.survival)
    return [
        f"No run reaches a win rate of {percent(threshold)} on {name} within "
        f"{steps(numbers.budgets([name]))} environment steps."
        for name, threshold in flat
        if (name, threshold) not in reached
    ]


def updates(report: Report) -> str:
    """Whether the arms make as many SGD steps for each episode, as far as their configs say so."""
    schedules: dict[str, list[str]] = {}
    for run in report.runs:
        chosen = ", ".join(f"{key}={run.config[key]}" for key in _SCHEDULE if key in run.config)
        if chosen and run.arm not in schedules.setdefault(chosen, []):
            schedules[chosen].append(run.arm)
    if not schedules:
        return "The runs' configs are not there: how the numbers of updates compare cannot be said."
    if len(schedules) == 1:
        return (
            f"Hosts do not log the number of updates. By their configs all arms make equally many for each "
            f"training episode ({next(iter(schedules))})."
        )
    listed = "; ".join(f"{', '.join(arms)}: {chosen}" for chosen, arms in schedules.items())
    return f"Hosts do not log the number of updates, and the arms' configs differ in it: {listed}."


def how_to_read(report: Report) -> list[str]:
    """What the numbers mean, each in a sentence or two."""
    numbers = report.numbers
    if not numbers.overall:
        return [
            f"Final return: average of the last {K} tests. Average return: area under the learning curve "
            "over its length. Both are interquartile means over seeds, with 95 % bootstrap intervals.",
            "A run that diverged has the lowest return logged on its map from then on.",
            _CLOCK,
        ]
    return [
        f"A run reaches a threshold at the first test from which {K} tests in a row average at least that "
        "win rate.",
        "Steps to a threshold are restricted means: a run that does not reach it counts with the whole "
        f"budget of {steps(numbers.budgets())} steps, so where many runs fail the ratio of two arms is "
        "closer to 1 than the truth: it is marked ≤ or ≥ where only one of the two has such runs. A ratio "
        "below 1 means fewer steps; over several maps it is the geometric mean.",
        f"Final: average of the last {K} tests. Average: area under the learning curve over the budget. Both "
        "are interquartile means over runs.",
        "Intervals are 95 % percentile intervals of 10,000 bootstrap resamples of seeds within each arm and "
        "map. Runs that failed to learn are never left out.",
        _CLOCK,
    ]
