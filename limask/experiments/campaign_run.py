"""``limask campaign``: run a campaign on this machine, go on with it later, say how far it is."""

from __future__ import annotations

import datetime
import errno
import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limask.errors import LimaskError
from limask.experiments.campaign import Run, read_campaign
from limask.experiments.campaign_check import check_campaign
from limask.experiments.campaign_folder import Attempt, CampaignFolder, Outcome, RunState
from limask.experiments.campaign_view import CampaignView, campaign_view
from limask.experiments.collect import CURVES, RUNS, collect, read_tests
from limask.experiments.jobs import Job, last_line, last_text, run_jobs
from limask.experiments.progress import JobWatch, clock
from limask.experiments.provenance import provenance

#: What limask's learner says when it stops because a loss is not finite.
_DIVERGED = re.compile(r"\w[\w ]* loss is (?:nan|-?inf) at t_env=\d+")


def run_campaign(file: Path, output: Path, *, jobs: int, dry_run: bool = False) -> None:
    """Train what is still to be trained of a campaign; at the end write ``curves.csv`` and ``runs.csv``.

    Args:
        file: the campaign file, or the name of one that limask brings.
        output: the campaign's folder; a campaign that was cut short goes on there.
        jobs: runs at a time.
        dry_run: only print the commands that would be run.

    Raises:
        LimaskError: something in the file or in the folder is wrong (nothing has been started then), the disk
            is full, or runs failed; runs that have ended are kept in any case.
        KeyboardInterrupt: Ctrl-C; the runs have been ended.
    """
    if jobs < 1:
        raise LimaskError(f"--jobs={jobs}: expected at least 1")
    campaign = read_campaign(file)
    check_campaign(campaign)
    folder = CampaignFolder(output.absolute(), campaign)
    with _os_errors_told(output):
        if dry_run:
            folder.check()
            for state in folder.states(is_running=False):
                if state.state == "waiting":
                    results = folder.next_attempt(state.run).results
                    print(shlex.join(campaign.command(state.run, results)))
            return
        with folder.opened() as lock:
            with campaign_view() as view:
                LocalLauncher(folder, lock, view).launch(jobs)
            states = folder.states(is_running=False)
            collect(folder, states)
    print(f"Curves: {output / CURVES}; all runs: {output / RUNS}")
    _report_failed(states)


def campaign_status(root: Path, *, as_json: bool = False) -> list[str]:
    """Say how far the campaign in folder ``root`` is, in numbers of runs.

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


@dataclass
class AttemptJob(Job):
    """The job of an attempt, whose folder is made when it starts; ``record`` goes into ``run.json``."""

    run: Run = field(kw_only=True)
    attempt: Attempt = field(kw_only=True)
    record: dict[str, Any] = field(kw_only=True)

    def start(self) -> None:
        """Make the attempt's folder and start the command."""
        started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        self.attempt.create(self.record | {"started": started})
        super().start()


class LocalLauncher:
    """Trains what is still to be trained as child processes, ``jobs`` at a time.

    ``lock`` is the file descriptor of the folder's lock.
    """

    def __init__(self, folder: CampaignFolder, lock: int, view: CampaignView) -> None:
        self._folder, self._lock, self._view = folder, lock, view
        self._made_with = provenance(folder.campaign.host)
        self._watches: dict[JobWatch, Run] = {}
        states = folder.states(is_running=False)
        self._counts = Counter(state.state for state in states)
        self._waiting = [state.run for state in states if state.state == "waiting"]

    def launch(self, jobs: int) -> None:
        """Run to the end; raises what ``run_jobs`` raises."""
        run_jobs([self._job(run) for run in self._waiting], jobs, self._look, self._ended)

    def _job(self, run: Run) -> AttemptJob:
        campaign, attempt = self._folder.campaign, self._folder.next_attempt(run)
        command = campaign.command(run, attempt.results)
        record = {
            "run": run.id,
            "host": campaign.host,
            "config": run.arm.config,
            "env_config": run.environment.env_config,
            "options": campaign.options(run),
            "command": command,
            **self._made_with,
        }
        # The run holds the lock as well: nobody starts another attempt beside it, whatever becomes of us.
        held = (self._lock,)
        job = AttemptJob(run.id, command, attempt.log, held, run=run, attempt=attempt, record=record)
        self._watches[JobWatch(job, attempt.sacred_run, campaign.t_max)] = run
        return job

    def _ended(self, job: AttemptJob) -> list[AttemptJob]:
        """Mark how an attempt ended; one that crashed is followed by another while the campaign allows it."""
        self._watches = {watch: run for watch, run in self._watches.items() if watch.job is not job}
        outcome = _judge(job)
        job.attempt.settle(outcome)
        state = self._folder.state(job.run).state
        self._counts["waiting"] -= 1
        self._counts[state] += 1
        what = f"{outcome.result} after {clock(outcome.seconds)}"
        reason = f", {outcome.reason}" if outcome.reason else ""
        again = ", starts again" if state == "waiting" else ""
        self._view.say(f"{job.run.id}: {what}{reason}{again} ({self._progress()})")
        return [self._job(job.run)] if state == "waiting" else []

    def _look(self) -> None:
        running = {watch: run for watch, run in self._watches.items() if watch.job.is_running}
        self._view.watches.clear()
        self._view.watches.update(running)
        self._view.summary = self._progress()
        self._view.show()

    def _progress(self) -> str:
        failed = self._counts["failed"]
        done = f"{self._counts['done']} of {self._counts.total()} runs done"
        return f"{done}, {failed} failed" if failed else done


def _judge(job: AttemptJob) -> Outcome:
    """What the end of a job means.

    Raises:
        OSError: the disk is full, which is no failure of this run alone.
    """
    failure = job.failure()
    if failure is None:
        try:
            read_tests(job.attempt)
        except LimaskError as error:
            return Outcome("failed", job.seconds, f"ended without a result: {error}")
        return Outcome("finished", job.seconds)
    said = last_text(job.log)
    if diverged := _DIVERGED.search(said):
        return Outcome("diverged", job.seconds, diverged.group())
    if os.strerror(errno.ENOSPC) in said:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(job.attempt.folder))
    return Outcome("failed", job.seconds, f"{failure}: {last_line(job.log)}")
