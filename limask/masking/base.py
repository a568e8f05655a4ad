"""What a masker is, what it may know, and what holds for all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple

import torch

from limask.config import LimConfig
from limask.layouts import Layout
from limask.protocols import State

#: What the learner can tell of an update beyond the observations.
Signal = Literal["td_error", "saliency", "dependence"]

#: What a masker hides at a time: single tokens of an observation, or whole agents.
Unit = Literal["tokens", "agents"]


class MaskView(NamedTuple):
    """What a masker may know of the B episodes in which it hides tokens, and nothing more.

    Attributes:
        obs: (B, T, N, O) observations, zero where an episode is over.
        is_visible: (B, T, N, K) bool, True = the environment showed the token.
        is_filled: (B, T) bool, True = the step belongs to the episode.
        t_env: environment steps made so far.
        td_error: (B, T, N) size of each agent's TD error, zero at steps that no transition starts from.
        saliency: (B, T, N, K) size of ∂Q_tot/∂token · token, Q_tot of the actions taken.
        dependence: (B, T, N, K) the same of the agent's own Q_i.

    The last three are None where the masker does not ask for them by its ``signals``.
    """

    obs: torch.Tensor
    is_visible: torch.Tensor
    is_filled: torch.Tensor
    t_env: int = 0
    td_error: torch.Tensor | None = None
    saliency: torch.Tensor | None = None
    dependence: torch.Tensor | None = None


class Masker(ABC):
    """Proposes which tokens to hide; ``hidden_tokens`` enforces what every mask must keep to."""

    #: Signals that ``propose`` reads.
    signals: ClassVar[frozenset[Signal]] = frozenset()
    #: What it hides at a time.
    hides: ClassVar[Unit] = "tokens"
    #: Whether signals, or what it learns, drive it: then random masks of the same unit are mixed in.
    is_informed: ClassVar[bool] = False
    #: Whether the layout has to say which tokens show teammates.
    needs_teammates: ClassVar[bool] = False

    def __init__(self, config: LimConfig, layout: Layout) -> None:
        self.config = config
        self.layout = layout

    @abstractmethod
    def propose(self, view: MaskView, generator: torch.Generator) -> torch.Tensor:
        """Tokens to hide.

        Args:
            view: what is known of the episodes.
            generator: the only source of randomness, on the device of the view.

        Returns:
            (B, T, N, K) bool, or anything that broadcasts to it; True = hide.
        """

    def ratio(self, view: MaskView, generator: torch.Generator) -> float | torch.Tensor:
        """Share of the tokens to hide: ``masker.ratio``, or (B, 1, 1, 1) of each episode where that is a
        range."""
        given = self.config.masker.ratio
        if isinstance(given, (int, float)):
            return float(given)
        low, high = given
        n_episodes = view.is_visible.shape[0]
        drawn = torch.rand((n_episodes, 1, 1, 1), generator=generator, device=generator.device)
        return low + (high - low) * drawn

    def needs(self, t_env: int) -> frozenset[Signal]:
        """Signals that ``propose`` reads at ``t_env`` environment steps."""
        return self.signals

    def learn(self, is_hidden: torch.Tensor, error: torch.Tensor) -> None:  # noqa: B027 (most have no use)
        """Take in how well the tokens of the last proposal were reconstructed in its first B episodes.

        Args:
            is_hidden: (B, T, N, K) bool, True = was hidden.
            error: (B, T, N, K) mean squared error of each hidden token's standardised features.
        """

    def state_dict(self) -> State:
        """What a checkpoint has to keep."""
        return {}

    def load_state_dict(self, state: State) -> None:  # noqa: B027
        """Inverse of ``state_dict``."""


def hidden_tokens(
    masker: Masker, view: MaskView, is_hideable: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """The mask of ``masker``, kept within bounds: ``is_hidden`` (B, T, N, K) bool, True = hidden.

    Nothing invisible and nothing that the layout protects is hidden, and in every observation at least
    ``keep_at_least`` visible tokens stay, where there are so many; which ones is drawn at random.
    """
    is_visible = view.is_visible
    is_hidden = masker.propose(view, generator) & is_visible & is_hideable
    n_kept = (is_visible & ~is_hidden).sum(dim=-1, keepdim=True)
    n_lacking = masker.config.masker.keep_at_least - n_kept
    if not bool(((n_lacking > 0) & is_hidden.any(dim=-1, keepdim=True)).any()):
        return is_hidden
    draw = torch.rand(is_hidden.shape, generator=generator, device=is_hidden.device)
    order = draw.masked_fill(~is_hidden, 2.0).argsort(dim=-1).argsort(dim=-1)
    return is_hidden & (order >= n_lacking)


def noise(shape: torch.Size, span: int, generator: torch.Generator) -> torch.Tensor:
    """Uniform numbers in [0, 1) of ``shape`` (B, T, …) that stay the same for ``span`` time steps.

    Where an episode's first span begins is drawn for each episode. With a span of 1 a token that is hidden
    was usually seen a step before, and a recurrent agent has only to remember it.
    """
    n_episodes, n_steps = shape[:2]
    device = generator.device
    if span == 1:
        return torch.rand(shape, generator=generator, device=device)
    n_spans = (n_steps - 1) // span + 2
    draw = torch.rand((n_episodes, n_spans, *shape[2:]), generator=generator, device=device)
    phase = torch.randint(span, (n_episodes, 1), generator=generator, device=device)
    which = (torch.arange(n_steps, device=device) + phase) // span
    return draw[torch.arange(n_episodes, device=device).unsqueeze(1), which]
