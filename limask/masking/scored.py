"""Hiding tokens by a score: the higher it is, the more often the token is hidden."""

from __future__ import annotations

from abc import abstractmethod

import torch

from limask.layouts import Layout, tokens
from limask.masking.base import Masker, MaskView, noise
from limask.protocols import State

#: Share of its past that the fast and the slow average of the reconstruction error keep at each update.
FAST, SLOW = 0.9, 0.99

#: Score of a kind of token whose reconstruction makes no progress, beside 1 for the one that makes the most.
STANDSTILL = 0.05


class ScoredMasker(Masker):
    """Hides the share ``masker.ratio`` of each observation's visible tokens, drawn without replacement with
    chances in proportion to their scores (Efraimidis and Spirakis, 2006)."""

    is_informed = True

    def propose(self, view: MaskView, generator: torch.Generator) -> torch.Tensor:
        """See ``Masker.propose``."""
        is_candidate = view.is_visible & tokens.hideable(self.layout, view.is_visible.device)
        ratio, uniform = self.ratio(view, generator), self.uniform(view, generator)
        return draw(self.scores(view), is_candidate, ratio, uniform)

    def uniform(self, view: MaskView, generator: torch.Generator) -> torch.Tensor:
        """Uniform numbers (B, T, N, K + 1) for ``draw``, the same for a span of steps."""
        shape = view.is_visible.shape
        return noise(torch.Size((*shape[:-1], shape[-1] + 1)), self.config.masker.span, generator)

    @abstractmethod
    def scores(self, view: MaskView) -> torch.Tensor:
        """Scores of at least 0, (B, T, N, K) or what broadcasts to it; only their ratios matter."""


def draw(
    scores: torch.Tensor, is_candidate: torch.Tensor, ratio: float | torch.Tensor, uniform: torch.Tensor
) -> torch.Tensor:
    """``is_hidden`` (B, T, N, K) bool: of each row's n candidates ``ratio`` · n on average, rounded up or
    down at random, and those of higher score more often. Where all scores are 0 the chances are even.

    ``uniform`` (B, T, N, K + 1) in [0, 1): a number for each token, and one for the rounding.
    """
    n_hidden = (ratio * is_candidate.sum(dim=-1, keepdim=True) + uniform[..., -1:]).floor()
    smallest = torch.finfo(scores.dtype).tiny
    gumbel = -(-uniform[..., :-1].clamp(min=smallest).log()).clamp(min=smallest).log()
    keys = (scores.clamp(min=smallest).log() + gumbel).masked_fill(~is_candidate, -torch.inf)
    rank = keys.argsort(dim=-1, descending=True).argsort(dim=-1)
    return (rank < n_hidden) & is_candidate


class ValueSaliencyMasker(ScoredMasker):
    """Score: how much the team's value hangs on the token, abs(∂Q_tot/∂token · token).

    After AttMask (Kakogeorgiou et al., 2022): what matters is worth hiding.
    """

    signals = frozenset({"saliency"})

    def scores(self, view: MaskView) -> torch.Tensor:
        """See ``ScoredMasker.scores``."""
        assert view.saliency is not None
        return view.saliency


class CoordinationMasker(ScoredMasker):
    """Score of a token that shows a teammate: how much the agent's chosen action's value would change without
    it, to first order; all other tokens are hidden at random, at the same ratio."""

    signals = frozenset({"dependence"})
    needs_teammates = True

    def propose(self, view: MaskView, generator: torch.Generator) -> torch.Tensor:
        """See ``Masker.propose``."""
        is_ally = of_kind(self.layout, "ally", view.is_visible.device)
        is_candidate = view.is_visible & tokens.hideable(self.layout, view.is_visible.device)
        ratio, uniform = self.ratio(view, generator), self.uniform(view, generator)
        is_hidden = draw(self.scores(view), is_candidate & is_ally, ratio, uniform)
        return is_hidden | ((uniform[..., :-1] < ratio) & ~is_ally)

    def scores(self, view: MaskView) -> torch.Tensor:
        """See ``ScoredMasker.scores``."""
        assert view.dependence is not None
        return view.dependence


class LearningProgressMasker(ScoredMasker):
    """Score of an agent's tokens of one kind: by how much their reconstruction error has lately fallen.

    Neither what is reconstructed already nor what never will be is worth hiding (Oudeyer et al., 2007).
    """

    fast: torch.Tensor | None = None
    slow: torch.Tensor | None = None

    def scores(self, view: MaskView) -> torch.Tensor:
        """See ``ScoredMasker.scores``."""
        if self.fast is None or self.slow is None:
            return torch.ones_like(view.is_visible, dtype=torch.float32)
        # A kind that was never hidden has no averages yet.
        progress = (self.slow - self.fast).nan_to_num(nan=0.0).clamp(min=0)
        scores = STANDSTILL + progress / progress.max().clamp(min=torch.finfo(progress.dtype).tiny)
        return scores.to(view.is_visible.device)[:, groups(self.layout, view.is_visible.device)]

    def learn(self, is_hidden: torch.Tensor, error: torch.Tensor) -> None:
        """See ``Masker.learn``; errors are averaged by agent and kind of token."""
        one_hot = torch.nn.functional.one_hot(groups(self.layout, error.device)).to(error.dtype)
        n_scored = is_hidden.to(error.dtype).sum(dim=(0, 1)) @ one_hot
        mean = (error * is_hidden).sum(dim=(0, 1)) @ one_hot / n_scored.clamp(min=1)
        is_scored = n_scored > 0
        self.fast = _averaged(self.fast, mean, is_scored, FAST)
        self.slow = _averaged(self.slow, mean, is_scored, SLOW)

    def state_dict(self) -> State:
        """See ``Masker.state_dict``."""
        return {"fast": self.fast, "slow": self.slow}

    def load_state_dict(self, state: State) -> None:
        """See ``Masker.load_state_dict``."""
        self.fast, self.slow = state["fast"], state["slow"]


def _averaged(
    average: torch.Tensor | None, value: torch.Tensor, is_new: torch.Tensor, keep: float
) -> torch.Tensor:
    """A running average (NaN before its first value) after ``value``, where there is a new one."""
    average = torch.full_like(value, torch.nan) if average is None else average.to(value.device)
    followed = torch.where(average.isnan(), value, torch.lerp(value, average, keep))
    return torch.where(is_new, followed, average)


def groups(layout: Layout, device: torch.device) -> torch.Tensor:
    """Index of the group that each token belongs to: (K,) integers."""
    counts = torch.tensor([group.count for group in layout.groups])
    return torch.arange(len(layout.groups)).repeat_interleave(counts).to(device)


def of_kind(layout: Layout, kind: str, device: torch.device) -> torch.Tensor:
    """Which tokens are of ``kind``: (K,) bool."""
    flags = [group.kind == kind for group in layout.groups for _ in range(group.count)]
    return torch.tensor(flags, device=device)
