"""Hiding whole agents: by which of them the learner's TD errors say are hard to value.

The rule of LI-MA²E (TD-error-informed masking on top of MA²E, Kang et al., ICLR 2025) and the four scores it
was compared with. QMIX does not train an agent's value towards a target of its own, so an agent's TD error is
a heuristic; ``lim.masker.credit`` chooses between two of them.
"""

from __future__ import annotations

from abc import abstractmethod

import torch

from limask.layouts import Layout, token_starts, tokens
from limask.masking.base import Masker, MaskView
from limask.protocols import State

#: Agents hidden where none stands out.
TOP_K = 2

#: Share of the running average that ``td_ema`` keeps at each update.
DECAY = 0.9

#: Last transitions of an episode that ``td_recent`` looks at.
RECENT_STEPS = 5


def tokens_of_agents(is_agent_hidden: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Tokens that show hidden agents (B, N; True = hidden) to their teammates: (B, 1, N, K) bool."""
    n_episodes, n_agents = is_agent_hidden.shape
    shape = (n_episodes, 1, n_agents, layout.n_tokens)
    is_hidden = torch.zeros(shape, dtype=torch.bool, device=is_agent_hidden.device)
    first = dict(zip((g.kind for g in layout.groups), token_starts(layout), strict=True)).get("ally", 0)
    slots = tokens.teammate_slots(n_agents, is_agent_hidden.device)
    is_hidden[:, 0, :, first : first + n_agents - 1] = is_agent_hidden[:, slots]
    return is_hidden


class AgentMasker(Masker):
    """Hides whole agents: what shows them to their teammates, or in autoencoder ``team`` themselves."""

    hides = "agents"
    needs_teammates = True

    @abstractmethod
    def agents(self, view: MaskView, generator: torch.Generator) -> torch.Tensor:
        """Agents to hide, (B, N) bool or (1, N) for all episodes; True = hide, and never all of a team.

        Args: see ``Masker.propose``.
        """

    def propose(self, view: MaskView, generator: torch.Generator) -> torch.Tensor:
        """See ``Masker.propose``."""
        if view.is_visible.shape[2] < 2:
            return torch.zeros_like(view.is_visible)
        return tokens_of_agents(self.agents(view, generator), self.layout)


class TdAgentMasker(AgentMasker):
    """Hides, in all episodes, the agents whose score is above the mean of all agents' scores; where none is,
    the ``TOP_K`` of highest score (chosen at random among equals), but never all."""

    signals = frozenset({"td_error"})
    is_informed = True

    def agents(self, view: MaskView, generator: torch.Generator) -> torch.Tensor:
        """See ``AgentMasker.agents``."""
        assert view.td_error is not None
        n_agents = view.is_visible.shape[2]
        # A transition starts from every step but an episode's last.
        is_step = torch.zeros_like(view.is_filled)
        is_step[:, :-1] = view.is_filled[:, 1:]
        scores = self.scores(view, view.td_error, is_step.unsqueeze(-1))
        is_agent_hidden = scores > scores.mean()
        if not bool(is_agent_hidden.any()):
            order = torch.rand(n_agents, generator=generator, device=scores.device).argsort()
            ranked = order[scores[order].argsort(descending=True, stable=True)]
            is_agent_hidden[ranked[: min(TOP_K, n_agents - 1)]] = True
        return is_agent_hidden.unsqueeze(0)

    @abstractmethod
    def scores(self, view: MaskView, td_error: torch.Tensor, is_step: torch.Tensor) -> torch.Tensor:
        """Score of each agent, (N,), from TD errors (B, T, N) at the steps in ``is_step`` (B, T, 1) bool."""


class TdThresholdMasker(TdAgentMasker):
    """Score: the agent's mean TD error."""

    def scores(self, view: MaskView, td_error: torch.Tensor, is_step: torch.Tensor) -> torch.Tensor:
        """See ``TdAgentMasker.scores``."""
        return _mean(td_error, is_step, (0, 1))


class TdEmaMasker(TdAgentMasker):
    """Score: an exponential moving average, over updates, of the agent's mean TD error."""

    average: torch.Tensor | None = None

    def scores(self, view: MaskView, td_error: torch.Tensor, is_step: torch.Tensor) -> torch.Tensor:
        """See ``TdAgentMasker.scores``."""
        mean = _mean(td_error, is_step, (0, 1))
        self.average = mean if self.average is None else torch.lerp(mean, self.average.to(mean.device), DECAY)
        return self.average

    def state_dict(self) -> State:
        """See ``Masker.state_dict``."""
        return {"average": self.average}

    def load_state_dict(self, state: State) -> None:
        """See ``Masker.load_state_dict``."""
        self.average = state["average"]


class TdVarianceMasker(TdAgentMasker):
    """Score: the variance of the agent's TD error within an episode, averaged over episodes."""

    def scores(self, view: MaskView, td_error: torch.Tensor, is_step: torch.Tensor) -> torch.Tensor:
        """See ``TdAgentMasker.scores``."""
        mean = _mean(td_error, is_step, (1,)).unsqueeze(1)
        return _mean((td_error - mean).square(), is_step, (1,)).mean(dim=0)


class TdRecentMasker(TdAgentMasker):
    """Score: the agent's mean TD error over the last transitions of each episode."""

    def scores(self, view: MaskView, td_error: torch.Tensor, is_step: torch.Tensor) -> torch.Tensor:
        """See ``TdAgentMasker.scores``."""
        still_to_come = is_step.flip(1).cumsum(dim=1).flip(1)
        return _mean(td_error, is_step & (still_to_come <= RECENT_STEPS), (0, 1))


class TdObservationMasker(TdAgentMasker):
    """Score: mean of the agent's TD error times the share of its tokens that are visible."""

    def scores(self, view: MaskView, td_error: torch.Tensor, is_step: torch.Tensor) -> torch.Tensor:
        """See ``TdAgentMasker.scores``."""
        return _mean(td_error * view.is_visible.float().mean(dim=-1), is_step, (0, 1))


def _mean(values: torch.Tensor, is_step: torch.Tensor, over: tuple[int, ...]) -> torch.Tensor:
    """Mean of ``values`` (B, T, N) over the steps in ``is_step`` (B, T, 1); 0 where there is none."""
    return (values * is_step).sum(dim=over) / is_step.sum(dim=over).clamp(min=1)
