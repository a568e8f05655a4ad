"""Writes endpoints.md and draws its pictures, of the CSV files beside it:

python docs/results/claim/endpoints.py
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

from limask.experiments import statistics as stats
from limask.experiments.campaign.collect import Test
from limask.experiments.campaign.plan import Campaign, read_campaign
from limask.experiments.display import Table, clock, markdown_table, percent
from limask.experiments.evaluation.compare import compared
from limask.experiments.report import plots
from limask.experiments.report.data import Estimate, Numbers, Ratio, Result
from limask.experiments.report.numbers import numbers, score, tasks
from limask.experiments.report.tables import interval, over, ratio_text, two_digits

HERE = Path(__file__).parent
CAMPAIGNS = ("claim", "claim_sensors", "claim_published")
#: What success was said to be: the upper end of the interval of the ratio of steps.
BOUND = 0.73
GOAL = 0.8


def rows_of(name: str) -> list[dict[str, str]]:
    """Of the CSV files of all campaigns, as far as there are any."""
    found = []
    for folder in (HERE, *(HERE / campaign for campaign in CAMPAIGNS[1:])):
        if (path := folder / name).exists():
            with path.open(encoding="utf-8", newline="") as file:
                found += list(csv.DictReader(file))
    return found


def results() -> list[Result]:
    """All runs that are made, in the order of the runs' table."""
    tests: dict[tuple[str, str, str], list[Test]] = {}
    for row in rows_of("curves.csv"):
        rate, mean = (float(row[key]) if row[key] else None for key in ("win_rate", "return"))
        tests.setdefault((row["arm"], row["map"], row["seed"]), []).append(
            Test(float(row["steps"]), rate, mean)
        )
    return [
        Result(*key[:2], int(key[2]), tests.get(key, []), row["result"] == "diverged")
        for row in rows_of("runs.csv")
        if row["state"] == "done" and (key := (row["arm"], row["map"], row["seed"]))
    ]


def of_arms(found: Sequence[Result], arms: Sequence[str], campaign: Campaign) -> Numbers:
    """Everything that a report says of some arms, the first of which is the baseline."""
    kept = [result for result in found if result.arm in arms]
    measured = {
        task.map: task
        for task in tasks({env.id: campaign.budget(env) for env in campaign.environments}, kept)
    }
    scores = [score(result, measured[result.map], campaign.thresholds) for result in kept]
    return numbers(
        arms,
        list(measured.values()),
        scores,
        test_interval=campaign.test_interval,
        thresholds=campaign.thresholds,
    )


def made() -> Table:
    """How many runs of each arm are made on each map, of those that are planned."""
    planned: dict[str, dict[str, list[bool]]] = {}
    for row in rows_of("runs.csv"):
        planned.setdefault(row["arm"], {}).setdefault(row["map"], []).append(row["state"] == "done")
    maps = list(dict.fromkeys(name for of_arm in planned.values() for name in of_arm))
    cells = [
        [arm, *(f"{sum(of_arm[name])} of {len(of_arm[name])}" if name in of_arm else "–" for name in maps)]
        for arm, of_arm in planned.items()
    ]
    return Table(["runs made", *maps], cells, (0,))


def steps(of: Numbers, arm: str, baseline: str) -> Table:
    """Ratio of the steps to each threshold, on each map and over all."""
    by_maps: dict[str, list[Ratio]] = {}
    for ratio in of.ratios:
        if (ratio.arm, ratio.baseline) == (arm, baseline):
            by_maps.setdefault(" ".join(ratio.maps), []).append(ratio)
    cells = []
    for ratios in by_maps.values():
        maps = ratios[0].maps
        cells.append([maps[0] if len(maps) == 1 else f"all {len(maps)}", *map(ratio_text, ratios)])
    goals = [f"steps to {percent(threshold)}" for threshold in of.thresholds]
    return Table([f"{arm} over {baseline}", *goals], cells, (0,))


def verdict(of: Numbers, arm: str, baseline: str) -> str:
    """The first endpoint in a sentence."""
    of_both = [r for r in of.ratios if (r.arm, r.baseline, r.threshold) == (arm, baseline, GOAL)]
    if not of_both or of_both[-1].estimate is None:
        return "There is no run to tell it by."
    last = of_both[-1]
    assert last.estimate is not None
    text = f"Over {over(last.maps)} the ratio is {interval(last.estimate, two_digits)}."
    if last.estimate.high is None:
        return f"{text} With one seed there is no interval, and nothing is said."
    outcome = "success" if last.estimate.high < BOUND else "no success"
    return f"{text} Its upper end is to be below {BOUND}: **{outcome}**."


