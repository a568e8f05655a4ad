"""From runs as they were found, in a campaign's folder or in any other, to a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from limask.config.nested import flat
from limask.errors import LimaskError
from limask.experiments.campaign.plan import Campaign
from limask.experiments.report.data import FoundRun, Report, RunRecord
from limask.experiments.report.numbers import numbers, score, tasks
from limask.experiments.storage.sacred_files import Curve, read_curves
from limask.files import json_of
from limask.protocols import Block, State

#: Options that may differ between runs that learn alike: names and places.
NAMES = frozenset(
    {"checkpoint_path", "label", "local_results_path", "name", "seed", "unique_token", "wandb.save_dir"}
)


def assemble(
    name: str, campaign: Campaign, found: Sequence[FoundRun], *, advice: str, is_planned: bool = True
) -> Report:
    """Compute the numbers of all runs that count.

    Args:
        name: of the report.
        campaign: what the runs are of.
        found: all of its runs.
        advice: what to do where none counts.
        is_planned: whether somebody planned them as a campaign.

    Raises:
        LimaskError: none counts.
    """
    results = [run.result for run in found if run.result]
    measured = {
        task.map: task
        for task in tasks({env.id: campaign.budget(env) for env in campaign.environments}, results)
    }
    scores, left_out = [], {run.run.id: run.left_out for run in found if not run.result}
    for result in results:
        try:
            scores.append(score(result, measured[result.map], campaign.thresholds))
        except ValueError as error:
            left_out[f"{result.arm}/{result.map}/seed_{result.seed}"] = str(error)
    if not scores:
        run, reason = next(iter(left_out.items()))
        raise LimaskError(
            f"{name}: none of the {len(found)} runs can be reported on ({run}: {reason}); {advice}"
        )
    return Report(
        name,
        campaign,
        _records(campaign, found, left_out),
        numbers(
            [arm.id for arm in campaign.arms],
            list(measured.values()),
            scores,
            test_interval=campaign.test_interval,
            thresholds=campaign.thresholds,
        ),
        is_planned,
    )


def _records(campaign: Campaign, found: Sequence[FoundRun], left_out: Mapping[str, str]) -> list[RunRecord]:
    configs = [flat(json_of(run.sacred / "config.json")) if run.sacred else {} for run in found]
    first: dict[str, Block] = {}
    for run, config in zip(found, configs, strict=True):
        if config and run.run.arm == campaign.arms[0]:
            first.setdefault(run.run.environment.id, config)
    return [
        _record(run, config, first.get(run.run.environment.id, {}), left_out)
        for run, config in zip(found, configs, strict=True)
    ]


def _record(found: FoundRun, config: State, first: Block, left_out: Mapping[str, str]) -> RunRecord:
    run = found.run
    curves = _curves(found.sacred) if found.sacred else {}
    episodes = curves["episode"].values[-1:] if "episode" in curves else ()
    return RunRecord(
        arm=run.arm.id,
        map=run.environment.id,
        seed=run.seed,
        status=found.status,
        attempts=found.attempts,
        seconds=found.seconds,
        steps=max((curve.steps[-1] for curve in curves.values() if curve.steps), default=None),
        episodes=episodes[0] if episodes else None,
        differs=_difference(config, first),
        reason=found.reason,
        left_out=left_out.get(run.id, ""),
        command=found.command,
        config=config,
        made_with=found.made_with,
    )


def _curves(sacred: Path) -> dict[str, Curve]:
    try:
        return read_curves(sacred)
    except (TypeError, ValueError):
        return {}


def _difference(config: Block, first: Block) -> str:
    """Options as ``lim.trunk=entity``; one that the first arm alone has is ``no lim.trunk``. ``none`` where
    they do not differ, and nothing where that cannot be known."""
    if not config or not first:
        return ""
    keys = [
        key
        for key in sorted(config.keys() | first.keys())
        if key not in NAMES and config.get(key) != first.get(key)
    ]
    return " ".join(option(config, key) for key in keys) or "none"


def option(config: Block, key: str) -> str:
    """An option of ``config`` in words."""
    return f"{key}={config[key]}" if key in config else f"no {key}"
