"""What a learner of limask's keeps beside the host's checkpoints, and what stops it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from limask import autoencoder, resources
from limask.acting.agent import LimAgent
from limask.config import LimConfig
from limask.errors import DivergedError, LimaskError
from limask.learning.trainer import Trainer
from limask.networks.transfer import Team, fitted
from limask.protocols import Args, EpisodeBatch, State

#: What of a run's options a checkpoint of its autoencoder was written with; older ones lack the last two.
_WRITTEN = {"autoencoder": "entity", "masker": "random", "use_inference": False, "rec_latent": False}
#: These options by their names in ``lim``.
_OPTIONS = {
    "autoencoder": "autoencoder.name", "masker": "masker.name",
    "use_inference": "autoencoder.use_inference", "rec_latent": "autoencoder.latent",
}  # fmt: skip


#: Share of random actions above which trained agents forget (docs/results/transfer).
_FORGETS = 0.5

#: What a checkpoint says of the team that its agents were trained in.
TEAM = "team.json"


class Checkpoints:
    """Mixed in before a host's learner: its files, ``team.json``, and ``autoencoder.th`` where the run has an
    autoencoder.

    ``reconstruction`` trains that autoencoder, or is None; ``checkpoint`` names the last folder written;
    ``n_updates`` counts the SGD steps made.
    """

    args: Args
    agent: LimAgent
    config: LimConfig
    reconstruction: Trainer | None = None
    checkpoint: str = "none written"
    n_updates: int = 0

    def cuda(self) -> None:
        """Move everything to the GPU."""
        super().cuda()  # type: ignore[misc]
        if self.reconstruction is not None:
            self.reconstruction.to(torch.device("cuda"))

    def save_models(self, path: str) -> None:
        """All files of the checkpoint, or none."""
        team = Team.of(self.agent.spec.n_agents, self.agent.layout)
        with whole(path) as folder:
            super().save_models(folder)  # type: ignore[misc]
            Path(folder, TEAM).write_text(json.dumps(team._asdict()), encoding="utf-8")
            if self.reconstruction is not None:
                torch.save(self.reconstruction.state_dict(), os.path.join(folder, "autoencoder.th"))
        self.checkpoint = str(path)

    def load_models(self, path: str) -> None:
        """Host's files, and ``autoencoder.th`` where the run has an autoencoder.

        Raises:
            LimaskError: see ``_read``; nothing has been loaded.
        """
        state = _read(path, self.agent)
        _check_mixer(path, getattr(self, "mixer", None))
        super().load_models(path)  # type: ignore[misc]
        if self.reconstruction is not None:
            self.reconstruction.load_state_dict(state)


def newest_checkpoint(path: str) -> Path:
    """The checkpoint ``path``, or the last of those in it, or of the agents of that name that limask brings.

    Raises:
        LimaskError: there is none, or not one that says what team its agents were trained in.
    """
    folder, brought = Path(path), resources.models_dir() / path / "models"
    if not folder.exists() and brought.is_dir():
        folder = brought
    saved = [inner for inner in folder.glob("*") if inner.name.isdecimal() and (inner / "agent.th").is_file()]
    checkpoint = max(saved, key=lambda inner: int(inner.name), default=folder)
    for name in ("agent.th", TEAM):
        if not (checkpoint / name).is_file():
            raise LimaskError(
                f"lim.start_from={path!r}: no file {checkpoint / name}; expected a checkpoint of a run with "
                "agents of limask's, as in …/models/150000, the folder of several, or the name of agents "
                "that limask brings, as qmix_lim_robust/3m"
            )
    return checkpoint


def read_team(checkpoint: Path) -> Team:
    """The team that a checkpoint's agents were trained in.

    Raises:
        LimaskError: its file is damaged.
    """
    try:
        return Team(**json.loads((checkpoint / TEAM).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise LimaskError(f"{checkpoint / TEAM} is damaged ({error}): use another checkpoint") from error


def forgetting_note(config: LimConfig, args: Args) -> str:
    """A line for the log of a run that begins with trained agents and has them act at random; empty for the
    others."""
    epsilon = getattr(args, "epsilon_start", 0.0)
    if not config.start_from or epsilon <= _FORGETS:
        return ""
    return (
        f"lim.start_from with epsilon_start={epsilon}: the agents begin by acting at random, and lose much "
        "of what they know; epsilon_start=0.1 has them go on with it"
    )


def start_from(path: str, agent: LimAgent) -> None:
    """Give ``agent`` the weights of a checkpoint of another run, whose team may have been of another size.

    Raises:
        LimaskError: see ``newest_checkpoint``; it is damaged; or its agents are of another build.
    """
    checkpoint = newest_checkpoint(path)
    team = read_team(checkpoint)
    weights = read_weights(checkpoint / "agent.th", next(agent.parameters()).device)
    weights = fitted(weights, agent, team)
    _check_agent(str(checkpoint), weights, agent)
    agent.load_state_dict(weights)


def check_clip(args: Args) -> None:
    """Refuse a clipping that would leave nothing of a gradient, or turn it around.

    Raises:
        LimaskError: names the option and what is expected.
    """
    if not args.grad_norm_clip > 0:
        raise LimaskError(
            f"grad_norm_clip={args.grad_norm_clip!r}: expected a norm above 0, to which gradients are clipped"
        )


def check_finite(learner: Checkpoints, name: str, loss: torch.Tensor, where: str) -> None:
    """Stop before ``loss``, or a gradient of that norm, spoils the networks.

    Raises:
        DivergedError: it is not finite; the message tells ``where`` in the run, and the last checkpoint.
    """
    if not torch.isfinite(loss):
        raise DivergedError(
            f"{name} is {loss.item()} at {where}: training stops before the networks are spoiled; "
            f"last checkpoint: {learner.checkpoint}; config: {learner.config}"
        )


@contextmanager
def blamed(batch: EpisodeBatch, args: Args) -> Iterator[None]:
    """Where learning from ``batch`` diverges, and its data were not finite to begin with, say so.

    Raises:
        DivergedError: names what of the environment's was not finite.
    """
    try:
        yield
    except DivergedError as error:
        is_filled = batch["filled"].squeeze(-1) > 0
        given = ("obs", "state", "reward")
        wrong = [key for key in given if not bool(batch[key][is_filled].isfinite().all())]
        if not wrong:
            raise
        raise DivergedError(
            f"{error}; values of {' and '.join(wrong)} that env={args.env!r} gave are not finite: look for "
            "the cause there"
        ) from error


@contextmanager
def whole(path: str) -> Iterator[str]:
    """A folder to be filled, which then is ``path``: nothing half-written if that is killed, or fails."""
    part = f"{path}.part"
    shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
    os.makedirs(part)
    try:
        yield part
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if os.path.isdir(path) and not os.listdir(path):
        os.rmdir(path)  # the host makes it first
    if os.path.isdir(path):
        shutil.copytree(part, path, copy_function=os.replace, dirs_exist_ok=True)
        shutil.rmtree(part)
    else:
        os.rename(part, path)


def load(path: str | os.PathLike[str], device: torch.device | str) -> Any:
    """What torch saved there.

    Raises:
        LimaskError: the file is damaged.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises whatever its reader does on a damaged file
        reason = str(error).strip().partition("\n")[0]
        raise LimaskError(f"{path} is damaged ({reason}): use another checkpoint") from error


