"""A trained run found again: what it was, and its agents with the weights of its last checkpoint."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from limask.config import restored
from limask.config.nested import merged
from limask.errors import LimaskError
from limask.experiments import hosted
from limask.experiments.hosted import Shape
from limask.files import read_json
from limask.hosts import Host
from limask.install.families import PYMARLZOOPLUS
from limask.learning.checkpoints import read_weights
from limask.networks.entity_trunk import EntityTrunk
from limask.protocols import Mac, State

#: The layer whose size depends on the team where agents know their own number.
_MIX = "fc1.mix.weight"


class TrainedRun(NamedTuple):
    """A run that left a checkpoint.

    Attributes:
        folder: as it was given.
        arm: its arm in a campaign, or else its config's name.
        environment: its environment in a campaign, or else its map.
        config: all of the host's options, as sacred recorded them.
        checkpoint: folder of the last checkpoint, named by its environment steps.
    """

    folder: Path
    arm: str
    environment: str
    config: State
    checkpoint: Path

    @property
    def name(self) -> str:
        """Arm, environment and seed, as a campaign names its runs."""
        return f"{self.arm}/{self.environment}/seed_{self.config['seed']}"

    @property
    def steps(self) -> int:
        """Environment steps that the checkpoint was trained for."""
        return int(self.checkpoint.name)


class Frozen(NamedTuple):
    """A run's agents, ready to act on the map of ``shape``; ``note`` says what could not be carried over.

    Of the ``learner`` only the agents have the checkpoint's weights.
    """

    run: TrainedRun
    args: SimpleNamespace
    shape: Shape
    mac: Mac
    learner: Any
    note: str


def read_run(folder: Path) -> TrainedRun:
    """Find what is needed of a run.

    Args:
        folder: an attempt of a campaign (``runs/ARM/MAP/seed_N/attempt_K``), the folder given to
            ``limask run --results``, or sacred's own folder of a run.

    Raises:
        LimaskError: it is none of these, holds several runs, has no checkpoint, or was not trained on SMAX
            in pymarlzooplus.
    """
    record = read_json(folder / "run.json") if (folder / "results").is_dir() else {}
    if record.get("host", PYMARLZOOPLUS) != PYMARLZOOPLUS:
        raise LimaskError(f"{folder} was trained in {record['host']}: expected a run of pymarlzooplus")
    sacred = _sacred_folder(folder)
    config = read_json(sacred / "config.json")
    if "lim" in config:  # runs of before options were grouped
        config["lim"] = restored(config["lim"])
    absent = {"agent_output_type", "env", "env_args", "mac", "name", "seed", "t_max"} - config.keys()
    if absent:
        raise LimaskError(f"{sacred / 'config.json'} has no {', '.join(sorted(absent))}: expected a host's")
    if config["env"] != "smax":
        raise LimaskError(f"{folder} was trained on env={config['env']}: expected a run on env=smax")
    if config["mac"] not in ("lim_mac", "basic_mac") or config["agent_output_type"] != "q":
        raise LimaskError(
            f"{folder} was trained with mac={config['mac']} "
            f"agent_output_type={config['agent_output_type']}: expected action values, "
            "agent_output_type=q of mac=lim_mac or mac=basic_mac"
        )
    arm, environment = config["name"], config["env_args"]["map_name"]
    if "run" in record:
        arm, environment, _ = record["run"].split("/")
    checkpoints = [path for path in sacred.glob("models/[0-9]*") if (path / "agent.th").is_file()]
    if not checkpoints:
        raise LimaskError(
            f"{folder} has no checkpoint: train with save_model=True save_model_interval=50000 "
            "(environment steps between checkpoints)"
        )
    return TrainedRun(folder, arm, environment, config, max(checkpoints, key=lambda path: int(path.name)))


def _sacred_folder(folder: Path) -> Path:
    if (folder / "config.json").is_file():
        return folder
    results = folder / "results" if (folder / "results").is_dir() else folder
    runs = sorted(path.parent for path in results.glob("sacred/*/*/[0-9]*/config.json"))
    if not runs:
        raise LimaskError(
            f"{folder} holds no run: expected an attempt of a campaign (runs/ARM/MAP/seed_N/attempt_K), or "
            "the folder given to `limask run --results`"
        )
    if len(runs) > 1:
        raise LimaskError(f"{folder} holds {len(runs)} runs: name one of them, as in {runs[0]}")
    return runs[0]


def freeze(host: Host, run: TrainedRun, map_name: str | None, **overrides: Any) -> Frozen:
    """Build a run's agents in its host, with the weights of its checkpoint and the best action always taken.

    Args:
        host: pymarlzooplus.
        run: the trained run.
        map_name: another map than the run's own, or None.
        overrides: options laid over the run's, such as ``batch_size_run``.

    Raises:
        LimaskError: no such map, the checkpoint is damaged, or it cannot act on that map.
    """
    try:
        shape = hosted.smax_shape(map_name or run.config["env_args"]["map_name"])
    except LimaskError as error:
        raise LimaskError(f"--map {map_name}: {error}" if map_name else str(error)) from error
    sizes = {
        "n_agents": shape.n_agents,
        "n_actions": shape.n_actions,
        "state_shape": shape.state_size,
        "unit_dim": shape.obs_size,
    }
    greedy = {"evaluation_epsilon": 0.0, "test_greedy": True}
    cpu = {"device": "cpu", "device_cnn_modules": "cpu", "use_cuda": False}
    # There is no replay buffer here that could be too large, and it has to hold a batch.
    given = {"buffer_size": run.config["batch_size"], **sizes, **greedy, **cpu, **overrides}
    given["env_args"] = {**overrides.get("env_args", {}), "map_name": shape.name}
    if "lim" in run.config:
        # Compiling takes longer than most evaluations.
        given["lim"] = {**overrides.get("lim", {}), "compile": False}
    args = SimpleNamespace(**merged(run.config, given))
    _, mac, learner = hosted.arm(host, args, shape)
    weights = read_weights(run.checkpoint / "agent.th", "cpu")
    weights, note = _fitted(weights, mac.agent, run, shape)
    mac.agent.load_state_dict(weights)
    return Frozen(run, args, shape, mac, learner, note)


def _fitted(
    weights: dict[str, torch.Tensor], agent: Any, run: TrainedRun, shape: Shape
) -> tuple[dict[str, torch.Tensor], str]:
    """Weights as ``agent`` takes them on the map of ``shape``, and what was done to them.

    An agent that knows its own number (``obs_agent_id``) adds a trained vector for it. A team of another size
    has no such vectors: each of its agents adds the mean of the trained ones.
    """
    own = agent.state_dict()
    wrong = [name for name in own.keys() | weights.keys() if _size(own, name) != _size(weights, name)]
    if not wrong:
        return weights, ""
    autoencoder = getattr(agent, "autoencoder", None)
    if autoencoder is not None and autoencoder.hides == "tokens":
        raise LimaskError(
            f"{run.folder}: its agents ({run.arm}) act on what they infer of the units of their own map, one "
            f"by one, and cannot change to {shape.name}; evaluate it on the map that it was trained on"
        )
    trunk = getattr(agent, "fc1", None)
    if not isinstance(trunk, EntityTrunk):
        name = min(wrong)
        raise LimaskError(
            f"{run.folder}: its agents ({run.arm}) have no entity trunk, and a flat trunk cannot change team "
            f"size ({name} is {_size(weights, name)} in the checkpoint and {_size(own, name)} for "
            f"{shape.name}); train with lim.trunk=entity"
        )
    if wrong != [_MIX] or not agent.spec.has_agent_id:
        raise LimaskError(
            f"{run.folder}: its weights do not fit {shape.name} in {', '.join(sorted(wrong))}; evaluate it "
            "with the version of limask that it was trained with, on a map of units of as many types"
        )
    old = weights[_MIX]
    n_before = len(trunk.own_columns) - shape.n_agents
    n_trained = shape.n_agents + old.shape[1] - own[_MIX].shape[1]
    before, ids, after = old.tensor_split((n_before, n_before + n_trained), dim=1)
    ids = ids.mean(dim=1, keepdim=True).expand(-1, shape.n_agents)
    note = (
        f"{run.name}: trained with {n_trained} agents that know their number (obs_agent_id=True); each of "
        f"the {shape.n_agents} on {shape.name} has the mean of their numbers' weights"
    )
    return {**weights, _MIX: torch.cat([before, ids, after], dim=1)}, note


def _size(weights: dict[str, torch.Tensor], name: str) -> str:
    return "×".join(map(str, weights[name].shape)) if name in weights else "absent"


def check_seed(seed: int) -> None:
    """Refuse a ``--seed`` that numpy or jax would not take.

    Raises:
        LimaskError: it is out of range.
    """
    if not 0 <= seed < 2**31:
        raise LimaskError(f"--seed={seed}: expected a number from 0 to 2147483647")
