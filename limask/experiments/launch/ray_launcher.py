"""``--launcher ray``: each run is a task of Ray, on this machine or on a cluster."""

from __future__ import annotations

import logging
import math
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from limask.errors import LimaskError
from limask.experiments.campaign.folder import Outcome
from limask.experiments.launch.attempts import AttemptJob, RemoteJob, run_attempt
from limask.experiments.launch.jobs import run_jobs
from limask.experiments.launch.launcher import Follower
from limask.protocols import State

#: Bytes that a Ray of our own keeps for passing objects around (its minimum is 75 MiB): we pass next to none.
_OBJECT_STORE = 100 * 2**20


@dataclass(frozen=True)
class RayLauncher:
    """Trains on the Ray cluster at ``address`` or ``RAY_ADDRESS``, or else on a Ray of the campaign's own.

    ``cpus`` and ``gpus`` are what Ray sets aside for each run; fractions share one.

    Raises:
        LimaskError: they are not what Ray takes.
    """

    extras: ClassVar[tuple[str, ...]] = ("ray",)

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        for option, value in (("--cpus-per-run", self.cpus), ("--gpus-per-run", self.gpus)):
            if not (0 <= value <= 1 or 1 < value < math.inf and value == int(value)):
                raise LimaskError(f"{option}={value:g}: expected a fraction in [0, 1] or a whole number")

    def require(self) -> None:
        """See ``Launcher``."""

    def launch(self, follower: Follower, at_once: int) -> None:
        """See ``Launcher``; Ray does not start anything again by itself."""
        import ray

        follower.take_over()
        with self._connected(follower):
            options = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": 0}
            task = ray.remote(run_attempt).options(**options)

            def remote(unit: AttemptJob) -> RayJob:
                return follower.watched(RayJob(unit, task))

            def ended(job: RayJob) -> list[RayJob]:
                return [remote(unit) for unit in follower.ended(job)]

            run_jobs([remote(unit) for unit in follower.waiting()], at_once, follower.look, ended)

    @contextmanager
    def _connected(self, follower: Follower) -> Iterator[None]:
        import ray

        address = self.address or os.environ.get("RAY_ADDRESS") or "local"
        options: State = {"log_to_driver": False, "logging_level": logging.WARNING}
        if address == "local":
            options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE}
            # Nobody who trains on their own machine expects it to report to Ray's makers.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            if address != "local":
                _knock(address)
            with warnings.catch_warnings():
                # JAX has been imported to look at maps, and warns of forks; what Ray forks becomes Ray.
                warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
                ray.init(address=address, **options)
        except (OSError, RuntimeError, ValueError) as error:
            raise LimaskError(
                f"no Ray at {address}: {' '.join(str(error).split())}; expected HOST:PORT in --address or "
                "RAY_ADDRESS, or neither to have Ray started here"
            ) from error
        try:
            lacking = self._lacking(ray.cluster_resources())
            if lacking and address == "local":
                raise LimaskError(f"{lacking} on this machine; give it less, or the --address of a cluster")
            if lacking:
                follower.say(f"{lacking} now; runs start when the cluster has grown")
            yield
        finally:
            ray.shutdown()

    def _lacking(self, has: dict[str, float]) -> str | None:
        """What a run needs that Ray, which ``has`` so much, would wait for for ever; None where it has it."""
        needs = (("--cpus-per-run", self.cpus, "CPU"), ("--gpus-per-run", self.gpus, "GPU"))
        for option, value, name in needs:
            if value > has.get(name, 0):
                return f"{option}={value:g}: Ray has {has.get(name, 0):g} {name}s"
        return None


def _knock(address: str) -> None:
    """Raises ``OSError`` where nobody listens: Ray itself keeps trying for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.rpartition("/")[2], int(port)), timeout=10).close()


class RayJob(RemoteJob):
    """An attempt as a task of Ray."""

    def __init__(self, unit: AttemptJob, task: Any) -> None:
        super().__init__(unit)
        self._task = task
        self._result: Any = None

    def start(self) -> None:
        """See ``RemoteJob``."""
        self._result = self._task.remote(self.unit)

    def is_over(self) -> bool:
        """See ``RemoteJob``."""
        return self._is_over_within(0.0)

    def result(self) -> Outcome | Exception | str:
        """See ``RemoteJob``."""
        import ray

        try:
            return ray.get(self._result)
        except ray.exceptions.RayError as error:
            first = next(iter(str(error).strip().splitlines()), "")
            return f"the Ray worker is gone: {type(error).__name__}: {first}"

    def ask_to_end(self) -> None:
        """See ``RemoteJob``."""
        import ray

        if self._result is not None:
            ray.cancel(self._result)  # a Ctrl-C in the worker

    def end(self, seconds: float) -> None:
        """See ``RemoteJob``."""
        import ray

        if self._result is not None and not self._is_over_within(seconds):
            ray.cancel(self._result, force=True)

    def _is_over_within(self, seconds: float) -> bool:
        import ray

        return bool(ray.wait([self._result], timeout=seconds)[0])
