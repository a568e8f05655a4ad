"""A host's own parts put together in this process, as its run loop does."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import yaml

from limask import compat, resources
from limask.config.nested import merged
from limask.envs import VECTOR_REGISTRY
from limask.envs.smax import SmaxVector, env_info
from limask.errors import LimaskError
from limask.experiments.storage.sacred_files import task_of
from limask.hosts.base import Host
from limask.hosts.pymarlzooplus import PymarlzooplusHost
from limask.hosts.registry import host_of, import_maskers
from limask.install import recognised
from limask.install.families import PYMARLZOOPLUS
from limask.learning.replay import CompactReplay
from limask.protocols import Mac, State
from limask.requirements import require


class Shape(NamedTuple):
    """Sizes of a task: N agents, A actions, O features observed, S of the state, T transitions at most.

    ``env`` and ``env_args`` name the environment, from which a layout is derived.
    """

    name: str
    n_agents: int
    n_actions: int
    obs_size: int
    state_size: int
    limit: int
    env: str
    env_args: dict[str, Any]


class Arm(NamedTuple):
    """Controller and learner of one algorithm, with a replay buffer's scheme of their own."""

    args: SimpleNamespace
    mac: Mac
    learner: Any


class SilentLogger:
    """In place of the host's logger."""

    console_logger = logging.getLogger("limask.silent")

    def log_stat(self, key: str, value: float, t: int, to_sacred: bool = True) -> None:
        """Drop it."""


def load_host(where: str = PYMARLZOOPLUS) -> Host:
    """A host with limask registered in it, single-threaded.

    Args:
        where: ``pymarlzooplus``, or the root of a checkout, whose ``src`` is put on the import path. A
            process can hold one checkout: all of them have modules of the same names.

    Raises:
        LimaskError: a package is missing, there is no such checkout, or this process holds another.
    """
    torch.set_num_threads(1)
    # Of a host's own code, each time it slices a batch or writes into one.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(.*\.)?components\.")
    # Of environments that hosts register twice, and of rewards by agent.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"gymnasium\.")
    if where == PYMARLZOOPLUS:
        require(PYMARLZOOPLUS)
        host: Host = PymarlzooplusHost()
    else:
        root = recognised(Path(where))
        held = _held()
        if held is None:
            compat.apply(root / "src")
            sys.path.insert(0, str(root / "src"))
        elif held != root:
            raise LimaskError(
                f"{where} cannot be loaded beside {held}, whose modules have the same names: load it in a "
                "process of its own"
            )
        host = host_of(root)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what hosts lack for environments that are not played here
            host.register()
    except ImportError as error:
        raise LimaskError(f"{where} cannot be imported ({error}): install what it needs") from error
    if where != PYMARLZOOPLUS:
        import_maskers(root)
    return host


def _held() -> Path | None:
    """Root of the checkout that this process has loaded, if any."""
    learners = sys.modules.get("learners")
    return None if learners is None else Path(str(learners.__file__)).resolve().parents[2]


def smax_shape(map_name: str) -> Shape:
    """Sizes of a SMAX map.

    Raises:
        LimaskError: jaxmarl is missing, or there is no such map.
    """
    info = env_info(SmaxVector(map_name, [0]))
    return Shape(
        map_name, info["n_agents"], info["n_actions"], info["obs_shape"], info["state_shape"],
        info["episode_limit"], "smax", {"map_name": map_name},
    )  # fmt: skip


def environment(host: Host, args: SimpleNamespace) -> Any:
    """One environment of a run's in the host's runner ``episode``, which is not set up yet.

    Raises:
        LimaskError: it cannot be built.
    """
    one = SimpleNamespace(**(vars(args) | {"batch_size_run": 1}))
    try:
        return host.module("runners").REGISTRY["episode"](args=one, logger=SilentLogger())
    except LimaskError:
        raise
    except Exception as error:  # hosts and games raise what they like
        given = ", ".join(f"{key}={value!r}" for key, value in args.env_args.items() if key != "seed")
        raise LimaskError(
            f"env={args.env} with env_args {given} cannot be built ({type(error).__name__}: {error}): "
            "install what the environment needs, or choose a task that it has"
        ) from error


def shape_of(host: Host, args: SimpleNamespace) -> Shape:
    """Sizes of the task of a run's options, which may lack all that follows from it.

    Raises:
        LimaskError: there is no such task, or a package is missing.
    """
    name = task_of(vars(args))
    if args.env in VECTOR_REGISTRY:
        return smax_shape(name)
    runner = environment(host, args)
    info = runner.get_env_info()
    runner.close_env()
    return Shape(
        name, info["n_agents"], info["n_actions"], info["obs_shape"], info["state_shape"],
        info["episode_limit"], args.env, args.env_args,
    )  # fmt: skip


