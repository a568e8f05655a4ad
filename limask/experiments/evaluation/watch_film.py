"""What ``limask watch`` shows: battles as one agent lives through them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from limask.experiments.evaluation.inspection_output import Inspection
from limask.experiments.evaluation.runs import TrainedRun

if TYPE_CHECKING:
    import torch

    from limask.layouts.places import Units

#: Map units around the units at their farthest, and the least that is shown of the map.
_MARGIN, _LEAST = 2.0, 14.0

#: Sight ranges that are shown around an agent.
_ROOM = 1.2


class Scene(NamedTuple):
    """A run's battle of T time steps, the last of which no action follows, and what one agent makes of it.

    Attributes:
        run: whose agents fight.
        result: see ``Episode``.
        truth: (T, U) all units; None where the truth is not known, and all is drawn around the agent.
        seen: (T, U) as the agent sees them, itself among them while it is there.
        believed: (T, U) those that it does not see, as it takes them to be; None where it infers none.
        sight: (T,) its sight range, in the units of places.
        n_agents: N; the first units are the agents.
        targets: (T, N) units that the agents shoot at, -1 = none; None where that is not known.
        actions: names of the A actions of the agent.
        values: (T, A) the agent's, of its actions.
        is_available: (T, A) bool.
        taken: (T,) its action.
        masks: what the masker hides; None where nothing is hidden.
    """

    run: TrainedRun
    result: str
    truth: Units | None
    seen: Units
    believed: Units | None
    sight: torch.Tensor
    n_agents: int
    targets: torch.Tensor | None
    actions: Sequence[str]
    values: torch.Tensor
    is_available: torch.Tensor
    taken: torch.Tensor
    masks: Inspection | None

    @property
    def n_steps(self) -> int:
        """T."""
        return len(self.sight)


class Film(NamedTuple):
    """The same battle of one run, or of two side by side.

    ``agent`` (from 1) is whose view is drawn, ``map_size`` in map units or None where only what is around it
    is known, ``going_wrong`` the perturbation, ``others`` what units are called that are no agents;
    ``is_grid`` says that it sees a square of cells.
    """

    scenes: Sequence[Scene]
    agent: int
    map_size: float | None
    seed: int
    going_wrong: str
    others: str = "enemy"
    is_grid: bool = False


class Box(NamedTuple):
    """The part of the map that is drawn, in map units."""

    left: float
    bottom: float
    width: float
    height: float


def summary(film: Film) -> list[str]:
    """Lines on how a battle went."""
    return [
        f"{scene.run.name}, step {scene.run.steps:,}: battle of seed {film.seed}"
        f"{f' with {film.going_wrong}' if film.going_wrong else ''}, {scene.result} "
        f"after {scene.n_steps - 1} steps"
        for scene in film.scenes
    ]


def box_of(film: Film) -> Box:
    """Where units have been in any of the scenes, and some room around: at most twice as wide as high, at
    most as high as wide. Where only what is around the agent is known, that."""
    truths = [scene.truth for scene in film.scenes if scene.truth is not None]
    if not truths:
        reach = _ROOM * max(float(scene.sight.max()) for scene in film.scenes)
        return Box(-reach, -reach, 2 * reach, 2 * reach)
    places = np.concatenate([truth.place[truth.is_there].numpy() for truth in truths])
    low, high = places.min(axis=0) - _MARGIN, places.max(axis=0) + _MARGIN
    middle, size = (low + high) / 2, np.maximum(high - low, (_LEAST, _LEAST / 2))
    width = max(size)
    height = min(width, max(size[1], width / 2))
    left, bottom = middle - np.array([width, height]) / 2
    return Box(*(round(float(value), 3) for value in (left, bottom, width, height)))
