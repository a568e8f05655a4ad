"""A report's curves in the JSON that marl-eval reads: https://github.com/instadeepai/marl-eval.

marl-eval wants as many evaluations of every run of an environment, at the same steps: the curves are taken at
the steps that all of its runs have, with straight lines between their tests, as in the report's pictures.
"""

from __future__ import annotations

from limask.experiments.report.data import Report
from limask.experiments.report.numbers import on_grid
from limask.protocols import State


def to_marl_eval(report: Report) -> State:
    """Environment → map → arm → seed → evaluations.

    ``win_rate`` or ``return`` is what the map is measured by. marl-eval's ``absolute_metrics`` would come
    from a longer evaluation of the best policy; here they are the final score, the average of the last tests.
    """
    numbers, campaign = report.numbers, report.campaign
    of_map = {environment.id: environment.env_config for environment in campaign.environments}
    floors = {task.map: task.floor for task in numbers.tasks}
    measures = {task.map: task.measure.replace(" ", "_") for task in numbers.tasks}
    grid = range(0, max(numbers.budgets()) + 1, campaign.test_interval)
    curves = {
        (score.map, score.arm, score.seed): on_grid(score.curve, grid, floors[score.map])
        for score in numbers.scores
    }
    written: State = {}
    for score in numbers.scores:
        environment, measure = of_map[score.map], measures[score.map]
        beside = [values for (name, _, _), values in curves.items() if of_map[name] == environment]
        values = curves[score.map, score.arm, score.seed]
        shared = [i for i in range(len(grid)) if all(other[i] is not None for other in beside)]
        run = {f"step_{n}": {"step_count": grid[i], measure: [values[i]]} for n, i in enumerate(shared)} | {
            "absolute_metrics": {measure: [score.final]}
        }
        arms = written.setdefault(environment, {}).setdefault(score.map, {})
        arms.setdefault(score.arm, {})[f"seed_{score.seed}"] = run
    return written
