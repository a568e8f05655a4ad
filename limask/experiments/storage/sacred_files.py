"""Learning curves out of the files that sacred writes for a host.

Sacred rewrites a run's ``metrics.json`` in place about every 10 seconds: a reader may find it absent, empty
or cut off, and finds it whole a moment later.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from limask.files import read_json
from limask.install.families import PYMARLZOOPLUS
from limask.protocols import State


class Curve(NamedTuple):
    """A logged quantity: ``values[i]`` was logged at ``steps[i]`` environment steps."""

    steps: tuple[float, ...] = ()
    values: tuple[float, ...] = ()


def sacred_runs(results: Path) -> list[Path]:
    """Sacred's folders of the runs below ``limask run --results``'s folder, in order of their numbers."""
    # PyMARL numbers all runs together, the others those of an algorithm on a map.
    folders = (run for depth in ("*", "*/*/*") for run in results.glob(f"sacred/{depth}"))
    runs = [run for run in folders if run.name.isdecimal()]
    return sorted(runs, key=lambda run: (int(run.name), run))


def latest_run(results: Path) -> Path | None:
    """The run with the highest number, None without any; see ``sacred_runs``."""
    return next(reversed(sacred_runs(results)), None)


def read_curves(run: Path) -> dict[str, Curve]:
    """Curves of the run in folder ``run``, by metric; empty while there is no whole file of them.

    PyMARL, PyMARL2 and PyMARL3 started by their own main leave ``metrics.json`` empty; what they log is in
    ``info.json``.
    """
    metrics = _object(run / "metrics.json")
    curves = {
        name: _curve(series.get("steps", ()), series.get("values", ()))
        for name, series in metrics.items()
        if isinstance(series, dict)
    }
    if curves:
        return curves
    info = _object(run / "info.json")
    return {
        name: _curve(info[f"{name}_T"], values)
        for name, values in info.items()
        if isinstance(values, list) and isinstance(info.get(f"{name}_T"), list)
    }


def _object(file: Path) -> State:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _curve(steps: Sequence[Any], values: Sequence[Any]) -> Curve:
    pairs = list(zip(steps, values, strict=False))
    return Curve(tuple(float(step) for step, _ in pairs), tuple(_number(value) for _, value in pairs))


def _number(value: Any) -> float:
    if isinstance(value, dict):  # how sacred writes a scalar of numpy's
        value = value.get("value")
    return float(value) if isinstance(value, (int, float)) else math.nan


def task_of(config: State) -> str:
    """What a run's options call its task: a map, or else a key of gymnasium's, or else the environment."""
    env_args = config["env_args"]
    return str(env_args.get("map_name") or env_args.get("key") or config["env"])


def host_of_run(run: Path) -> str:
    """``pymarlzooplus``, or the root of the checkout, where sacred found ``main.py`` in ``src``."""
    file = run / "run.json"
    experiment = read_json(file).get("experiment") if file.is_file() else None
    base = Path(str(experiment.get("base_dir"))) if isinstance(experiment, dict) else Path()
    return str(base.parent) if base.name == "src" else PYMARLZOOPLUS
