"""The battles of ``limask watch``: frozen agents in their host, and what one of them makes of each step.

Axes: T time steps, N agents, U units (the agents and then the enemies).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from limask.envs.smax_battle import MOVES, map_size
from limask.errors import LimaskError
from limask.experiments import hosted
from limask.experiments.evaluation.battles import perturbations
from limask.experiments.evaluation.episode import Episode, load_learner, play, think
from limask.experiments.evaluation.look import hides_tokens, inspected
from limask.experiments.evaluation.runs import TrainedRun
from limask.experiments.evaluation.trained import Frozen, freeze
from limask.experiments.evaluation.watch_film import Film, Scene
from limask.layouts import smax_layout
from limask.layouts.places import Places, Units


class Filming:
    """Films of ``runs`` in the host ``where``; see ``watch`` for the other arguments.

    Raises:
        LimaskError: there is no such agent, a severity is out of range, or a checkpoint is damaged.
    """

    def __init__(
        self,
        where: str,
        runs: Sequence[TrainedRun],
        *,
        agent: int,
        perturb: str | None,
        severities: Sequence[float],
        episodes: int,
        seed: int,
    ) -> None:
        self._host, self._agent, self._episodes, self._seed = hosted.load_host(where), agent, episodes, seed
        overrides = {"batch_size_run": 1, "test_nepisode": 1, "env_args": {"seed": seed}}
        policies = [freeze(self._host, run, None, **overrides) for run in runs]
        shape = policies[0].shape
        if agent > shape.n_agents:
            raise LimaskError(f"--agent={agent}: expected 1 to {shape.n_agents} on {shape.name}")
        self._size = map_size(shape.name)
        self._plans = []
        for policy in policies:
            places = Places(smax_layout(policy.args.env_args), shape.n_agents, self._size)
            (perturbation,) = perturbations(perturb, severities, policy)
            self._plans.append((policy, places, perturbation))
            if hides_tokens(policy.run):
                load_learner(policy)
        self._going_wrong = " ".join(
            [perturb, *(f"{severity:g}" for severity in severities)] if perturb else []
        )

    def films(self) -> Iterator[Film]:
        """Fight; one film for each battle, as they are over."""
        played = [play(self._host, policy, wrong, self._episodes) for policy, _, wrong in self._plans]
        for e, battles in enumerate(zip(*played, strict=True)):
            scenes = [
                scene(policy, places, episode, self._agent - 1)
                for (policy, places, _), episode in zip(self._plans, battles, strict=True)
            ]
            yield Film(scenes, self._agent, self._size, self._seed + e, self._going_wrong)


def scene(policy: Frozen, places: Places, episode: Episode, agent: int) -> Scene:
    """An episode as it is drawn, with what agent ``agent`` (from 0) makes of it."""
    batch, mind = episode.batch, think(policy, episode.batch)
    state, obs = batch["state"][0], batch["obs"][0]
    truth, seen = places.truth(state), _of_agent(places.seen(obs, state), agent)
    believed = None
    if mind.believed is not None:
        believed = _of_agent(places.seen(mind.believed, state), agent)
        believed = believed._replace(is_there=believed.is_there & ~seen.is_there)
    first_attack = len(MOVES)
    is_attack = episode.taken >= first_attack
    targets = torch.from_numpy(episode.taken) - first_attack + policy.shape.n_agents
    return Scene(
        policy.run,
        episode.result,
        truth,
        seen,
        believed,
        places.sights(state)[:, agent],
        targets.masked_fill(~torch.from_numpy(is_attack), -1),
        mind.values[:, agent],
        batch["avail_actions"][0, :, agent] > 0,
        torch.from_numpy(episode.taken)[:, agent],
        inspected(policy, episode) if hides_tokens(policy.run) else None,
    )


def _of_agent(units: Units, agent: int) -> Units:
    """Units (T, N, U) as everybody has them → (T, U) as one agent does."""
    return Units(*(values[:, agent] for values in units))