def scores(of: Numbers) -> Table:
    """Final score of each arm on each map, and over all maps that know wins."""
    names = [task.map for task in of.tasks]
    cells = {(cell.arm, cell.map): cell for cell in of.cells}
    wins = {overall.arm: overall.final for overall in of.overall}
    rows = []
    for arm in of.arms:
        row = [arm]
        for name in names:
            cell = cells.get((arm, name))
            text = percent if cell is None or cell.measure == "win rate" else two_digits
            row.append(interval(cell.final if cell else None, text))
        rows.append([*row, interval(wins.get(arm), percent)])
    return Table(["at the end", *names, "all that know wins"], rows, (0,))


def difference(of: Numbers, arm: str, baseline: str) -> str:
    """How much more an arm wins at the end than another, over the maps that both have."""
    wins = {task.map for task in of.tasks if task.measure == "win rate"}
    finals: dict[str, dict[str, list[float]]] = {arm: {}, baseline: {}}
    for run in of.scores:
        if run.arm in finals and run.map in wins:
            finals[run.arm].setdefault(run.map, []).append(run.final)
    both = finals[arm].keys() & finals[baseline].keys()
    if not both:
        return ""
    ours, theirs = ({name: by_map[name] for name in both} for by_map in finals.values())
    more = Estimate(*stats.mean_difference(ours, theirs, np.random.default_rng(0)))
    if any(len(runs) == 1 for by_map in (ours, theirs) for runs in by_map.values()):
        more = Estimate(more.value)
    return f"`{arm}` less `{baseline}`, in points: {interval(more, lambda value: f'{100 * value:.0f}')}."


def seconds() -> Table:
    """Median wall-clock time of the runs that were made in one go."""
    taken: dict[str, dict[str, list[float]]] = {}
    for row in rows_of("runs.csv"):
        if row["state"] == "done" and row["attempts"] == "1":
            taken.setdefault(row["arm"], {}).setdefault(row["map"], []).append(float(row["seconds"]))
    maps = list(dict.fromkeys(name for of_arm in taken.values() for name in of_arm))
    cells = [
        [arm, *(clock(median(of_arm[name])) if name in of_arm else "–" for name in maps)]
        for arm, of_arm in taken.items()
    ]
    return Table(["time of a run", *maps], cells, (0,))


def page() -> tuple[str, Numbers]:
    """The page, and the numbers of its pictures."""
    campaign, found = read_campaign(Path("claim")), results()
    main = of_arms(found, [arm.id for arm in campaign.arms], campaign)
    parts = [
        "# The claim: endpoints",
        "Written by `python docs/results/claim/endpoints.py` from the CSV files beside it. What each\n"
        "endpoint is, and what was called success before any run, is in the [protocol](protocol.md).\n"
        "Intervals are 95 % bootstrap intervals over seeds; a map with one seed has none.",
        markdown_table(made()),
        "![Learning curves](learning_curves.png)",
        "## 1. Steps to 80 %, over `qmix_fc`",
        verdict(main, "qmix_lim", "qmix_fc"),
        markdown_table(steps(main, "qmix_lim", "qmix_fc")),
        "![Ratios of steps](forest.png)",
        "## 2. Over `qmix_entity`",
        markdown_table(steps(main, "qmix_lim", "qmix_entity")),
        "## 3. Wins at the end",
        markdown_table(scores(main)),
        difference(main, "qmix_lim", "qmix_fc"),
        difference(main, "qmix_lim", "qmix_entity"),
        "## 4. Wins kept when sensors fail",
        *(sensors() or ["Not measured yet."]),
        "## 5. Informed against random masks",
        *(informed(found) or ["Not measured yet."]),
        "## 6. Time",
        markdown_table(seconds()),
    ]
    return "\n\n".join(filter(None, parts)) + "\n", main


def sensors() -> list[str]:
    """Arms that were trained on lost sightings, against each other."""
    if not (path := HERE / "claim_sensors/evaluate.csv").exists():
        return []
    against = ("entity_burst", "fc_burst", "sightings_burst")
    first, *others = ([*map(markdown_table, compared([path], against=arm))] for arm in against)
    return [*first, *(tables[-1] for tables in others)]


def informed(found: Sequence[Result]) -> list[str]:
    """Masks by saliency against random ones, on the maps and seeds that both have."""
    arms, campaign = ["qmix_lim", "qmix_lim_saliency"], read_campaign(Path("claim_sensors"))
    maps = {env.id for env in campaign.environments}
    kept = [result for result in found if result.map in maps and result.seed in campaign.seeds]
    if not {*arms} <= {result.arm for result in kept}:
        return []
    of = of_arms(kept, arms, campaign)
    return [
        markdown_table(steps(of, *arms[::-1])),
        markdown_table(scores(of)),
        difference(of, *arms[::-1]),
    ]


if __name__ == "__main__":
    text, main = page()
    (HERE / "endpoints.md").write_text(text, encoding="utf-8")
    for name, panels in plots.pictures(main).items():
        if name in ("learning_curves", "forest"):
            plots.write_png(HERE / f"{name}.png", panels, main)
