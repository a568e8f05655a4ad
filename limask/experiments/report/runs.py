"""What the folder of a campaign holds about its runs: tests, configs, commands, versions."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from limask.experiments.campaign.collect import tests_that_count
from limask.experiments.campaign.folder import Attempt, CampaignFolder, RunState
from limask.experiments.campaign.plan import Campaign
from limask.experiments.evaluation.compare import compared
from limask.experiments.evaluation.evaluate_output import CSV, FOLDER
from limask.experiments.report.assemble import assemble
from limask.experiments.report.data import FoundRun, Report, Result
from limask.files import json_of
from limask.install.families import PYMARLZOOPLUS
from limask.protocols import Block

#: Entries of ``run.json`` that are the run's own; the others say what it was made with.
_OWN = {"command", "config", "env_config", "host", "options", "run", "started"}


def read_report(root: Path) -> Report:
    """Read the campaign in folder ``root`` and compute its numbers; what is not finished yet is left out.

    Raises:
        LimaskError: the folder holds no campaign, a file of the campaign's is damaged, or no run counts.
        OSError: a file cannot be read.
    """
    folder = CampaignFolder.existing(root.absolute())
    found = [_found(folder, state) for state in folder.states(is_running=folder.is_running())]
    advice = "`limask campaign status` says how far they are"
    report = assemble(root.absolute().name, folder.campaign, found, advice=advice)
    evaluated = root / FOLDER / CSV
    return replace(report, robustness=compared([evaluated])) if evaluated.exists() else report


def _found(folder: CampaignFolder, state: RunState) -> FoundRun:
    """A run that diverged before it could write a test has a result as well: it never learned anything."""
    run, outcome, attempt = state.run, state.outcome, state.attempt
    tests, left_out = tests_that_count(state)
    is_diverged = outcome is not None and outcome.result == "diverged"
    counts = is_diverged or not left_out
    made = json_of(attempt.folder / "run.json") if attempt else {}
    return FoundRun(
        run=run,
        status=outcome.result if outcome else state.state,
        result=Result(run.arm.id, run.environment.id, run.seed, tests, is_diverged) if counts else None,
        left_out="" if counts else left_out,
        sacred=attempt.sacred_run() if attempt else None,
        attempts=len(state.attempts),
        seconds=outcome.seconds if outcome else None,
        reason=outcome.reason if outcome else "",
        command=_command(folder, state, made),
        made_with={key: value for key, value in made.items() if key not in _OWN},
    )


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
