"""Contestants timed in turns on the same data, and what comes out of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch


class Row(NamedTuple):
    """One case; milliseconds are medians, ``ratio`` (host over limask, above 1 is limask faster) is the
    median of the turns' ratios and ``spread`` their interquartile range. Memory is in MiB instead."""

    case: str
    shape: str
    host_ms: float
    limask_ms: float
    ratio: float
    spread: float


def given(data: Any) -> Any:
    """Data that is the same in every turn."""
    return data


def seconds(work: Callable[[], Any]) -> float:
    """Wall-clock seconds that ``work`` takes."""
    finish()
    start = time.perf_counter()
    work()
    finish()
    return time.perf_counter() - start


def finish() -> None:
    """Wait for what a GPU still has to do."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def race(
    contestants: Mapping[str, Callable[[Any], float]], data: Callable[[], Any], turns: int, warm_up: int
) -> dict[str, np.ndarray]:
    """Seconds of every turn by contestant; all get the same data in a turn."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(warm_up + turns):
        shared = data()
        for name, timed in contestants.items():
            seconds = timed(shared)
            if turn >= warm_up:
                times[name].append(seconds)
    return {name: np.array(values) for name, values in times.items()}


def rows(case: str, shape: str, times: Mapping[str, np.ndarray]) -> Iterator[Row]:
    """One row for each contestant but the host."""
    host = times["host"]
    for name, ours in times.items():
        if name != "host":
            low, ratio, high = np.percentile(host / ours, (25, 50, 75))
            host_ms, our_ms = (1e3 * statistics.median(values) for values in (host, ours))
            yield Row(f"{case}, {name}", shape, host_ms, our_ms, float(ratio), float(high - low))


def heading() -> str:
    """Head of the printed table; rows in another unit than milliseconds name it."""
    columns = f"{'case':<56} {'map':<14} {'host, ms':>10} {'limask, ms':>10}"
    return f"{columns}   host/limask: median ± quartiles' distance"


def line(row: Row) -> str:
    """A row of the printed table."""
    return (
        f"{row.case:<56} {row.shape:<14} {row.host_ms:>10.3f} {row.limask_ms:>10.3f} "
        f"{row.ratio:>6.2f} ± {row.spread:.2f}"
    )
