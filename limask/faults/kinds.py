"""The kinds of fault, after the table in docs/evaluation.md.

Axes: see ``faults.base``; ``lost`` (B, T, N, K) bool, True = the token is not seen.
"""

from __future__ import annotations

from abc import abstractmethod

import torch

from limask.errors import LimaskError
from limask.faults.base import Draws, Fault, Source
from limask.layouts import Layout, token_starts, tokens

#: Time steps that a sighting is gone for in ``burst``.
BURST = 5


class LostSightings(Fault):
    """Faults by which tokens of others are not seen, as if they were out of sight."""

    def check_layout(self) -> None:
        """See ``Fault.check_layout``."""
        if not any(group.is_hideable for group in self.layout.groups):
            raise LimaskError(f"layout {self.layout.name!r} has no tokens that can be lost from sight")

    @abstractmethod
    def lost(self, obs: torch.Tensor, draws: Draws, first: int) -> torch.Tensor:
        """Which tokens are lost, broadcastable to (B, T', N, K); see ``Fault.observe``."""

    def observe(self, obs: torch.Tensor, draws: Draws, first: int = 0) -> torch.Tensor:
        """See ``Fault.observe``."""
        is_lost = self.lost(obs, draws, first) & tokens.hideable(self.layout, obs.device)
        return tokens.hide(obs, is_lost.expand(*obs.shape[:-1], -1), self.layout)


class Dropout(LostSightings):
    """Each sighting of an ally or enemy is lost at each step, with probability p."""

    unit = "a probability p in [0, 1]: each sighting is lost at each step"

    def allows(self, severity: float) -> bool:
        """See ``Fault.allows``."""
        return 0 <= severity <= 1

    def numbers(self, source: Source, n_steps: int, severity: torch.Tensor) -> torch.Tensor:
        """See ``Fault.numbers``: (B, T, N, K)."""
        return source.uniform(n_steps, self.n_agents, self.layout.n_tokens)

    def lost(self, obs: torch.Tensor, draws: Draws, first: int) -> torch.Tensor:
        """See ``LostSightings.lost``."""
        return self.at(draws.numbers, obs, first) < draws.severity.view(-1, 1, 1, 1)


class Burst(LostSightings):
    """A sighting goes out for ``BURST`` steps; that begins with probability p / ``BURST`` at each step."""

    unit = f"a probability p in [0, 1]: a sighting goes out for {BURST} steps, with p / {BURST} a step"

    def allows(self, severity: float) -> bool:
        """See ``Fault.allows``."""
        return 0 <= severity <= 1

    def numbers(self, source: Source, n_steps: int, severity: torch.Tensor) -> torch.Tensor:
        """See ``Fault.numbers``: (B, T, N, K) smallest number of the last steps, drawn from before the
        episode on, so that its first step is as its others are."""
        drawn = source.uniform(n_steps + BURST - 1, self.n_agents, self.layout.n_tokens)
        return drawn.unfold(1, BURST, 1).amin(dim=-1)

    def lost(self, obs: torch.Tensor, draws: Draws, first: int) -> torch.Tensor:
        """See ``LostSightings.lost``."""
        return self.at(draws.numbers, obs, first) < draws.severity.view(-1, 1, 1, 1) / BURST


class Nearest(LostSightings):
    """The k nearest enemies in an agent's sight are never seen."""

    unit = "a whole number k of enemies, the nearest in sight of each agent"
    is_whole = True

    def check_layout(self) -> None:
        """See ``Fault.check_layout``."""
        _check_places(self.layout)

    def allows(self, severity: float) -> bool:
        """See ``Fault.allows``."""
        enemies = self.layout.group("enemy")
        return 0 <= severity <= (enemies.count if enemies else 0)

    def numbers(self, source: Source, n_steps: int, severity: torch.Tensor) -> torch.Tensor:
        """See ``Fault.numbers``: none."""
        return torch.empty_like(severity)

    def lost(self, obs: torch.Tensor, draws: Draws, first: int) -> torch.Tensor:
        """See ``LostSightings.lost``."""
        seen = tokens.split(obs, self.layout)["enemy"]
        away = distances(seen, self.layout, "enemy").masked_fill(~tokens.is_shown(seen), torch.inf)
        rank = away.argsort(dim=-1, stable=True).argsort(dim=-1, stable=True)
        is_lost = torch.zeros((*obs.shape[:-1], self.layout.n_tokens), dtype=torch.bool, device=obs.device)
        kinds = [group.kind for group in self.layout.groups]
        start = token_starts(self.layout)[kinds.index("enemy")]
        is_lost[..., start : start + rank.shape[-1]] = rank < draws.severity.view(-1, 1, 1, 1)
        return is_lost


class Blind(LostSightings):
    """n agents, drawn for each episode, see nobody else all episode."""

    unit = "a whole number of agents, at most {mates} and one more"
    is_whole = True

    def allows(self, severity: float) -> bool:
        """See ``Fault.allows``."""
        return 0 <= severity <= self.n_agents

    def numbers(self, source: Source, n_steps: int, severity: torch.Tensor) -> torch.Tensor:
        """See ``Fault.numbers``: (B, N) an order of the agents."""
        return source.uniform(self.n_agents).argsort(dim=1).argsort(dim=1)

    def lost(self, obs: torch.Tensor, draws: Draws, first: int) -> torch.Tensor:
        """See ``LostSightings.lost``."""
        return (draws.numbers < draws.severity.unsqueeze(1))[:, None, :, None]


