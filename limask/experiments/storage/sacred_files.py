"""Learning curves out of the files that sacred writes for a host.

Sacred rewrites a run's ``metrics.json`` in place about every 10 seconds: a reader may find it absent, empty
or cut off, and finds it whole a moment later.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

from limask.protocols import State


class Curve(NamedTuple):
    """A logged quantity: ``values[i]`` was logged at ``steps[i]`` environment steps."""

    steps: tuple[float, ...] = ()
    values: tuple[float, ...] = ()


def latest_run(results: Path) -> Path | None:
    """Folder of the run with the highest number below ``limask run --results``'s folder, None without any."""
    # PyMARL numbers all runs together, the others those of an algorithm on a map.
    folders = (run for depth in ("*", "*/*/*") for run in results.glob(f"sacred/{depth}"))
    runs = [run for run in folders if run.name.isdecimal()]
    return max(runs, key=lambda run: int(run.name), default=None)


def read_curves(run: Path) -> dict[str, Curve]:
    """Curves of the run in folder ``run``, by metric; empty while there is no whole ``metrics.json``."""
    try:
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(metrics, dict):
        return {}
    return {name: _curve(series) for name, series in metrics.items() if isinstance(series, dict)}


def _curve(series: State) -> Curve:
    pairs = list(zip(series.get("steps", ()), series.get("values", ()), strict=False))
    return Curve(
        tuple(float(step) for step, _ in pairs),
        tuple(float(value) if isinstance(value, (int, float)) else math.nan for _, value in pairs),
    )
