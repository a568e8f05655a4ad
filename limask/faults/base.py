"""What a fault of the agents' sensors is: only what they observe changes, never the battle.

Random numbers of whole episodes are drawn at once, from a source of their own, so that a fault more or less
changes no other number; a higher severity is more of the same draws.

Axes: B episodes, T time steps, N agents, K tokens of an observation, O its features.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import torch

from limask.errors import LimaskError
from limask.layouts import Layout


class Source(Protocol):
    """Random numbers for B episodes."""

    def uniform(self, *shape: int) -> torch.Tensor:
        """(B, …) in [0, 1)."""

    def normal(self, *shape: int) -> torch.Tensor:
        """(B, …) of standard normal distribution."""


class EpisodeSource:
    """A generator for each episode: its numbers do not depend on those beside it."""

    def __init__(self, generators: Sequence[np.random.Generator]) -> None:
        self.generators = generators

    def uniform(self, *shape: int) -> torch.Tensor:
        """See ``Source.uniform``."""
        return torch.from_numpy(np.stack([each.random(shape, np.float32) for each in self.generators]))

    def normal(self, *shape: int) -> torch.Tensor:
        """See ``Source.normal``."""
        drawn = [each.standard_normal(shape, np.float32) for each in self.generators]
        return torch.from_numpy(np.stack(drawn))


class BatchSource:
    """One generator for all ``n_episodes``, on its device."""

    def __init__(self, generator: torch.Generator, n_episodes: int) -> None:
        self.generator, self.n_episodes = generator, n_episodes

    def uniform(self, *shape: int) -> torch.Tensor:
        """See ``Source.uniform``."""
        size, device = (self.n_episodes, *shape), self.generator.device
        return torch.rand(size, generator=self.generator, device=device)

    def normal(self, *shape: int) -> torch.Tensor:
        """See ``Source.normal``."""
        size, device = (self.n_episodes, *shape), self.generator.device
        return torch.randn(size, generator=self.generator, device=device)


class Severity(NamedTuple):
    """How strong a fault is: a number, or a range of which each episode draws its own."""

    low: float
    high: float


class Draws(NamedTuple):
    """What is drawn for whole episodes: the ``severity`` (B,) of each, and ``numbers`` (B, …), whatever the
    fault makes of them."""

    severity: torch.Tensor
    numbers: torch.Tensor


class Fault(ABC):
    """A kind of fault.

    Args:
        severity: 0 is nothing.
        layout: of the observations.
        n_agents: N.

    Raises:
        LimaskError: ``severity`` is out of range, or the layout does not tell what the fault has to know.

    Attributes:
        unit: what a severity is, with its range, for a team of ``mates`` and one more.
        is_whole: whether a severity is a whole number.
    """

    unit: ClassVar[str]
    is_whole: ClassVar[bool] = False

    def __init__(self, severity: Severity, layout: Layout, n_agents: int) -> None:
        self.severity, self.layout, self.n_agents = severity, layout, n_agents
        self.check_layout()
        for end in severity:
            if not math.isfinite(end) or not self.allows(end) or (self.is_whole and end != int(end)):
                raise LimaskError(f"{end:g}: expected {self.unit.format(mates=n_agents - 1)}")
        if severity.low > severity.high:
            raise LimaskError(f"[{severity.low:g}, {severity.high:g}]: expected a range from low to high")

    @property
    def memory(self) -> int:
        """Time steps before the present one that ``observe`` looks at."""
        return 0

    def check_layout(self) -> None:  # noqa: B027 - most work on every layout
        """Refuse a layout that does not tell what the fault has to know.

        Raises:
            LimaskError: names what is missing.
        """

    @abstractmethod
    def allows(self, severity: float) -> bool:
        """Whether a severity is in range."""

    @abstractmethod
    def numbers(self, source: Source, n_steps: int, severity: torch.Tensor) -> torch.Tensor:
        """Random numbers of whole episodes of T = ``n_steps``, (B, …), for severities (B,)."""

    @abstractmethod
    def observe(self, obs: torch.Tensor, draws: Draws, first: int = 0) -> torch.Tensor:
        """What the agents get of what they would see.

        Args:
            obs: (B, T', N, O) of the steps from ``first`` on.
            draws: of whole episodes.
            first: time step of the first of them.

        Returns:
            (B, T', N, O).
        """

    def draw(self, source: Source, n_steps: int) -> Draws:
        """Draw what happens in episodes of at most ``n_steps`` time steps."""
        chosen = source.uniform()
        low, high = self.severity
        if self.is_whole:
            severity = (low + (chosen * (high - low + 1)).floor()).clamp(max=high)
        else:
            severity = low + chosen * (high - low)
        return Draws(severity, self.numbers(source, n_steps, severity))

    @staticmethod
    def at(values: torch.Tensor, obs: torch.Tensor, first: int) -> torch.Tensor:
        """Of values of whole episodes (B, T, …) those of the steps of ``obs`` (B, T', …)."""
        return values[:, first : first + obs.shape[1]]
