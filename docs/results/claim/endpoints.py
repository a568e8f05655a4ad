"""Writes endpoints.md and draws its pictures, of the CSV files beside it:

python docs/results/claim/endpoints.py
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from limask.experiments import statistics as stats
from limask.experiments.campaign.collect import Test
from limask.experiments.campaign.plan import Campaign, read_campaign
from limask.experiments.display import Table, clock, markdown_table, percent
from limask.experiments.evaluation.compare import compared, read_matrices, scores_of
from limask.experiments.evaluation.evaluate_output import read_csv
from limask.experiments.evaluation.units import MEASURES
from limask.experiments.report import plots
from limask.experiments.report.data import Estimate, Numbers, Ratio, Result
from limask.experiments.report.numbers import numbers, score, tasks
from limask.experiments.report.tables import interval, over, ratio_text, two_digits

HERE = Path(__file__).parent
CAMPAIGNS = ("claim", "claim_sensors", "claim_published")
#: What success was said to be: the upper end of the interval of the ratio of steps.
BOUND = 0.73
GOAL = 0.8
ROBUST = "qmix_lim_robust"


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


def points(estimate: Estimate) -> str:
    """``5 (2 to 7)``, of shares."""
    return interval(estimate, lambda value: f"{100 * value + 0:.0f}")


def more_of(ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]]) -> Estimate:
    """How much more some runs have than others, by maps; a map with one of them gives no interval."""
    more = Estimate(*stats.mean_difference(ours, theirs, np.random.default_rng(0)))
    is_single = any(len(runs) == 1 for by_map in (ours, theirs) for runs in by_map.values())
    return Estimate(more.value) if is_single else more


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
    return f"`{arm}` less `{baseline}`, in points: {points(more_of(ours, theirs))}."


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
        *(sensors(found) or ["Not measured yet."]),
        "## 5. Informed against random masks",
        *(informed(found) or ["Not measured yet."]),
        "## 6. Time",
        markdown_table(seconds()),
        "## 7. How they fight",
        *(fighting() or ["Not measured yet."]),
    ]
    return "\n\n".join(filter(None, parts)) + "\n", main


def sensors(found: Sequence[Result]) -> list[str]:
    """Arms that were trained on lost sightings, against each other."""
    if not (path := HERE / "claim_sensors/evaluate.csv").exists():
        return []
    against = ("entity_burst", "fc_burst", "sightings_burst")
    first, *others = ([*map(markdown_table, compared([path], against=arm))] for arm in against)
    of = beside(found, ROBUST, "qmix_lim")
    ends = [difference(of, ROBUST, "qmix_lim")] if of else []
    return [wins_kept(path, against[0]), *first, *(tables[-1] for tables in others), *ends]


def wins_kept(path: Path, baseline: str) -> str:
    """The fourth endpoint in a sentence."""
    rows = read_csv(path)
    matrices = read_matrices(rows, scores_of(rows)[0])
    ours, theirs = ({of.map_name: of.means(arm, {}) for of in matrices} for arm in (ROBUST, baseline))
    more = more_of(ours, theirs)
    text = f"`{ROBUST}` keeps {points(more)} points more than `{baseline}` over {over([*ours])}."
    if more.low is None:
        return f"{text} With one seed there is no interval, and nothing is said."
    return f"{text} The interval is to lie above 0: **{'success' if more.low > 0 else 'no success'}**."


def beside(found: Sequence[Result], arm: str, baseline: str) -> Numbers | None:
    """An arm of the second campaign and one of the first, on the maps and seeds that both have."""
    campaign = read_campaign(Path("claim_sensors"))
    maps = {env.id for env in campaign.environments}
    kept = [result for result in found if result.map in maps and result.seed in campaign.seeds]
    if not {arm, baseline} <= {result.arm for result in kept}:
        return None
    return of_arms(kept, [baseline, arm], campaign)


def informed(found: Sequence[Result]) -> list[str]:
    """Masks by saliency against random ones."""
    arms = ("qmix_lim_saliency", "qmix_lim")
    if not (of := beside(found, *arms)):
        return []
    return [
        markdown_table(steps(of, *arms)),
        markdown_table(scores(of)),
        difference(of, *arms),
    ]


def fighting() -> list[str]:
    """What was measured of the battles of the last agents: by arms on each map, and what ours has more."""
    if not (path := HERE / "tactics.csv").exists():
        return []
    by_map: dict[str, Table] = {}
    more = Table(["qmix_lim has more than", "qmix_fc", "qmix_entity"], [], (0,))
    for measure, meaning in MEASURES.items():
        if measure == "branches":
            continue
        row = [meaning]
        for baseline in more.header[1:]:
            *of_maps, differences = compared([path], against=baseline, measure=measure)
            row += [cells[2] for cells in differences.rows if cells[0] == "qmix_lim"]
        more.rows.append(row)
        for of_map in of_maps:
            name = of_map.header[0].partition(":")[0]
            table = by_map.setdefault(name, Table([name, *of_map.header[1:]], [], (0,)))
            table.rows.append([meaning, *of_map.rows[0][1:]])
    return [*map(markdown_table, [*by_map.values(), more])]


if __name__ == "__main__":
    text, main = page()
    (HERE / "endpoints.md").write_text(text, encoding="utf-8")
    for name, panels in plots.pictures(main).items():
        if name in ("learning_curves", "forest"):
            plots.write_png(HERE / f"{name}.png", panels, main)
