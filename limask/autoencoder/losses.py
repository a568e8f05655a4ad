"""Reconstruction losses."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import nn


class Scored(NamedTuple):
    """``loss``, a scalar, and each scored token's mean squared ``error`` (..., K), zero for the others."""

    loss: torch.Tensor
    error: torch.Tensor


class Standardiser(nn.Module):
    """Running mean and variance of each feature (Chan et al. 1979), kept in checkpoints.

    Args:
        width: D, the number of features.
        horizon: number of rows after which older ones begin to be forgotten, for features that drift.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    count: torch.Tensor

    def __init__(self, width: int, horizon: float = math.inf) -> None:
        super().__init__()
        self.horizon = horizon
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.zeros(width))
        self.register_buffer("count", torch.zeros(width))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Checkpoints of before features could be unknown hold one count for all of them.
        if (key := f"{prefix}count") in state_dict:
            state_dict[key] = state_dict[key].expand(len(self.count))
        super()._load_from_state_dict(state_dict, prefix, *args)

    @torch.no_grad()
    def update(self, values: torch.Tensor, is_known: torch.Tensor | None = None) -> None:
        """Take in ``values`` (M, D); M may be 0. ``is_known`` (M, D) bool or 1 and 0, None = all are."""
        if values.shape[0] == 0:
            return
        n_new: torch.Tensor | int
        if is_known is None:
            n_new, mean, variance = values.shape[0], values.mean(dim=0), values.var(dim=0, unbiased=False)
        else:
            n_new = is_known.sum(dim=0)
            n_at_least_1 = n_new.clamp(min=1)
            mean = (values * is_known).sum(dim=0) / n_at_least_1
            variance = ((values - mean).square() * is_known).sum(dim=0) / n_at_least_1
        total = (self.count + n_new).clamp(min=1)
        delta = mean - self.mean
        squares = self.variance * self.count + variance * n_new + delta.square() * self.count * n_new / total
        self.mean += delta * n_new / total
        self.variance.copy_(squares / total)
        self.count.copy_((self.count + n_new).clamp(max=self.horizon))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """``values`` (..., D) with mean 0 and variance 1; a feature that never varied becomes 0."""
        return (values - self.mean) / self._deviation()

    def undo(self, standardised: torch.Tensor) -> torch.Tensor:
        """Inverse of ``forward``."""
        return standardised * self._deviation() + self.mean

    def _deviation(self) -> torch.Tensor:
        # The floor keeps a feature that has varied by rounding alone from being blown up.
        return (self.variance + 1e-4).sqrt()


def mean_squared(errors: list[torch.Tensor], weights: list[torch.Tensor] | None = None) -> torch.Tensor:
    """Mean of the squares of all entries; each tensor (M_kind, D_kind), any of them empty.

    ``weights`` (M_kind,) at least 0, one for each row, make it a weighted mean. Nothing to score gives 0 with
    a gradient of 0, never NaN.
    """
    if weights is None:
        n_entries = sum(error.numel() for error in errors)
        total = torch.stack([error.square().sum() for error in errors]).sum()
        return total / max(n_entries, 1)
    pairs = list(zip(errors, weights, strict=True))
    total = torch.stack([(error.square().sum(dim=1) * weight).sum() for error, weight in pairs]).sum()
    scale = torch.stack([weight.sum() * error.shape[1] for error, weight in pairs]).sum()
    return total / scale.clamp(min=torch.finfo(total.dtype).tiny)
