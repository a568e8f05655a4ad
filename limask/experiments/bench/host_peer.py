"""Trains an algorithm in pymarlzooplus, for ``limask bench peers``, in a process of its own.

``python -m limask.experiments.bench.host_peer CURVE RESULTS ARGUMENT…``: the arguments are those of ``limask
run --host pymarlzooplus``, and CURVE is written as ``jaxmarl_peer`` does.
"""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

from limask.experiments.bench.jaxmarl_peer import HEADER
from limask.hosts.run import run_host
from limask.hosts.sinks import Sink
from limask.install.families import PYMARLZOOPLUS
from limask.protocols import Block


class CurveSink(Sink):
    """Writes each test down, with the CPU seconds of this process."""

    def __init__(self, curve: Path) -> None:
        self._curve = curve

    def open(self, name: str, config: Block) -> None:
        """See ``Sink``."""
        self._add(HEADER, "w")

    def write(self, key: str, value: float, step: int) -> None:
        """See ``Sink``."""
        if key == "test_battle_won_mean":
            self._add((step, value, round(time.process_time(), 2)), "a")

    def _add(self, line: tuple[object, ...], mode: str) -> None:
        with self._curve.open(mode, newline="") as file:
            csv.writer(file).writerow(line)


if __name__ == "__main__":
    curve, results, *arguments = sys.argv[1:]
    run_host(PYMARLZOOPLUS, arguments, Path(results), [CurveSink(Path(curve))], save_state=0)
