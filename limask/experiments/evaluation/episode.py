"""Battles of a trained run, and what its agents value and believe in them.

Axes: B battles, T time steps, N agents, A actions, O features of an observation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from limask.errors import LimaskError
from limask.experiments import hosted
from limask.experiments.evaluation.perturb import Perturbation, PerturbedBattles
from limask.experiments.evaluation.trained import Frozen
from limask.experiments.hosted import Statistics
from limask.hosts.base import Host
from limask.protocols import EpisodeBatch


class Episode(NamedTuple):
    """One battle of T time steps, the last of which no action follows.

    Attributes:
        batch: the host's, of what the agents got to see and chose.
        taken: (T, N) actions; a perturbation may have others taken than those that were chosen.
        is_won: whether the agents won.
    """

    batch: EpisodeBatch
    taken: np.ndarray
    is_won: bool


class Mind(NamedTuple):
    """What the agents make of an episode.

    Attributes:
        values: (T, N, A) of all actions, available or not.
        believed: (T, N, O) see ``Autoencoder.believed``; None where the agents infer no units.
    """

    values: torch.Tensor
    believed: torch.Tensor | None


def play(host: Host, frozen: Frozen, perturbation: Perturbation, episodes: int) -> Iterator[Episode]:
    """Battles one after the other, each as ``limask evaluate`` has it: battle e is seeded by ``seed + e``.

    Args:
        host: of the run.
        frozen: with ``batch_size_run=1`` and ``test_nepisode=1``.
        perturbation: what goes wrong.
        episodes: how many.
    """
    runner = hosted.runner(host, "vector", frozen.args, frozen.shape, frozen.mac)
    runner.test_env = PerturbedBattles(runner.test_env, perturbation, frozen.args.env_args["seed"])
    runner.logger = Statistics()
    for _ in range(episodes):
        runner.run(test_mode=True)
        batch = runner.batch[:, : int(runner.batch["filled"].sum())]
        taken = [perturbation.act(chosen[None]) for chosen in batch["actions"][0, :, :, 0].numpy()]
        yield Episode(batch, np.concatenate(taken), runner.logger.last["test_battle_won_mean"] > 0)


def load_learner(frozen: Frozen) -> None:
    """Mixer, masker and decoder from the checkpoint; ``freeze`` has loaded the agents.

    Raises:
        LimaskError: the checkpoint is damaged.
    """
    path = frozen.run.checkpoint
    try:
        frozen.learner.load_models(str(path))
    except LimaskError:
        raise
    except Exception as error:  # torch raises whatever its reader does on a damaged file
        raise LimaskError(f"{path} is damaged ({error}): choose another run") from error


@torch.no_grad()
def think(frozen: Frozen, batch: EpisodeBatch) -> Mind:
    """What the agents made of one episode, step by step as when they acted."""
    values, believed = [], []
    frozen.mac.init_hidden(1)
    for t in range(batch.max_seq_length):
        values.append(frozen.mac.forward(batch, t, test_mode=True)[0])
        belief = believe(frozen, batch["obs"][:, t])
        if belief is not None:
            believed.append(belief[0])
    return Mind(torch.stack(values), torch.stack(believed) if believed else None)


@torch.no_grad()
def believe(frozen: Frozen, obs: torch.Tensor) -> torch.Tensor | None:
    """What agents believe that have just valued their actions on observations (B, N, O): see
    ``Autoencoder.believed``; (B, N, O), or None where they infer no units."""
    autoencoder = getattr(frozen.mac.agent, "autoencoder", None)
    if autoencoder is None and (trainer := getattr(frozen.learner, "reconstruction", None)) is not None:
        autoencoder = trainer.autoencoder
    if autoencoder is None:
        return None
    hidden = frozen.mac.hidden_states.reshape(-1, frozen.mac.hidden_states.shape[-1])
    believed: torch.Tensor | None = autoencoder.believed(hidden, obs.flatten(0, 1))
    return None if believed is None else believed.view_as(obs)
