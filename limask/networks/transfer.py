"""Weights of agents that were trained in one team, as agents of another team take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import nn

from limask.layouts import Layout


class Team(NamedTuple):
    """Agents of a team, and of how many tokens of each kind they observe."""

    n_agents: int
    counts: Mapping[str, int]

    @classmethod
    def of(cls, n_agents: int, layout: Layout) -> Team:
        """The team that observes by ``layout``."""
        return cls(n_agents, {group.kind: group.count for group in layout.groups})


@runtime_checkable
class SizeFree(Protocol):
    """A module whose weights mean the same in teams of all sizes."""

    def fitted(self, weights: Mapping[str, torch.Tensor], before: Team) -> dict[str, torch.Tensor]:
        """Those of its weights that depend on the team's size, by name, as it takes them.

        ``weights`` are all that it had where it was trained, in the team ``before``.
        """


def fitted(weights: Mapping[str, torch.Tensor], module: nn.Module, before: Team) -> dict[str, torch.Tensor]:
    """The weights of a ``module`` of the same build that was trained in the team ``before``, for this one."""
    fitting = dict(weights)
    for name, part in module.named_modules():
        if not isinstance(part, SizeFree):
            continue
        names = module.get_submodule(name).state_dict().keys()
        prefix = f"{name}." if name else ""
        own = {key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)}
        if own.keys() == names:
            fitting |= {prefix + key: value for key, value in part.fitted(own, before).items()}
    return fitting
