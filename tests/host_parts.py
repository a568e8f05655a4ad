"""A host's own parts put together as its run loop does, on small made-up episodes."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml

from limask import compat, resources
from limask.config.nested import merged
from limask.hosts.base import Host
from limask.hosts.pymarlzooplus import PymarlzooplusHost
from limask.hosts.registry import host_of
from limask.masking import MaskView

N_AGENTS, N_ACTIONS, OBS_SIZE, STATE_SIZE, LIMIT = 3, 5, 12, 7, 9


class RecordingLogger:
    """Stands in for the host's logger and keeps what is logged, which has to be of these ``kinds``."""

    def __init__(self, *kinds: type) -> None:
        self.kinds = kinds or (float,)
        self.console_logger = logging.getLogger("test")
        self.stats: dict[str, list[float]] = {}

    def log_stat(self, key: str, value: float, t: int, to_sacred: bool = True) -> None:
        assert isinstance(value, self.kinds), f"{key} is logged as {type(value)}"
        self.stats.setdefault(key, []).append(float(value))


def load_host(where: str) -> Host:
    """The host ``pymarlzooplus``, or the one in the checkout at ``where``; limask is registered in it."""
    if where == "pymarlzooplus":
        host: Host = PymarlzooplusHost()
    else:
        sys.path.insert(0, str(Path(where) / "src"))
        compat.apply(Path(where) / "src")
        host = host_of(Path(where))
    host.register()
    return host


def make_args(host: Host, algorithm: str, env: str = "gymma", **overrides: Any) -> SimpleNamespace:
    """The host's arguments for one of its algorithms or of limask's, after the environment has been built."""
    folder = host.config_folder()
    args = yaml.safe_load((folder / "default.yaml").read_text())
    own, ours = folder / f"algs/{algorithm}.yaml", resources.config_dir() / f"algs/{algorithm}.yaml"
    args = merged(args, yaml.safe_load((ours if ours.exists() else own).read_text()))
    sizes = {"n_agents": N_AGENTS, "n_actions": N_ACTIONS, "state_shape": STATE_SIZE}
    fixed = {"env": env, "env_args": {}, "seed": 1, "device": "cpu", "use_cuda": False}
    args = merged(args, fixed | sizes | {"learner_log_interval": 0, "batch_size": 32})
    args = merged(args, overrides)
    # On-policy configs have as many as they play at a time.
    return SimpleNamespace(**{**args, "buffer_size": max(args["buffer_size"], args["batch_size"])})


def n_rewards(args: Any) -> int:
    """One for the team, or one for each agent where the host has such."""
    return 1 if getattr(args, "common_reward", True) else args.n_agents


def make_scheme(args: Any, obs_size: int = OBS_SIZE) -> dict[str, Any]:
    """The replay buffer's scheme, as the hosts' run loop writes it."""
    return {
        "state": {"vshape": args.state_shape},
        "obs": {"vshape": obs_size, "group": "agents"},
        "actions": {"vshape": (1,), "group": "agents", "dtype": torch.long},
        "avail_actions": {"vshape": (args.n_actions,), "group": "agents", "dtype": torch.int},
        "reward": {"vshape": (n_rewards(args),)},
        "terminated": {"vshape": (1,), "dtype": torch.uint8},
    }


def make_batch(host: Host, args: Any, n_episodes: int = 32, seed: int = 0, obs_size: int = OBS_SIZE) -> Any:
    """Random episodes of different lengths; about every fourth one is cut by the time limit."""
    rng = np.random.default_rng(seed)
    one_hot = host.module("components.transforms").OneHot(out_dim=args.n_actions)
    batch = host.module("components.episode_buffer").EpisodeBatch(
        make_scheme(args, obs_size),
        {"agents": args.n_agents},
        n_episodes,
        LIMIT + 1,
        preprocess={"actions": ("actions_onehot", [one_hot])},
    )
    for episode in range(n_episodes):
        length = LIMIT if episode % 4 == 0 else int(rng.integers(1, LIMIT))
        for t in range(length + 1):
            avail = rng.integers(0, 2, (args.n_agents, args.n_actions))
            avail[:, 0] = 1
            # Features of an agent go together, so that what is hidden can be inferred from what is not.
            obs = rng.normal(size=(args.n_agents, 1)) + 0.2 * rng.normal(size=(args.n_agents, obs_size))
            data = {
                "state": [rng.normal(size=args.state_shape)],
                "obs": [obs],
                "avail_actions": [avail],
                "actions": [[rng.choice(np.flatnonzero(row)) for row in avail]],
            }
            if t < length:
                ends = t == length - 1 and length < LIMIT
                data |= {"reward": [tuple(rng.normal(size=n_rewards(args)))], "terminated": [(ends,)]}
            batch.update(data, bs=[episode], ts=t)
    return batch


def make_learner(host: Host, args: Any, obs_size: int = OBS_SIZE, *kinds: type) -> Any:
    """Controller and learner of ``args``, with a logger that records values of these ``kinds``."""
    scheme = make_scheme(args, obs_size)
    scheme["actions_onehot"] = {"vshape": (args.n_actions,), "group": "agents", "dtype": torch.float32}
    mac = host.module("controllers").REGISTRY[args.mac](scheme, {"agents": args.n_agents}, args)
    return host.module("learners").REGISTRY[args.learner](mac, scheme, RecordingLogger(*kinds), args)


def gradients(learner: Any) -> list[torch.Tensor]:
    """Of all that Q-learning trains, as they stand; zeros where there is none."""
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in learner.params]


def record_td_gradients(learner: Any) -> list[torch.Tensor]:
    """Gradients as they stand when the reconstruction's are about to be added."""
    recorded: list[torch.Tensor] = []
    step = learner.reconstruction.step

    def recording(*losses: Any) -> torch.Tensor:
        recorded.extend(gradients(learner))
        return step(*losses)

    learner.reconstruction.step = recording
    return recorded


def record_views(learner: Any) -> list[MaskView]:
    """What the learner's masker is shown at each proposal."""
    recorded: list[MaskView] = []
    propose = learner.reconstruction.masker.propose

    def recording(view: MaskView, generator: torch.Generator) -> torch.Tensor:
        recorded.append(view)
        return propose(view, generator)

    learner.reconstruction.masker.propose = recording
    return recorded