def arguments(host: Host, algorithm: str, shape: Shape, **overrides: Any) -> SimpleNamespace:
    """The host's arguments for one of its algorithms or of limask's, after the environment has been built."""
    folder = host.config_folder()
    args = yaml.safe_load((folder / "default.yaml").read_text())
    own, ours = folder / f"algs/{algorithm}.yaml", resources.config_dir() / f"algs/{algorithm}.yaml"
    args = merged(args, yaml.safe_load((ours if ours.exists() else own).read_text()))
    sizes = {"n_agents": shape.n_agents, "n_actions": shape.n_actions, "state_shape": shape.state_size}
    where = {"env": shape.env, "env_args": {**shape.env_args, "seed": 1}}
    fixed = {"seed": 1, "device": "cpu", "use_cuda": False}
    return SimpleNamespace(**merged(args, where | fixed | sizes | overrides))


def scheme(shape: Shape, n_rewards: int = 1) -> State:
    """The replay buffer's scheme, as the hosts' run loop writes it; EPyMARL may reward each agent."""
    return {
        "state": {"vshape": shape.state_size},
        "obs": {"vshape": shape.obs_size, "group": "agents"},
        "actions": {"vshape": (1,), "group": "agents", "dtype": torch.long},
        "avail_actions": {"vshape": (shape.n_actions,), "group": "agents", "dtype": torch.int},
        "reward": {"vshape": (n_rewards,)},
        "terminated": {"vshape": (1,), "dtype": torch.uint8},
    }


def preprocess(host: Host, shape: Shape) -> State:
    """Actions are also kept one-hot."""
    one_hot = host.module("components.transforms").OneHot(out_dim=shape.n_actions)
    return {"actions": ("actions_onehot", [one_hot])}


def arm(host: Host, args: SimpleNamespace, shape: Shape) -> Arm:
    """Build an algorithm's controller and learner."""
    full = scheme(shape)
    full["actions_onehot"] = {"vshape": (shape.n_actions,), "group": "agents", "dtype": torch.float32}
    mac = host.module("controllers").REGISTRY[args.mac](full, {"agents": shape.n_agents}, args)
    learner = host.module("learners").REGISTRY[args.learner](mac, full, SilentLogger(), args)
    mac.learner = learner
    return Arm(args, mac, learner)


def runner(host: Host, name: str, args: SimpleNamespace, shape: Shape, mac: Mac) -> Any:
    """Build one of the host's runners, ready to run episodes with ``mac``."""
    built = host.module("runners").REGISTRY[name](args=args, logger=SilentLogger())
    groups, n_rewards = {"agents": shape.n_agents}, 1
    if not getattr(args, "common_reward", True):
        n_rewards = shape.n_agents
    host.set_up(
        built, scheme=scheme(shape, n_rewards), groups=groups, preprocess=preprocess(host, shape), mac=mac
    )
    return built


def replay_buffer(
    host: Host, shape: Shape, args: SimpleNamespace, n_episodes: int, is_compact: bool = False
) -> Any:
    """The host's replay buffer for ``n_episodes``, or limask's compact one."""
    CompactReplay.is_wanted = is_compact
    buffer = host.module("components.episode_buffer").ReplayBuffer
    groups = {"agents": shape.n_agents}
    return buffer(
        scheme(shape), groups, args, n_episodes, shape.limit + 1, preprocess=preprocess(host, shape)
    )


def empty_batch(host: Host, shape: Shape, n_episodes: int, limit: int | None = None) -> Any:
    """Episodes of ``limit`` transitions in which nothing has happened yet."""
    batch = host.module("components.episode_buffer").EpisodeBatch
    groups, n_steps = {"agents": shape.n_agents}, (limit or shape.limit) + 1
    return batch(scheme(shape), groups, n_episodes, n_steps, preprocess=preprocess(host, shape))


def random_batch(host: Host, shape: Shape, n_episodes: int, limit: int | None = None) -> Any:
    """Full-length episodes of random numbers."""
    limit = limit or shape.limit
    batch = empty_batch(host, shape, n_episodes, limit)
    generator = torch.Generator().manual_seed(0)
    rows = (n_episodes, limit + 1, shape.n_agents)
    avail = torch.randint(0, 2, (*rows, shape.n_actions), generator=generator, dtype=torch.int)
    avail[..., 0] = 1
    batch.update(
        {
            "state": torch.rand(*rows[:2], shape.state_size, generator=generator),
            "obs": torch.rand(*rows, shape.obs_size, generator=generator),
            "avail_actions": avail,
            "actions": avail.argmax(dim=-1, keepdim=True),
            "reward": torch.randn(*rows[:2], 1, generator=generator),
            "terminated": torch.zeros(*rows[:2], 1, dtype=torch.uint8),
        }
    )
    return batch


class Statistics(SilentLogger):
    """In place of the host's logger: keeps what was logged last."""

    def __init__(self) -> None:
        self.last: dict[str, float] = {}

    def log_stat(self, key: str, value: float, t: int, to_sacred: bool = True) -> None:
        """Keep it."""
        self.last[key] = float(value)
