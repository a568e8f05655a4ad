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
from limask.layouts import Layout, lbf_sight
from limask.layouts.places import Around, Places, Units

#: Actions that aim at nobody, by layout.
_MOVES = {
    "smax": MOVES,
    **dict.fromkeys(("smac", "smacv2", "smaclite"), ("no-op", "stop", "north", "south", "east", "west")),
    "lbf": ("none", "north", "south", "west", "east", "load"),
}


class Filming:
    """Films of ``runs`` in the host ``where``; see ``watch`` for the other arguments.

    Raises:
        LimaskError: there is no such agent, a severity is out of range, nothing is known of where units
            stand, or a checkpoint is damaged.
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
        self._layout = policies[0].layout
        self._size = map_size(shape.name) if shape.env == "smax" else None
        self._plans = []
        for policy in policies:
            places = _places(policy, self._size)
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
            others = next(kind for kind in ("food", "enemy") if self._layout.group(kind))
            yield Film(
                scenes,
                self._agent,
                self._size,
                self._seed + e,
                self._going_wrong,
                others,
                is_grid=self._layout.name == "lbf",
            )


def _places(policy: Frozen, size: float | None) -> Places | Around:
    layout, n_agents = policy.layout, policy.shape.n_agents
    if size is not None:
        return Places(layout, n_agents, size)
    # A player sees the whole of the cells at the end of its sight.
    reach = lbf_sight(policy.args.env_args) + 0.5 if layout.name == "lbf" else 1.0
    return Around(layout, n_agents, reach)


def _action_names(layout: Layout, n_actions: int, agent: int) -> list[str]:
    moves = _MOVES[layout.name]
    verb = "heal" if agent in layout.healers else "attack"
    return [*moves, *(f"{verb} {k + 1}" for k in range(n_actions - len(moves)))]


def scene(policy: Frozen, places: Places | Around, episode: Episode, agent: int) -> Scene:
    """An episode as it is drawn, with what agent ``agent`` (from 0) makes of it."""
    batch, mind = episode.batch, think(policy, episode.batch)
    state, obs = batch["state"][0], batch["obs"][0]
    truth, seen = places.truth(state), _of_agent(places.seen(obs, state), agent)
    believed = None
    if mind.believed is not None:
        believed = _of_agent(places.seen(mind.believed, state), agent)
        believed = believed._replace(is_there=believed.is_there & ~seen.is_there)
    first_attack, n_agents = len(MOVES), policy.shape.n_agents
    targets = None
    if truth is not None:
        taken = torch.from_numpy(episode.taken)
        targets = (taken - first_attack + n_agents).masked_fill(taken < first_attack, -1)
    return Scene(
        policy.run,
        episode.result,
        truth,
        seen,
        believed,
        places.sights(state)[:, agent],
        n_agents,
        targets,
        _action_names(policy.layout, policy.shape.n_actions, agent),
        mind.values[:, agent],
        batch["avail_actions"][0, :, agent] > 0,
        torch.from_numpy(episode.taken)[:, agent],
        inspected(policy, episode) if hides_tokens(policy.run) else None,
    )


def _of_agent(units: Units, agent: int) -> Units:
    """Units (T, N, U) as everybody has them → (T, U) as one agent does."""
    return Units(*(values[:, agent] for values in units))
