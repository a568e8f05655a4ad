"""Trains JaxMARL's own QMIX in a checkout of it, for ``limask bench peers``, by its Python.

``python jaxmarl_peer.py CHECKOUT SETTINGS CURVE``: SETTINGS is JSON of what is laid over JaxMARL's configs.
CURVE is written: one line for each test, with environment steps, share of battles won and CPU seconds of this
process since its start.

It needs no limask.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
import time
import types
from pathlib import Path
from typing import Any

HEADER = ("steps", "win_rate", "cpu_seconds")
#: Where QMIX and its configs are.
BASELINE = Path("baselines/QLearning")


def main(checkout: Path, settings: dict[str, Any], curve: Path) -> None:
    """Train, and write the ``curve``."""
    import yaml

    with curve.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(HEADER)
        last: list[float] = []

        def log(metrics: dict[str, Any]) -> None:
            # It logs every update, and in between what the last test said.
            test = [
                float(metrics["test_returned_won_episode"]),
                float(metrics["test_returned_episode_returns"]),
            ]
            if test != last:
                last[:] = test
                lines.writerow([int(metrics["env_step"]), test[0], round(time.process_time(), 2)])
                file.flush()

        # All that it tells goes to Weights & Biases, which need not be there.
        sys.modules["wandb"] = types.ModuleType("wandb")
        vars(sys.modules["wandb"]).update(init=lambda **options: None, log=log)
        sys.path.insert(0, str(checkout))
        configs = checkout / BASELINE / "config"
        whole, algorithm = (
            yaml.safe_load((configs / name).read_text()) for name in ("config.yaml", "alg/ql_rnn_smax.yaml")
        )
        fixed = {"WANDB_MODE": "here", "SAVE_PATH": None, "NUM_SEEDS": 1}
        _qmix(checkout).single_run({**whole, **fixed, "alg": {**algorithm, **settings}})


def _qmix(checkout: Path) -> Any:
    spec = importlib.util.spec_from_file_location("qmix_rnn", checkout / BASELINE / "qmix_rnn.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3]))
