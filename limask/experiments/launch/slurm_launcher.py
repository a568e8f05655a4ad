"""``--launcher slurm``: the runs are the tasks of job arrays, submitted through submitit."""

from __future__ import annotations

import ast
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from limask.errors import LimaskError
from limask.experiments.campaign.folder import Attempt, Outcome
from limask.experiments.launch import jobs
from limask.experiments.launch.attempts import AttemptJob, RemoteJob, attempt_job, run_attempt
from limask.experiments.launch.launcher import Follower
from limask.files import read_json, write_json
from limask.protocols import Block

if TYPE_CHECKING:
    import submitit

#: What a run is, and so not to be chosen: one task on one node, as many at a time as --jobs says.
_OURS = (
    "additional_parameters",
    "array_parallelism",
    "nodes",
    "ntasks_per_node",
    "tasks_per_node",
    "use_srun",
)

#: Parameters of submitit's that it does not prefix with ``slurm_``.
_COMMON = ("name", "timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node", "stderr_to_stdout")


@dataclass(frozen=True)
class SlurmLauncher:
    """Trains as SLURM jobs with these parameters of submitit's.

    All runs that wait are one job array; runs that crashed are submitted again when it has ended. The jobs
    are listed in ``slurm/jobs.json`` of the campaign's folder until they have ended: they outlive a driver
    that is killed, and the next one goes on with them.

    Raises:
        LimaskError: a parameter is limask's own, or there is no time limit.
    """

    extras: ClassVar[tuple[str, ...]] = ("slurm",)

    parameters: Block

    @classmethod
    def from_options(cls, options: Iterable[str]) -> SlurmLauncher:
        """Read ``KEY=VALUE`` as given on the command line."""
        parameters = {}
        for option in options:
            key, is_pair, value = option.partition("=")
            if not (key and is_pair):
                raise LimaskError(f"--slurm {option}: expected KEY=VALUE, as partition=gpu")
            parameters[key] = _value(value)
        return cls(parameters)

    def __post_init__(self) -> None:
        for key in self.parameters:
            if key in _OURS:
                raise LimaskError(
                    f"--slurm {key}: each run is one task, and --jobs says how many run at once"
                )
        minutes = self.parameters.get("timeout_min")
        # Without it submitit asks for five minutes.
        if not isinstance(minutes, int) or minutes < 1:
            given = "" if minutes is None else f"={minutes}"
            raise LimaskError(
                f"--slurm timeout_min{given}: expected the time limit of a run in whole minutes, as "
                "timeout_min=600"
            )

    def require(self) -> None:
        """See ``Launcher``."""
        self._executor(Path("slurm"), 1)

    def launch(self, follower: Follower, at_once: int) -> None:
        """See ``Launcher``."""
        executor = self._executor(follower.submitted.parent, at_once)
        running = _living(follower)
        follower.folder.settle_left(but=[job.attempt for job in running])
        if running:
            follower.say(
                f"going on with {len(running)} SLURM jobs submitted before (if SLURM does not know them any "
                f"more, delete {follower.submitted})"
            )
        units = follower.waiting()
        while running or units:
            running = running or _submitted(executor, units, follower.submitted)
            _follow(running, follower)
            running, units = [], follower.waiting()

    def _executor(self, folder: Path, at_once: int) -> submitit.AutoExecutor:
        import submitit

        parameters = {
            key if key in _COMMON else f"slurm_{key}": value
            for key, value in ({"name": "limask", "stderr_to_stdout": True} | dict(self.parameters)).items()
        }
        try:
            executor = submitit.AutoExecutor(folder, cluster="slurm")
            executor.update_parameters(
                **parameters,
                slurm_array_parallelism=at_once,
                # The campaign counts attempts: SLURM is not to start any again by itself.
                slurm_additional_parameters={"no-requeue": True},
                # One task needs no srun, which would not hand on the CPUs of the job.
                slurm_use_srun=False,
            )
        except RuntimeError as error:
            raise LimaskError(
                "--launcher slurm: no srun on this machine; start the campaign where SLURM jobs are submitted"
            ) from error
        except (AssertionError, NameError, TypeError, ValueError) as error:
            raise LimaskError(f"--slurm: {str(error).splitlines()[0]}") from error
        return executor


