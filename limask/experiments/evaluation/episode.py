"""Battles of a trained run, and what its agents value and believe in them.

Axes: B battles, T time steps, N agents, A actions, O features of an observation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

from limask.envs import VECTOR_REGISTRY
from limask.errors import LimaskError
from limask.experiments import hosted
from limask.experiments.evaluation.perturb import Perturbation, PerturbedBattles, PerturbedSensors
from limask.experiments.evaluation.trained import Frozen
from limask.experiments.hosted import Statistics
from limask.hosts.base import Host
from limask.protocols import EpisodeBatch


class Episode(NamedTuple):
    """One episode of T time steps, the last of which no action follows.

    Attributes:
        batch: the host's, of what the agents got to see and chose.
        taken: (T, N) actions; a perturbation may have others taken than those that were chosen.
        result: whether the agents won, or their return where an environment knows no wins.
    """

    batch: EpisodeBatch
    taken: np.ndarray
    result: str


class Mind(NamedTuple):
    """What the agents make of an episode.

    Attributes:
        values: (T, N, A) of all actions, available or not.
        believed: (T, N, O) see ``Autoencoder.believed``; None where the agents infer no units.
    """

    values: torch.Tensor
    believed: torch.Tensor | None


class Stage:
    """Where a frozen team is tested: SMAX battles side by side, or one environment of its host's.

    Args:
        host: of the run.
        frozen: with ``batch_size_run`` as many side by side as ``side_by_side`` allows.
    """

    def __init__(self, host: Host, frozen: Frozen) -> None:
        self._host, self._frozen = host, frozen
        self._vector: Any = None
        if frozen.args.env in VECTOR_REGISTRY:  # compiled once for all perturbations
            self._vector = hosted.runner(host, "vector", frozen.args, frozen.shape, frozen.mac)
            self._battles = self._vector.test_env

    @contextmanager
    def runner(self, perturbation: Perturbation) -> Iterator[Any]:
        """The host's runner of tests in which something goes wrong, from the first episode on. Its logger is
        a ``Statistics``."""
        args, seed = self._frozen.args, self._frozen.args.env_args["seed"]
        if self._vector is not None:
            self._vector.test_env = PerturbedBattles(self._battles, perturbation, seed)
            self._vector.logger = Statistics()
            yield self._vector
            return
        runner = hosted.runner(self._host, "episode", args, self._frozen.shape, self._frozen.mac)
        runner.mac, runner.logger = PerturbedSensors(self._frozen.mac, perturbation, seed), Statistics()
        # Or the hosts log the first episode for itself, as the first of a training.
        runner.log_train_stats_t = runner.t_env
        try:
            yield runner
        finally:
            runner.close_env()


def side_by_side(env: str, most: int) -> int:
    """Battles that are fought at once in the environment that hosts call ``env``, where ``most`` may be."""
    return most if env in VECTOR_REGISTRY else 1


def play(host: Host, frozen: Frozen, perturbation: Perturbation, episodes: int) -> Iterator[Episode]:
    """Episodes one after the other, each as ``limask evaluate`` has it.

    Args:
        host: of the run.
        frozen: with ``batch_size_run=1`` and ``test_nepisode=1``.
        perturbation: what goes wrong.
        episodes: how many.
    """
    with Stage(host, frozen).runner(perturbation) as runner:
        for _ in range(episodes):
            runner.run(test_mode=True)
            batch = runner.batch[:, : int(runner.batch["filled"].sum())]
            taken = [perturbation.act(chosen[None]) for chosen in batch["actions"][0, :, :, 0].numpy()]
            yield Episode(batch, np.concatenate(taken), _result(runner.logger.last))


def _result(statistics: Mapping[str, float]) -> str:
    won = statistics.get("test_battle_won_mean")
    if won is None:
        return f"return {mean_return(statistics):.3g}"
    return "won" if won > 0 else "not won"


def mean_return(statistics: Mapping[str, float], what: str = "mean") -> float:
    """The mean return of a test, or its standard deviation (``what="std"``); the team's, where each agent has
    its own."""
    name = f"return_{what}"
    return statistics[f"test_total_{name}" if f"test_total_{name}" in statistics else f"test_{name}"]


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
