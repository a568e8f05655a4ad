"""What the host leaves of a trained run, made without training one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from limask.experiments import hosted
from limask.hosts.base import Host

STOP = 4  # SMAX's action that does nothing; attacks follow it


def save_run(host: Host, folder: Path, algorithm: str, steps: int = 1000, **options: Any) -> Path:
    """What the host leaves of a run on 3m; its agents walk east, and shoot when they can.

    The other weights are random, so that what is observed decides who is shot, and nothing else.
    """
    shape = hosted.smax_shape("3m")
    args = hosted.arguments(host, algorithm, shape, **options)
    torch.manual_seed(1)
    _, mac, learner = hosted.arm(host, args, shape)
    with torch.no_grad():
        bias = getattr(mac.agent.fc2, "linear", mac.agent.fc2).bias
        bias[1] = 2.0
        bias[STOP + 1 :] = 4.0
    models = folder / f"models/{steps}"
    models.mkdir(parents=True)
    learner.save_models(str(models))
    not_recorded = ("n_agents", "n_actions", "state_shape", "device")
    config = {key: value for key, value in vars(args).items() if key not in not_recorded}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
