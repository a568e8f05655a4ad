"""Trains a host's own learners beside the same ones wrapped by limask; prints whether they part, as JSON.

A program of its own, since every checkout has modules of the same names: ``python parity_wrap.py HOST``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import host_parts
import torch

from limask.hosts.base import Host

N_UPDATES = 5
ALGORITHMS = ("mappo_lim", "ippo_lim", "maa2c_lim", "qplex_lim")

#: A trunk as the host's, and either no autoencoder or one that does not reach the agent.
ARMS: dict[str, dict[str, Any]] = {
    "none": {"trunk": "fc", "autoencoder": {"name": "none", "weight": 0.0}, "masker": {"name": "none"}},
    "idle": {"trunk": "fc", "autoencoder": {"name": "entity", "weight": 0.0}, "masker": {"name": "none"}},
    "taught": {"trunk": "fc", "autoencoder": {"name": "entity", "weight": 0.1}, "masker": {"name": "none"}},
}


def learner_of(host: Host, algorithm: str, **overrides: Any) -> Any:
    """A learner from fixed random numbers, and the next one of these."""
    torch.manual_seed(5)
    return host_parts.make_learner(host, host_parts.make_args(host, algorithm, **overrides))


def networks(learner: Any) -> list[torch.Tensor]:
    """Everything that the host trains."""
    parts = [part for part in vars(learner).values() if isinstance(part, torch.nn.Module)]
    return [p for part in [learner.mac.agent, *parts] for p in part.parameters() if p.requires_grad]


def trained(host: Host, learner: Any) -> tuple[list[torch.Tensor], dict[str, list[float]], torch.Tensor]:
    """Networks and statistics after some updates, and the next random number of the run."""
    for step in range(N_UPDATES):
        learner.train(host_parts.make_batch(host, learner.args, n_episodes=8, seed=step), step, 300 * step)
    return networks(learner), learner.logger.stats, torch.rand(1)


def is_same(host: Host, algorithm: str) -> dict[str, Any]:
    """For each arm: whether networks, statistics and random numbers are the host's, bit by bit."""
    own_name = host_parts.make_args(host, algorithm).learner.removeprefix("lim_")
    common = {"batch_size": 8}
    stock = learner_of(host, algorithm, learner=own_name, mac="basic_mac", agent="rnn", **common)
    start = [p.clone() for p in networks(stock)]
    theirs, their_stats, their_next = trained(host, stock)
    result: dict[str, Any] = {"moved": not any(torch.equal(a, b) for a, b in zip(start, theirs, strict=True))}
    for arm, lim in ARMS.items():
        ours, stats, following = trained(host, learner_of(host, algorithm, lim=lim, **common))
        # The wrapped learner holds its agent a second time.
        ours = list({id(p): p for p in ours}.values())
        result[arm] = {
            "networks": len(ours) == len(theirs) and all(map(torch.equal, ours, theirs)),
            "stats": {key: stats[key] for key in their_stats} == their_stats,
            "random": bool(torch.equal(following, their_next)),
            "reconstructs": "rec_loss" in stats,
        }
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    loaded = host_parts.load_host(sys.argv[1])
    known = loaded.module("learners").REGISTRY
    run = [name for name in ALGORITHMS if host_parts.make_args(loaded, name).learner in known]
    print(json.dumps({name: is_same(loaded, name) for name in run}))
