"""From random masks to informed ones."""

from __future__ import annotations

from collections.abc import Callable

import torch

from limask.config import LimConfig
from limask.layouts import Layout
from limask.masking.agents import AgentMasker
from limask.masking.base import Masker, MaskView, Signal
from limask.protocols import State

_Choice = Callable[[MaskView, torch.Generator], torch.Tensor]


def random_share(config: LimConfig, t_env: int) -> float:
    """Share of the episodes that are masked at random after ``t_env`` environment steps.

    1 until ``random_until``, for the learner's signals mean little before the values do; then it falls in a
    straight line, over ``random_anneal`` steps, to ``random_finish``, which keeps every token covered.
    """
    passed = max(0, t_env - config.masker.random_until)
    done = (
        min(1.0, passed / config.masker.random_anneal) if config.masker.random_anneal else float(passed > 0)
    )
    return 1.0 - (1.0 - config.masker.random_finish) * done


class Mixture(Masker):
    """Masks each episode by ``random`` with the chance ``random_share``, and else by ``informed``."""

    def __init__(self, config: LimConfig, layout: Layout, informed: Masker, random: Masker) -> None:
        super().__init__(config, layout)
        self.informed, self.random = informed, random

    def needs(self, t_env: int) -> frozenset[Signal]:
        """See ``Masker.needs``: nothing while all masks are random."""
        return self.informed.signals if random_share(self.config, t_env) < 1 else frozenset()

    def propose(self, view: MaskView, generator: torch.Generator) -> torch.Tensor:
        """See ``Masker.propose``."""
        return self._mixed(self.random.propose, self.informed.propose, view, generator)

    def _mixed(
        self, random: _Choice, informed: _Choice, view: MaskView, generator: torch.Generator
    ) -> torch.Tensor:
        at_random = random(view, generator)
        share = random_share(self.config, view.t_env)
        n_episodes = view.is_visible.shape[0]
        shape = (n_episodes, *(1 for _ in at_random.shape[1:]))
        chance = torch.rand(shape, generator=generator, device=generator.device)
        if share >= 1:
            return at_random
        return torch.where(chance >= share, informed(view, generator), at_random)

    def learn(self, is_hidden: torch.Tensor, error: torch.Tensor) -> None:
        """See ``Masker.learn``; an informed masker also learns from what was hidden at random."""
        self.informed.learn(is_hidden, error)

    def state_dict(self) -> State:
        """See ``Masker.state_dict``."""
        return self.informed.state_dict()

    def load_state_dict(self, state: State) -> None:
        """See ``Masker.load_state_dict``."""
        self.informed.load_state_dict(state)


class AgentMixture(Mixture, AgentMasker):
    """``Mixture`` of two maskers that hide whole agents."""

    informed: AgentMasker
    random: AgentMasker

    def agents(self, view: MaskView, generator: torch.Generator) -> torch.Tensor:
        """See ``AgentMasker.agents``."""
        return self._mixed(self.random.agents, self.informed.agents, view, generator)
