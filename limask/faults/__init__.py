"""Faults of the agents' sensors: one name for one thing in training and in tests.

Axes: B episodes, T time steps, N agents, O features of an observation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from limask.errors import LimaskError, nearest
from limask.faults.base import BatchSource, Draws, EpisodeSource, Fault, Severity, Source
from limask.faults.kinds import Blind, Burst, Dropout, Flipped, Nearest, Noise, Sight, Stale
from limask.layouts import Layout

#: Kind of fault by its name.
REGISTRY: dict[str, type[Fault]] = {
    "dropout": Dropout,
    "burst": Burst,
    "nearest": Nearest,
    "blind": Blind,
    "stale": Stale,
    "noise": Noise,
    "flipped": Flipped,
    "sight": Sight,
}


class Faults:
    """One of several kinds of fault in each episode, drawn anew.

    Args:
        kinds: at least one.
    """

    def __init__(self, kinds: Sequence[Fault]) -> None:
        self.kinds = list(kinds)

    def check_length(self, n_steps: int, where: str) -> None:
        """Refuse what lies before any episode of ``n_steps`` time steps; ``where`` is the option's name.

        Raises:
            LimaskError: names the kind.
        """
        for name, kind in REGISTRY.items():
            memory = max((each.memory for each in self.kinds if isinstance(each, kind)), default=0)
            if memory >= n_steps:
                raise LimaskError(
                    f"{where}.{name}={memory}: an episode has at most {n_steps} steps, and {memory} steps "
                    "ago is before any"
                )

    def draw(self, source: Source, n_steps: int) -> FaultyEpisodes:
        """What happens in the episodes of ``source``, of at most ``n_steps`` time steps."""
        # Each kind draws, whichever is chosen: the numbers of one do not depend on the others' severities.
        chosen = (source.uniform() * len(self.kinds)).long()
        return FaultyEpisodes(self.kinds, chosen, [kind.draw(source, n_steps) for kind in self.kinds])


class FaultyEpisodes:
    """B episodes with what goes wrong in them; ``chosen`` (B,) is the kind of each."""

    def __init__(self, kinds: Sequence[Fault], chosen: torch.Tensor, draws: Sequence[Draws]) -> None:
        self.kinds, self.chosen, self.draws = kinds, chosen, draws
        self._n_seen, self._last = 0, torch.empty(0)

    def observe(self, obs: torch.Tensor, first: int = 0) -> torch.Tensor:
        """Observations (B, T', N, O) of the steps from ``first`` on → what the agents get of them."""
        seen = obs
        for i, (kind, draws) in enumerate(zip(self.kinds, self.draws, strict=True)):
            is_chosen = (self.chosen == i).view(-1, 1, 1, 1)
            seen = torch.where(is_chosen, kind.observe(obs, draws, first), seen)
        return seen

    def observe_next(self, obs: torch.Tensor) -> torch.Tensor:
        """The same of one step after the other: (B, N, O) → (B, N, O)."""
        memory = max(kind.memory for kind in self.kinds)
        obs = obs.unsqueeze(1)
        window = obs if self._n_seen == 0 else torch.cat([self._last, obs], dim=1)
        self._last = window[:, -memory:] if memory else window[:, :0]
        first, self._n_seen = self._n_seen + 1 - window.shape[1], self._n_seen + 1
        return self.observe(window, first)[:, -1]


def read_faults(block: object, layout: Layout, n_agents: int, where: str) -> Faults | None:
    """Read which faults there are, as ``{dropout: [0, 0.8], nearest: [1, 3]}``; None for an empty block.

    Args:
        block: severities by kind, each a number or a range of which every episode draws its own.
        layout: of the observations.
        n_agents: N.
        where: the option's name, for messages.

    Raises:
        LimaskError: no such kind, a severity that is none or out of range, or a layout that does not tell
            what a kind has to know.
    """
    if not isinstance(block, Mapping):
        raise LimaskError(f"{where}={block!r}: expected severities by kind, as {{dropout: [0, 0.8]}}")
    kinds = []
    for name, given in block.items():
        if name not in REGISTRY:
            known = ", ".join(REGISTRY)
            raise LimaskError(f"{where}.{name} is no fault{nearest(name, REGISTRY)} (known: {known})")
        try:
            kinds.append(REGISTRY[name](_severity(given), layout, n_agents))
        except LimaskError as error:
            raise LimaskError(f"{where}.{name}={given!r}: {error}") from error
    return Faults(kinds) if kinds else None


def _severity(given: object) -> Severity:
    ends = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given, given]
    numbers = [end for end in ends if isinstance(end, (int, float)) and not isinstance(end, bool)]
    if len(ends) != 2 or len(numbers) != 2:
        raise LimaskError("expected a number, or a range [low, high]")
    return Severity(*map(float, numbers))


__all__ = [
    "REGISTRY",
    "BatchSource",
    "EpisodeSource",
    "Fault",
    "Faults",
    "FaultyEpisodes",
    "Severity",
    "Source",
    "read_faults",
]