def read_weights(path: str | os.PathLike[str], device: torch.device | str) -> dict[str, torch.Tensor]:
    """A network's weights by name.

    Raises:
        LimaskError: the file is damaged, or a weight is not finite.
    """
    weights = load(path, device)
    is_table = isinstance(weights, dict) and all(isinstance(part, torch.Tensor) for part in weights.values())
    if not is_table:
        raise LimaskError(
            f"{path} is damaged (it holds no weights by name, but {type(weights).__name__}): use another "
            "checkpoint"
        )
    for name, part in weights.items():
        if not bool(part.isfinite().all()):
            raise LimaskError(f"{path}: {name} is not finite: use an earlier checkpoint")
    return dict(weights)


def _read(path: str, agent: LimAgent) -> dict[str, Any]:
    """The state of the autoencoder in a checkpoint for the run of ``agent``, empty where it has none.

    Raises:
        LimaskError: the checkpoint was written by a run with another autoencoder or masker, or whose agent
            has another trunk or other sizes; the message names what differs.
    """
    config, device = agent.config, next(agent.parameters()).device
    file = os.path.join(path, "autoencoder.th")
    state: State = {}
    if os.path.exists(file):
        state = load(file, device)
        _check_options(path, _WRITTEN | state, config)
    elif autoencoder.REGISTRY[config.autoencoder.name] is not None:
        raise LimaskError(
            f"checkpoint {path} has no autoencoder.th: it was written by a run with "
            "lim.autoencoder.name=none; load it with lim.autoencoder.name=none lim.masker.name=none "
            "lim.autoencoder.weight=0"
        )
    _check_agent(path, read_weights(os.path.join(path, "agent.th"), device), agent)
    if os.path.exists(optimiser := os.path.join(path, "opt.th")):
        load(optimiser, "cpu")  # the host reads it when all else has been loaded
    return state


