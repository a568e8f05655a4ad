"""The agents of a trained run, with the weights of its last checkpoint."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import yaml

from limask.acting.agent import LimAgent
from limask.config import AUTO, LimConfig
from limask.config.nested import merged
from limask.envs.smax_battle import scenario_sizes
from limask.errors import LimaskError
from limask.experiments import hosted
from limask.experiments.evaluation.runs import TrainedRun
from limask.experiments.hosted import Shape
from limask.hosts.base import Host
from limask.layouts import Layout, flat_layout, known_layout, smax_layout
from limask.learning.checkpoints import TEAM, load, read_team, read_weights
from limask.networks.entity_trunk import EntityTrunk
from limask.networks.transfer import Team, fitted
from limask.protocols import Mac, State


class Frozen(NamedTuple):
    """A run's agents, ready to act on the task of ``shape``, whose observations have this ``layout``.

    ``note`` says what could not be carried over.

    Of the ``learner`` only the agents have the checkpoint's weights.
    """

    run: TrainedRun
    args: SimpleNamespace
    shape: Shape
    mac: Mac
    learner: Any
    layout: Layout
    note: str


def freeze(host: Host, run: TrainedRun, map_name: str | None, **overrides: Any) -> Frozen:
    """Build a run's agents in its host, with the weights of its checkpoint and the best action always taken.

    Args:
        host: the run's.
        run: the trained run.
        map_name: another map (or key of gymnasium's) than the run's own, or None.
        overrides: options laid over the run's, such as ``batch_size_run``.

    Raises:
        LimaskError: no such map, the checkpoint is damaged, or it cannot act on that map.
    """
    greedy = {"evaluation_epsilon": 0.0, "test_greedy": True}
    cpu = {"device": "cpu", "device_cnn_modules": "cpu", "use_cuda": False}
    # There is no replay buffer here that could be too large, and it has to hold a batch.
    given = {"buffer_size": run.config["batch_size"], **greedy, **cpu, **overrides}
    if map_name:
        option = "map_name" if run.config["env_args"].get("map_name") else "key"
        given["env_args"] = {**overrides.get("env_args", {}), option: map_name}
    if "lim" in run.config:
        # Compiling takes longer than most evaluations; and the weights come from the run's own checkpoint.
        lim = {"compile": False, "start_from": "", **_chosen(run)}
        given["lim"] = merged(overrides.get("lim", {}), lim)
    # Options that another host of the same agents has, and the run's own has not.
    defaults = yaml.safe_load((host.config_folder() / "default.yaml").read_text(encoding="utf-8"))
    args = SimpleNamespace(**merged(merged(defaults, run.config), given))
    try:
        shape = hosted.shape_of(host, args)
    except LimaskError as error:
        raise LimaskError(f"--map {map_name}: {error}" if map_name else str(error)) from error
    args.n_agents, args.n_actions = shape.n_agents, shape.n_actions
    args.state_shape, args.unit_dim = shape.state_size, shape.obs_size
    _, mac, learner = hosted.arm(host, args, shape)
    weights = read_weights(run.checkpoint / "agent.th", "cpu")
    weights, note = _fitted(weights, mac.agent, run, shape)
    mac.agent.load_state_dict(weights)
    return Frozen(run, args, shape, mac, learner, _layout(host, args, mac.agent, shape), note)


def _chosen(run: TrainedRun) -> State:
    """The autoencoder that ``auto`` was when the run was trained: it need not be what it is now."""
    file = run.checkpoint / "autoencoder.th"
    if run.config["lim"].get("autoencoder", {}).get("name") != AUTO or not file.is_file():
        return {}
    written = load(file, "cpu").get("autoencoder", AUTO)
    return {"autoencoder": {"name": written}}


def _layout(host: Host, args: SimpleNamespace, agent: Any, shape: Shape) -> Layout:
    """What the environment's observations hold: the same for all agents, whatever ``lim.layout`` they were
    trained with, so that the same goes wrong for all. Where nothing is known of it, the agents' own
    layout."""
    config = LimConfig()
    try:
        known = known_layout(config, args.env, host.layout_args(args))
    except LimaskError:  # no layout serves options such as these, and lim.layout had to say another
        known = None
    own = agent.layout if isinstance(agent, LimAgent) else flat_layout(shape.obs_size, config.group_width)
    return known or own


def _fitted(
    weights: dict[str, torch.Tensor], agent: Any, run: TrainedRun, shape: Shape
) -> tuple[dict[str, torch.Tensor], str]:
    """Weights as ``agent`` takes them on the map of ``shape``, and what was done to them.

    See ``networks.transfer`` for those of a team of another size.

    Raises:
        LimaskError: they do not fit that map.
    """
    note = ""
    if shape.name != run.task and isinstance(agent, LimAgent):
        team = _team(run)
        weights = fitted(weights, agent, team)
        if team.n_agents != shape.n_agents and agent.spec.has_agent_id:
            note = (
                f"{run.name}: trained with {team.n_agents} agents that know their number "
                f"(obs_agent_id=True); each of the {shape.n_agents} on {shape.name} has the mean of their "
                "numbers' weights"
            )
    own = agent.state_dict()
    wrong = [name for name in own.keys() | weights.keys() if _size(own, name) != _size(weights, name)]
    if not wrong:
        return weights, note
    autoencoder = getattr(agent, "autoencoder", None)
    is_elsewhere = shape.name != run.task
    if is_elsewhere and autoencoder is not None and autoencoder.hides == "tokens":
        raise LimaskError(
            f"{run.folder}: its agents ({run.arm}) act on what they infer of the units of their own map, one "
            f"by one, and cannot change to {shape.name}; evaluate it on the map that it was trained on, or "
            "train with lim.autoencoder.name=entity_belief"
        )
    trunk = getattr(agent, "fc1", None)
    if is_elsewhere and not isinstance(trunk, EntityTrunk):
        name = min(wrong)
        raise LimaskError(
            f"{run.folder}: its agents ({run.arm}) have no entity trunk, and a flat trunk cannot change team "
            f"size ({name} is {_size(weights, name)} in the checkpoint and {_size(own, name)} for "
            f"{shape.name}); train with lim.trunk=entity"
        )
    raise LimaskError(
        f"{run.folder}: its weights do not fit {shape.name} in {', '.join(sorted(wrong))}; evaluate it "
        "with the version of limask that it was trained with, on a map of units of as many types"
    )


def _team(run: TrainedRun) -> Team:
    """The team that a run's agents were trained in.

    Raises:
        LimaskError: the checkpoint does not tell.
    """
    if (run.checkpoint / TEAM).is_file():
        return read_team(run.checkpoint)
    if run.config["env"] != "smax":  # on SMAX its options tell
        raise LimaskError(
            f"{run.checkpoint} has no {TEAM}, which says what team its agents were trained in: evaluate it "
            "on the map that it was trained on"
        )
    env_args = run.config["env_args"]
    return Team.of(scenario_sizes(env_args["map_name"]).n_agents, smax_layout(env_args))


def _size(weights: dict[str, torch.Tensor], name: str) -> str:
    return "×".join(map(str, weights[name].shape)) if name in weights else "absent"
