"""Masker ``adversarial``: a small network learns to hide what is hard to reconstruct."""

from __future__ import annotations

import torch
from torch import nn

from limask.config import LimConfig
from limask.layouts import Layout, tokens
from limask.masking.base import Masker, MaskView, noise
from limask.protocols import State

#: Width of the mask network.
WIDTH = 32

#: Learning rate of the mask network's own Adam.
LEARNING_RATE = 1e-3

#: Weight of the squared difference between the mean chance of being hidden and ``masker.ratio``.
PENALTY = 50.0


class AdversarialMasker(Masker):
    """Hides each token with a chance that a network computes from the token and from the mean of the
    observation's other tokens; it is trained to make the reconstruction error of what is hidden large.

    The objective is ADIOS's (Shi et al., 2022), with a penalty that keeps the ratio. Hiding is a choice and
    no factor here, so the gradient is that of the chosen mask's log-probability (as in AdaMAE, Bandara et
    al., 2023): the reconstruction loss need not be differentiated through the observation.
    """

    is_informed = True

    def __init__(self, config: LimConfig, layout: Layout) -> None:
        super().__init__(config, layout)
        # Apart from the run's own stream of random numbers: an arm more does not change the others' weights.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = _MaskNetwork(layout)
        self._last: tuple[torch.Tensor, ...] | None = None
        self._optimiser: torch.optim.Optimizer | None = None

    def propose(self, view: MaskView, generator: torch.Generator) -> torch.Tensor:
        """See ``Masker.propose``."""
        is_candidate = view.is_visible & tokens.hideable(self.layout, view.obs.device)
        logits = self._on(view.obs.device)(view.obs, view.is_visible)
        # The ratio is where the network starts: its last layer is zero then. A ratio of 0 stays 0.
        ratio = torch.as_tensor(self.ratio(view, generator), device=logits.device)
        logits = logits + torch.logit(ratio, eps=1e-3)
        self._last = (logits, is_candidate, ratio.expand(logits.shape))
        draw = noise(view.is_visible.shape, self.config.masker.span, generator)
        return (draw < logits.detach().sigmoid()) & (ratio > 0)

    def learn(self, is_hidden: torch.Tensor, error: torch.Tensor) -> None:
        """See ``Masker.learn``."""
        if self._last is None or self._optimiser is None:
            return
        logits, is_candidate, ratio = (values[: len(error)] for values in self._last)
        self._last = None
        if not bool(is_hidden.any()):
            return
        scored = error[is_hidden]
        advantage = (scored - scored.mean()) / scored.std(unbiased=False).clamp(min=1e-6)
        log_chance = nn.functional.logsigmoid(logits)[is_hidden]
        too_many = (logits.sigmoid() - ratio)[is_candidate].mean()
        loss = -(advantage * log_chance).mean() + PENALTY * too_many.square()
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()

    def _on(self, device: torch.device) -> _MaskNetwork:
        if self._optimiser is None:
            self.network.to(device)
            self._optimiser = torch.optim.Adam(self.network.parameters(), lr=LEARNING_RATE)
        return self.network

    def state_dict(self) -> State:
        """See ``Masker.state_dict``; Adam's moments start anew from a checkpoint."""
        return {"network": self.network.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """See ``Masker.load_state_dict``."""
        self.network.load_state_dict(state["network"])


class _MaskNetwork(nn.Module):
    """Tokens embedded by kind; a token's logit comes from its embedding and the mean of all embeddings."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.embed = nn.ModuleDict({group.kind: nn.Linear(group.width, WIDTH) for group in layout.groups})
        self.mix = nn.Linear(2 * WIDTH, WIDTH)
        self.logit = nn.Linear(WIDTH, 1)
        nn.init.zeros_(self.logit.weight)
        nn.init.zeros_(self.logit.bias)

    def forward(self, obs: torch.Tensor, is_visible: torch.Tensor) -> torch.Tensor:
        """Observations (B, T, N, O) and ``is_visible`` (B, T, N, K) → logits (B, T, N, K)."""
        by_kind = tokens.split(obs, self.layout)
        embedded = torch.cat([self.embed[kind](part).relu() for kind, part in by_kind.items()], dim=-2)
        shown = is_visible.unsqueeze(-1)
        mean = (embedded * shown).sum(dim=-2, keepdim=True) / shown.sum(dim=-2, keepdim=True).clamp(min=1)
        both = torch.cat([embedded, mean.expand_as(embedded)], dim=-1)
        logits: torch.Tensor = self.logit(self.mix(both).relu()).squeeze(-1)
        return logits
