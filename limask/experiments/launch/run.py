"""``limask campaign``: run a campaign, go on with it later, say how far it is."""

from __future__ import annotations

import json
import multiprocessing
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from limask.errors import LimaskError
from limask.experiments.campaign.collect import CURVES, RUNS, collect
from limask.experiments.campaign.folder import CampaignFolder, RunState
from limask.experiments.campaign.plan import Campaign, read_campaign
from limask.experiments.launch.attempts import attempt_job
from limask.experiments.launch.launcher import Follower, Launcher, LocalLauncher
from limask.experiments.launch.progress import progress_of, told
from limask.experiments.launch.view import campaign_view


def run_campaign(
    file: Path,
    output: Path,
    *,
    jobs: int,
    dry_run: bool = False,
    launcher: Launcher | None = None,
) -> None:
    """Train what is still to be trained of a campaign; at the end write ``curves.csv`` and ``runs.csv``.

    Args:
        file: the campaign file, or the name of one that limask brings.
        output: the campaign's folder; a campaign that was cut short goes on there.
        jobs: runs at a time.
        dry_run: only print the commands that would be run.
        launcher: how and where the runs are trained; on this machine where none is given.

    Raises:
        LimaskError: something in the file or in the folder is wrong (nothing has been started then), the disk
            is full, or runs failed; runs that have ended are kept in any case.
        KeyboardInterrupt: Ctrl-C; the runs have been ended.
    """
    if jobs < 1:
        raise LimaskError(f"--jobs={jobs}: expected at least 1")
    campaign = read_campaign(file)
    launcher = launcher or LocalLauncher()
    _check(campaign, () if dry_run else launcher.extras)
    folder = CampaignFolder(output.absolute(), campaign)
    with _os_errors_told(output):
        if dry_run:
            folder.check()
            for state in folder.states(is_running=False):
                if state.state == "waiting":
                    print(shlex.join(attempt_job(folder, state.run).command))
            return
        launcher.require()
        with folder.opened():
            with campaign_view() as view:
                launcher.launch(Follower(folder, view), jobs)
            states = folder.states(is_running=False)
            collect(folder, states)
    print(f"Curves: {output / CURVES}; all runs: {output / RUNS}")
    print(f"Report: {shlex.join(['limask', 'campaign', 'report', str(output)])}")
    _report_failed(states)


def _check(campaign: Campaign, extras: Sequence[str]) -> None:
    """``check_campaign`` in a process of its own, which takes torch and a host's modules away with it: who
    follows a campaign waits for days.

    Raises:
        LimaskError: see ``check_campaign``.
    """
    # With threads of torch's or jax's a fork may hang, and there would be nothing to save.
    if "torch" in sys.modules or "fork" not in multiprocessing.get_all_start_methods():
        _check_here(campaign, extras)
        return
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_check_and_tell, args=(campaign, extras, theirs))
    process.start()
    theirs.close()
    try:
        wrong = ours.recv()
    except EOFError:
        process.join()
        wrong = f"the campaign could not be checked: that ended with status {process.exitcode}; see above"
    process.join()
    if wrong:
        raise LimaskError(wrong)


def _check_here(campaign: Campaign, extras: Sequence[str]) -> None:
    from limask.experiments.campaign.check import check_campaign

    check_campaign(campaign, extras)


def _check_and_tell(campaign: Campaign, extras: Sequence[str], told: Connection) -> None:
    try:
        _check_here(campaign, extras)
    except LimaskError as error:
        told.send(str(error))
    else:
        told.send("")


def campaign_status(root: Path, *, as_json: bool = False) -> list[str]:
    """Say how far the campaign in folder ``root`` is: numbers of runs, and a line for each that is running.

    ``planned`` counts all runs; ``done`` those with a result (a divergence is one); ``failed`` those that
    crashed as often as the campaign allows; ``retried`` those that were started again after a crash.

    Raises:
        LimaskError: the folder holds no campaign, or a file of the campaign's is damaged.
    """
    with _os_errors_told(root):
        folder = CampaignFolder.existing(root)
        states = folder.states(is_running=folder.is_running())
    counts = _counts(states)
    if as_json:
        return [json.dumps(counts)]
    lines = [", ".join(f"{count} {name}" for name, count in counts.items())]
    for state in states:
        if state.state == "running" and state.attempt:
            t_max = folder.campaign.budget(state.run.environment)
            lines.append(f"{state.run.id}: {told(progress_of(state.attempt, t_max))}")
        if state.outcome and state.outcome.reason and state.attempt:
            lines.append(
                f"{state.run.id}: {state.outcome.result}, {state.outcome.reason}; see {state.attempt.log}"
            )
    return lines


def _counts(states: list[RunState]) -> dict[str, int]:
    by_state = Counter(state.state for state in states)
    return {
        "planned": len(states),
        **{name: by_state[name] for name in ("done", "running", "failed")},
        "retried": sum(state.is_retried for state in states),
    }


@contextmanager
def _os_errors_told(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LimaskError(
            f"{error.filename or root}: {error.strerror or error}; runs that have ended are kept: put that "
            "right and run the same command again"
        ) from error


def _report_failed(states: list[RunState]) -> None:
    failed = [state for state in states if state.state == "failed"]
    if not failed:
        return
    first = failed[0]
    assert first.outcome is not None and first.attempt is not None
    raise LimaskError(
        f"{len(failed)} of {len(states)} runs failed, the first {first.run.id}: {first.outcome.reason}; its "
        f"output is in {first.attempt.log}; to try again, raise max_attempts in the campaign file"
    )
