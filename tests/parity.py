"""Trains a host's own Q-learner and limask's control arm side by side; prints how far they part, as JSON.

In float64, where rounding cannot hide a difference of the maths: Adam turns a gradient's last bit into a step
of the whole learning rate where the gradient is nearly zero.  A program of its own, since every checkout has
modules of the same names: ``python parity.py HOST SETTINGS``, a list of overrides of the host's options.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import host_parts
import replay_parts
import torch

from limask.hosts.base import Host

N_UPDATES = 20

#: What some hosts log under other names than the rest, and what they log as something that it is not.
OTHER_NAMES = {"loss_td": "loss"}
MISNOMERS = {"loss_td": ("td_error_abs",)}  # PyMARL2 and 3 log half the mean squared error under that name


def parity(host: Host, overrides: dict[str, Any]) -> dict[str, float]:
    """Largest differences of what is logged (relative above 1) and of any parameter, over 20 updates."""
    lim = {"trunk": "fc", "autoencoder": {"name": "entity", "weight": 0.0}, "masker": {"name": "none"}}
    targets = {key: overrides.get(key, off) for key, off in (("td_lambda", 0.0), ("q_lambda", False))}
    common = {"target_update_interval_or_tau": 7, "target_update_interval": 7, "obs_last_action": True}
    common |= {"lr": 5e-4, "td_lambda": 0.0, "use_rnn": True, "standardise_rewards": False} | overrides
    theirs_args = host_parts.make_args(host, "qmix", **common)
    theirs = host_parts.make_learner(host, theirs_args, host_parts.OBS_SIZE, float, torch.Tensor)
    ours = host_parts.make_learner(
        host, host_parts.make_args(host, "qmix_fc", lim=lim | {"targets": targets}, **common)
    )
    ours.mac.agent.load_state_dict(theirs.mac.agent.state_dict())
    ours.target_mac.load_state(ours.mac)
    if theirs.mixer is not None:
        ours.mixer.load_state_dict(theirs.mixer.state_dict())
        ours.target_mixer.load_state_dict(ours.mixer.state_dict())
    for step in range(N_UPDATES):
        batch = host_parts.make_batch(host, ours.args, n_episodes=8, seed=step)
        for key in ("obs", "state", "reward"):
            batch.data.transition_data[key] = batch[key].double()
        for learner in (theirs, ours):
            learner.train(batch, step, step)
    return compared(theirs, ours)


def compared(theirs: Any, ours: Any) -> dict[str, float]:
    """Differences between two learners after the same updates."""
    stats = {OTHER_NAMES.get(key, key): values for key, values in theirs.logger.stats.items()}
    for name, wrong in MISNOMERS.items():
        if name in theirs.logger.stats:
            stats = {key: values for key, values in stats.items() if key not in wrong}
    pairs = zip(theirs.params, ours.params, strict=True)
    return {
        key: max(
            abs(a - b) / max(1.0, abs(a)) for a, b in zip(stats[key], ours.logger.stats[key], strict=True)
        )
        for key in stats
    } | {
        "parameters": max(float((a - b).abs().max()) for a, b in pairs),
        "n_losses": len(stats["loss"]),
        "moved": float((theirs.params[0] - theirs.target_mac.agent.fc1.weight).abs().max()),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    loaded = host_parts.load_host(sys.argv[1])
    replay_parts.check(loaded)
    torch.set_default_dtype(torch.float64)
    print(json.dumps([parity(loaded, overrides) for overrides in json.loads(sys.argv[2])]))
