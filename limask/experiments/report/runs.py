"""What the folder of a campaign holds about its runs: tests, configs, commands, versions."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from limask.config.nested import flat
from limask.errors import LimaskError
from limask.experiments.campaign.collect import tests_that_count
from limask.experiments.campaign.folder import Attempt, CampaignFolder, RunState
from limask.experiments.campaign.plan import Campaign
from limask.experiments.report.data import Report, Result, RunRecord
from limask.experiments.report.numbers import numbers, score, tasks
from limask.experiments.storage.sacred_files import Curve, read_curves
from limask.files import read_json
from limask.install.families import PYMARLZOOPLUS
from limask.protocols import Block, State

#: Options that may differ between runs that learn alike: names and places.
_NAMES = {"checkpoint_path", "label", "local_results_path", "name", "seed", "unique_token", "wandb.save_dir"}

#: Entries of ``run.json`` that are the run's own; the others say what it was made with.
_OWN = {"command", "config", "env_config", "host", "options", "run", "started"}


def read_report(root: Path) -> Report:
    """Read the campaign in folder ``root`` and compute its numbers; what is not finished yet is left out.

    Raises:
        LimaskError: the folder holds no campaign, a file of the campaign's is damaged, or no run counts.
        OSError: a file cannot be read.
    """
    folder = CampaignFolder.existing(root.absolute())
    states = folder.states(is_running=folder.is_running())
    counting = {state.run.id: _result(state) for state in states}
    campaign = folder.campaign
    results = [result for result, _ in counting.values() if result]
    measured = {
        task.map: task for task in tasks([environment.id for environment in campaign.environments], results)
    }
    scores, left_out = [], {run: reason for run, (result, reason) in counting.items() if not result}
    for result in results:
        try:
            scores.append(score(result, measured[result.map], campaign.t_max, campaign.thresholds))
        except ValueError as error:
            left_out[f"{result.arm}/{result.map}/seed_{result.seed}"] = str(error)
    if not scores:
        run, reason = next(iter(left_out.items()))
        raise LimaskError(
            f"{root}: none of the {len(states)} runs can be reported on ({run}: {reason}); "
            "`limask campaign status` says how far they are"
        )
    return Report(
        root.absolute().name,
        campaign,
        _records(folder, states, left_out),
        numbers(
            [arm.id for arm in campaign.arms],
            list(measured.values()),
            scores,
            budget=campaign.t_max,
            test_interval=campaign.test_interval,
            thresholds=campaign.thresholds,
        ),
    )


def _result(state: RunState) -> tuple[Result | None, str]:
    """The run's tests where it counts, or else why it does not.

    A run that diverged before it could write a test has a result as well: it never learned anything.
    """
    tests, left_out = tests_that_count(state)
    is_diverged = state.outcome is not None and state.outcome.result == "diverged"
    if left_out and not is_diverged:
        return None, left_out
    run = state.run
    return Result(run.arm.id, run.environment.id, run.seed, tests, is_diverged), ""


def _records(folder: CampaignFolder, states: list[RunState], left_out: Mapping[str, str]) -> list[RunRecord]:
    configs = {state.run.id: _config(state) for state in states}
    first: dict[str, Block] = {}
    for state in states:
        config = configs[state.run.id]
        if config and state.run.arm == folder.campaign.arms[0]:
            first.setdefault(state.run.environment.id, config)
    return [
        _record(folder, state, configs[state.run.id], first.get(state.run.environment.id, {}), left_out)
        for state in states
    ]


def _record(
    folder: CampaignFolder,
    state: RunState,
    config: Block,
    first: Block,
    left_out: Mapping[str, str],
) -> RunRecord:
    run, outcome, attempt = state.run, state.outcome, state.attempt
    sacred = attempt.sacred_run() if attempt else None
    curves = _curves(sacred) if sacred else {}
    episodes = curves["episode"].values[-1:] if "episode" in curves else ()
    made = _json(attempt.folder / "run.json") if attempt else {}
    return RunRecord(
        arm=run.arm.id,
        map=run.environment.id,
        seed=run.seed,
        status=outcome.result if outcome else state.state,
        attempts=len(state.attempts),
        seconds=outcome.seconds if outcome else None,
        steps=max((curve.steps[-1] for curve in curves.values() if curve.steps), default=None),
        episodes=episodes[0] if episodes else None,
        differs=_difference(config, first),
        reason=outcome.reason if outcome else "",
        left_out=left_out.get(run.id, ""),
        command=_command(folder, state, made),
        config=config,
        made_with={key: value for key, value in made.items() if key not in _OWN},
    )


def _config(state: RunState) -> State:
    """What the host ran with, by dotted name; empty where sacred has not written it."""
    sacred = state.attempt.sacred_run() if state.attempt else None
    return flat(_json(sacred / "config.json")) if sacred else {}


def _curves(sacred: Path) -> dict[str, Curve]:
    try:
        return read_curves(sacred)
    except (TypeError, ValueError):
        return {}


def _json(path: Path) -> State:
    try:
        return read_json(path)
    except (LimaskError, OSError):
        return {}


def _difference(config: Block, first: Block) -> str:
    """Options as ``lim.trunk=entity``; one that the first arm alone has is ``no lim.trunk``. ``none`` where
    they do not differ, and nothing where that cannot be known."""
    if not config or not first:
        return ""
    options = [
        f"{key}={config[key]}" if key in config else f"no {key}"
        for key in sorted(config.keys() | first.keys())
        if key not in _NAMES and config.get(key) != first.get(key)
    ]
    return " ".join(options) or "none"


def _command(folder: CampaignFolder, state: RunState, made: Block) -> str:
    """The command line, with the paths of the machine cut down to what they mean anywhere: the campaign's
    folder and the host's checkout by their names."""
    campaign, run = folder.campaign, state.run
    attempt = state.attempt or folder.next_attempt(run)
    command = list(made.get("command") or campaign.command(run, attempt.results))
    command[0] = "python"
    for option, value in (("--results", _below(folder, attempt)), ("--host", _host(campaign))):
        if option in command[:-1]:
            command[command.index(option) + 1] = value
    return shlex.join(command)


def _below(folder: CampaignFolder, attempt: Attempt) -> str:
    return (Path(folder.root.name) / attempt.results.relative_to(folder.root)).as_posix()


def _host(campaign: Campaign) -> str:
    return campaign.host if campaign.host == PYMARLZOOPLUS else Path(campaign.host).name