class Sight(LostSightings):
    """Who stands farther away than the rest of the sight range is not seen.

    The environment's own sight range would also stretch the positions of all who are still seen, as SMAX
    gives positions in units of it.
    """

    unit = "the lost share of the sight range, at least 0 and below 1"

    def check_layout(self) -> None:
        """See ``Fault.check_layout``."""
        _check_places(self.layout)

    def allows(self, severity: float) -> bool:
        """See ``Fault.allows``."""
        return 0 <= severity < 1

    def numbers(self, source: Source, n_steps: int, severity: torch.Tensor) -> torch.Tensor:
        """See ``Fault.numbers``: none."""
        return torch.empty_like(severity)

    def lost(self, obs: torch.Tensor, draws: Draws, first: int) -> torch.Tensor:
        """See ``LostSightings.lost``; at the full range, where rounding could hide a unit, nothing is."""
        severity, parts = draws.severity.view(-1, 1, 1, 1), tokens.split(obs, self.layout)
        is_far = [
            distances(parts[group.kind], self.layout, group.kind) >= 1 - severity
            if group.is_hideable
            else torch.zeros(parts[group.kind].shape[:-1], dtype=torch.bool, device=obs.device)
            for group in self.layout.groups
        ]
        return torch.cat(is_far, dim=-1) & (severity > 0)


class Stale(Fault):
    """What an agent sees of others is k time steps old; in the first k steps it is that of the first."""

    unit = "a whole number k of time steps"
    is_whole = True

    @property
    def memory(self) -> int:
        """See ``Fault.memory``."""
        return int(self.severity.high)

    def allows(self, severity: float) -> bool:
        """See ``Fault.allows``."""
        return severity >= 0

    def numbers(self, source: Source, n_steps: int, severity: torch.Tensor) -> torch.Tensor:
        """See ``Fault.numbers``: none."""
        return torch.empty_like(severity)

    def observe(self, obs: torch.Tensor, draws: Draws, first: int = 0) -> torch.Tensor:
        """See ``Fault.observe``: the dead, who see nothing, go on seeing nothing."""
        steps = torch.arange(obs.shape[1], device=obs.device)
        then = (steps - draws.severity.long().to(obs.device).unsqueeze(1)).clamp(min=0)
        old = obs.gather(1, then[:, :, None, None].expand(obs.shape))
        is_other = tokens.features_of(tokens.hideable(self.layout, obs.device), self.layout, obs.dtype) > 0
        is_there = tokens.is_shown(obs).unsqueeze(-1)
        return torch.where(is_other & is_there, old, obs)


class Noise(Fault):
    """Gaussian noise of standard deviation σ on every feature of what is shown, clipped to the range of the
    observations where the layout tells it."""

    unit = "a standard deviation of 0 or more, in the observations' own unit"

    def allows(self, severity: float) -> bool:
        """See ``Fault.allows``."""
        return severity >= 0

    def numbers(self, source: Source, n_steps: int, severity: torch.Tensor) -> torch.Tensor:
        """See ``Fault.numbers``: (B, T, N, O)."""
        return source.normal(n_steps, self.n_agents, self.layout.obs_size)

    def observe(self, obs: torch.Tensor, draws: Draws, first: int = 0) -> torch.Tensor:
        """See ``Fault.observe``: what is not shown stays as it is."""
        noise = self.at(draws.numbers, obs, first) * draws.severity.view(-1, 1, 1, 1)
        shown = tokens.features_of(tokens.visibility(obs, self.layout), self.layout, obs.dtype)
        limit = self.layout.limit
        return torch.where(shown > 0, (obs + noise.to(obs.dtype)).clamp(-limit, limit), obs)


class Flipped(Fault):
    """An agent's whole observation is negated, with probability φ a step (MessySMAC, Phan et al., 2023)."""

    unit = "a probability φ in [0, 1]: an agent's whole observation is negated at a step"

    def allows(self, severity: float) -> bool:
        """See ``Fault.allows``."""
        return 0 <= severity <= 1

    def numbers(self, source: Source, n_steps: int, severity: torch.Tensor) -> torch.Tensor:
        """See ``Fault.numbers``: (B, T, N)."""
        return source.uniform(n_steps, self.n_agents)

    def observe(self, obs: torch.Tensor, draws: Draws, first: int = 0) -> torch.Tensor:
        """See ``Fault.observe``."""
        is_flipped = self.at(draws.numbers, obs, first) < draws.severity.view(-1, 1, 1)
        return torch.where(is_flipped.unsqueeze(-1), -obs, obs)


def distances(seen: torch.Tensor, layout: Layout, kind: str) -> torch.Tensor:
    """Distances (..., K) of tokens of a kind (..., K, D) from who sees them, in sight ranges."""
    group = layout.group(kind)
    assert group is not None  # _check_places
    x, y = (seen[..., group.features.index(name)] for name in _place(layout))
    return torch.hypot(x, y)


def _place(layout: Layout) -> tuple[str, str]:
    """Features with a unit's position relative to who sees it, in sight ranges."""
    return ("relative_x", "relative_y") if layout.frame is None else layout.frame.place


def _check_places(layout: Layout) -> None:
    enemies = layout.group("enemy")
    if enemies is None or not set(_place(layout)) <= set(enemies.features):
        raise LimaskError(
            f"layout {layout.name!r} does not say how far away a token's unit is, or has no enemies"
        )
