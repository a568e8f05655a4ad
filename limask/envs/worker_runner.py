"""The host's parallel runner, for games in processes of their own that may die."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from limask.envs.vector_runner import own_random_numbers
from limask.errors import LimaskError
from limask.protocols import Args

_log = logging.getLogger("limask.envs")

_SECONDS_BETWEEN_LOOKS = 1.0
#: Silence after which a worker is named that still runs; then after twice as long, and so on. A step takes
#: milliseconds, and to start StarCraft II half a minute.
_SECONDS_UNTIL_NAMED = 60.0


class WorkerConnection:
    """The host's end of the pipe to one worker, with three differences.

    Waiting for a worker that has ended is an error, where the hosts would wait for ever. One that says
    nothing for long, though it runs, is named in the log: it may hang. And a worker is never asked for
    ``get_stats``, which no host reads: smac fails on it, and the worker with it, when a game has died before
    the end of its first battle (it divides by the number of battles).

    Args:
        connection: the host's end of the pipe.
        processes: returns the host's workers; they are started after the pipes have been made.
        index: which of them is at the other end.
    """

    def __init__(self, connection: Any, processes: Callable[[], Any], index: int) -> None:
        self._connection = connection
        self._processes = processes
        self._index = index
        self._n_unasked = 0

    def send(self, message: tuple[str, Any]) -> None:
        """Send a command and its data."""
        if message[0] == "get_stats":
            self._n_unasked += 1
        else:
            self._connection.send(message)

    def recv(self) -> Any:
        """The worker's answer.

        Raises:
            LimaskError: the worker has ended without one.
        """
        if self._n_unasked:
            self._n_unasked -= 1
            return {}
        began, named_at = time.monotonic(), _SECONDS_UNTIL_NAMED
        while not self._connection.poll(_SECONDS_BETWEEN_LOOKS):
            # What it sent last may have come between the two looks.
            process = self._processes()[self._index]
            if not process.is_alive() and not self._connection.poll():
                raise LimaskError(
                    f"the environment in {process.name} has ended with status {process.exitcode}; "
                    "its own message stands above"
                )
            if time.monotonic() - began >= named_at:
                _log.warning(
                    "the environment in %s (pid %d) has not answered for %.0f s: it may hang; limask goes on "
                    "waiting",
                    process.name,
                    process.pid,
                    time.monotonic() - began,
                )
                named_at *= 2
        return self._connection.recv()


class WorkerRunner:
    """Mixed in before a host's ``ParallelRunner``."""

    # The host's: options, and the workers.
    args: Args
    ps: Any

    @property
    def parent_conns(self) -> tuple[WorkerConnection, ...]:
        """The host's ends of the pipes to its workers."""
        return self._connections

    # The host's constructor already waits for its first worker: the pipes are replaced as they are set.
    @parent_conns.setter
    def parent_conns(self, connections: Any) -> None:
        self._connections = tuple(
            WorkerConnection(connection, lambda: self.ps, index)
            for index, connection in enumerate(connections)
        )

    def run(self, test_mode: bool = False) -> Any:
        """The host's; if it fails, the other workers close their games first. What a test draws of torch's
        random numbers, training does not miss.

        Raises:
            LimaskError: see ``WorkerConnection.recv``.
        """
        try:
            with own_random_numbers(self.args.device) if test_mode else nullcontext():
                return super().run(test_mode=test_mode)  # type: ignore[misc]
        except LimaskError:
            self.close_env()  # type: ignore[attr-defined]
            for process in self.ps:
                process.join(timeout=30)
            raise