def _check_options(path: str, written: State, config: LimConfig) -> None:
    """Refuse what another autoencoder or masker wrote.

    The plain learner may take over agents that had an autoencoder beside them, but not inside them.
    """
    kind = autoencoder.REGISTRY.get(written["autoencoder"])
    was_beside = kind is not None and kind.place(written["use_inference"]) == "nowhere"
    if autoencoder.REGISTRY[config.autoencoder.name] is None and was_beside:
        return
    for key, name in _OPTIONS.items():
        if (value := written[key]) != (own := config.value(name)):
            raise LimaskError(
                f"checkpoint {path} was written with lim.{name}={value!r}, and this run has "
                f"lim.{name}={own!r}: give it the checkpoint's"
            )


def _check_mixer(path: str, mixer: torch.nn.Module | None) -> None:
    """Refuse the weights of another mixer.

    Raises:
        LimaskError: says what the checkpoint has, and what this run expects.
    """
    file = os.path.join(path, "mixer.th")
    if mixer is None:
        return
    if not os.path.exists(file):
        raise LimaskError(
            f"checkpoint {path} has no mixer.th: its agents learned without one, and this run has "
            f"{type(mixer).__name__}; give it the checkpoint's mixer"
        )
    written, own = read_weights(file, "cpu"), mixer.state_dict()
    wrong = sorted(name for name in own.keys() | written.keys() if _shape(written, name) != _shape(own, name))
    if wrong:
        raise LimaskError(
            f"checkpoint {path} holds {_shape(written, wrong[0])} for the mixer's {wrong[0]}, and this run "
            f"expects {_shape(own, wrong[0])} ({type(mixer).__name__}): give it the checkpoint's mixer and "
            "map"
        )


def _shape(weights: State, name: str) -> str:
    return f"a shape of {tuple(weights[name].shape)}" if name in weights else "nothing"


def _check_agent(path: str, written: State, agent: LimAgent) -> None:
    """Refuse the weights of an agent of another build."""
    own = agent.state_dict()
    differing = [name for name in own if name not in written or own[name].shape != written[name].shape]
    differing += [name for name in written if name not in own]
    if differing:
        name = differing[0]
        shapes = [_shape(written, name), _shape(own, name)]
        raise LimaskError(
            f"checkpoint {path} holds {shapes[0]} for the agent's {name}, and this run expects {shapes[1]} "
            f"(lim.trunk={agent.config.trunk!r}, hidden_dim={agent.spec.hidden_dim}, {agent.spec.n_agents} "
            f"agents): give it the checkpoint's trunk, autoencoder, sizes and map"
        )
