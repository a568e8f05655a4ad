"""Where the runs of a campaign are trained: what all launchers share, and the one for this machine.

However a run is launched, ``attempts.run_attempt`` or its parts make the attempt, ``jobs.run_jobs`` follows
all runs, and the campaign's ``max_attempts`` alone says how often a run is started. No run is ever made twice
at a time, for an attempt's folder is made by one process only and locked by its command while that lives:

* here, a command ends with the driver (``tether``);
* with Ray, the workers of a driver that dies are killed by Ray, and a command ends with its worker;
* with SLURM, jobs outlive their driver, and the next one goes on with them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

from limask.errors import LimaskError
from limask.experiments.campaign.folder import CampaignFolder
from limask.experiments.campaign.plan import Run
from limask.experiments.display import clock
from limask.experiments.launch.attempts import AttemptJob, RemoteJob, attempt_job
from limask.experiments.launch.jobs import run_jobs
from limask.experiments.launch.progress import JobWatch
from limask.experiments.launch.view import CampaignView

AnyAttemptJob = TypeVar("AnyAttemptJob", bound=AttemptJob | RemoteJob)


class Launcher(Protocol):
    """A way to train runs, which needs these ``extras``."""

    extras: ClassVar[tuple[str, ...]]

    def require(self) -> None:
        """See that it can be used here, with its extras installed; raises ``LimaskError`` if it cannot."""

    def launch(self, follower: Follower, at_once: int) -> None:
        """Train what is still to be trained, ``at_once`` runs at a time.

        Raises:
            LimaskError: runs of the campaign are alive elsewhere, or something is wrong beyond one run.
            KeyboardInterrupt, SystemExit: a signal; the runs have been ended.
        """


class Follower:
    """Follows the runs of the campaign in ``folder``, which is locked, on behalf of a launcher."""

    def __init__(self, folder: CampaignFolder, view: CampaignView) -> None:
        self.folder, self._view = folder, view
        self._watches: dict[JobWatch, Run] = {}
        self._counts: Counter[str] = Counter()

    @property
    def submitted(self) -> Path:
        """The list of the campaign's jobs in SLURM; not there where there are none."""
        return self.folder.root / "slurm" / "jobs.json"

    def take_over(self) -> None:
        """Settle what a driver that was killed has left, given that its runs end with it.

        Raises:
            LimaskError: they have not, or the campaign has jobs in SLURM.
        """
        if self.submitted.exists():
            raise LimaskError(
                f"the campaign in {self.folder.root} has jobs in SLURM ({self.submitted}): go on with "
                "--launcher slurm, or cancel them with scancel and delete that file"
            )
        self.folder.settle_left()

    def waiting(self) -> list[AttemptJob]:
        """The next attempts at the runs that are to be trained."""
        states = self.folder.states(is_running=False)
        self._counts = Counter(state.state for state in states)
        return [attempt_job(self.folder, state.run) for state in states if state.state == "waiting"]

    def watched(self, job: AnyAttemptJob) -> AnyAttemptJob:
        """``job``, which is shown from now on while it runs."""
        t_max = self.folder.campaign.budget(job.run.environment)
        self._watches[JobWatch(job, job.attempt.sacred_run, t_max)] = job.run
        return job

    def ended(self, job: AttemptJob | RemoteJob) -> list[AttemptJob]:
        """Settle an attempt and tell how it ended; returns the next one where there is to be one.

        Raises:
            LimaskError, OSError: something is wrong beyond this run.
        """
        self._watches = {watch: run for watch, run in self._watches.items() if watch.job is not job}
        outcome = job.settle()
        state = self.folder.state(job.run).state
        self._counts[state] += 1
        what = f"{outcome.result} after {clock(outcome.seconds)}"
        reason = f", {outcome.reason}" if outcome.reason else ""
        again = ", starts again" if state == "waiting" else ""
        self._view.say(f"{job.run.id}: {what}{reason}{again} ({self._progress()})")
        return [attempt_job(self.folder, job.run)] if state == "waiting" else []

    def look(self) -> None:
        """Look at the runs and show what has changed."""
        running = {watch: run for watch, run in self._watches.items() if watch.job.is_running}
        self._view.watches.clear()
        self._view.watches.update(running)
        self._view.summary = self._progress()
        self._view.show()

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self._view.say(line)

    def _progress(self) -> str:
        failed = self._counts["failed"]
        done = f"{self._counts['done']} of {len(self.folder.campaign.runs())} runs done"
        return f"{done}, {failed} failed" if failed else done


@dataclass(frozen=True)
class LocalLauncher:
    """Trains on this machine, as child processes."""

    extras: ClassVar[tuple[str, ...]] = ()

    def require(self) -> None:
        """See ``Launcher``."""

    def launch(self, follower: Follower, at_once: int) -> None:
        """See ``Launcher``."""
        follower.take_over()

        def ended(job: AttemptJob) -> list[AttemptJob]:
            return [follower.watched(again) for again in follower.ended(job)]

        jobs = [follower.watched(job) for job in follower.waiting()]
        run_jobs(jobs, at_once, follower.look, ended)