class SlurmJob(RemoteJob):
    """An attempt as a job that has been submitted."""

    def __init__(self, unit: AttemptJob, job: submitit.Job[Any]) -> None:
        super().__init__(unit)
        self._job = job

    def start(self) -> None:
        """SLURM does that."""

    def is_over(self) -> bool:
        """See ``RemoteJob``."""
        return self._job.done()

    def result(self) -> Outcome | Exception | str:
        """See ``RemoteJob``."""
        job = self._job
        if not job.paths.result_pickle.exists():
            return f"SLURM job {job.job_id} ended as {job.state}: see {job.paths.stdout}"
        if (error := job.exception()) is not None:
            last = [line for line in str(error).splitlines() if "Error" in line or "Exception" in line]
            return f"SLURM job {job.job_id} failed: {last[-1] if last else error}; see {job.paths.stdout}"
        return job.result()

    def ask_to_end(self) -> None:
        """See ``RemoteJob``."""
        if not self._job.done():
            self._job.cancel(check=False)

    def end(self, seconds: float) -> None:
        """Wait; SLURM kills what does not end by itself."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._job.done(force_check=True):
            time.sleep(min(jobs.POLL_SECONDS, seconds))


def _submitted(executor: submitit.AutoExecutor, units: list[AttemptJob], record: Path) -> list[SlurmJob]:
    """Submit attempts as one job array, and list them in ``record``."""
    import submitit

    try:
        submitted = executor.map_array(run_attempt, units)
    except (submitit.core.utils.FailedSubmissionError, submitit.core.utils.FailedJobError) as error:
        raise LimaskError(f"SLURM does not take the jobs: {' '.join(str(error).split())}") from error
    pairs = list(zip(units, submitted, strict=True))
    try:
        write_json(record, {job.job_id: f"{unit.run.id}/{unit.attempt.folder.name}" for unit, job in pairs})
    except BaseException:
        # Nobody would know of them.
        for job in submitted:
            job.cancel(check=False)
        raise
    return [SlurmJob(unit, job) for unit, job in pairs]


def _follow(running: Sequence[SlurmJob], follower: Follower) -> None:
    """Follow jobs to their end; those of a driver that ends before them stay listed."""

    def ended(job: SlurmJob) -> list[SlurmJob]:
        follower.ended(job)
        return []

    for job in running:
        follower.watched(job)
    try:
        jobs.run_jobs(running, len(running), follower.look, ended)
    finally:
        if all(job.has_ended() for job in running):
            follower.submitted.unlink()


def _living(follower: Follower) -> list[SlurmJob]:
    """The jobs of a driver that was killed that have not ended yet.

    Raises:
        LimaskError: their list is damaged.
    """
    import submitit

    if not follower.submitted.exists():
        return []
    folder, listed = follower.folder, read_json(follower.submitted)
    runs = {run.id: run for run in folder.campaign.runs()}
    living = []
    for job_id, place in listed.items():
        if Path(str(place)).parent.as_posix() not in runs:
            raise LimaskError(
                f"{follower.submitted} is damaged ({job_id}: {place}); delete it when squeue shows no "
                "jobs of this campaign any more"
            )
        attempt = Attempt(folder.root / "runs" / place)
        job: submitit.Job[Any] = submitit.SlurmJob(follower.submitted.parent, job_id)
        if not job.done():
            run = runs[Path(place).parent.as_posix()]
            living.append(SlurmJob(attempt_job(folder, run, attempt), job))
    if not living:
        follower.submitted.unlink()
    return living


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
