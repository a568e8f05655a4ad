"""Episodes of different lengths without their padding.

Axes: B episodes, T time steps, M filled steps of all episodes, P transitions.
"""

from __future__ import annotations

import torch


class Packing:
    """The filled steps of B episodes in the order of torch's packed sequences: by time step, and within one
    time step by length of the episode, longest first.

    Args:
        is_filled: (B, T) bool; each episode's filled steps are its first ones.
    """

    def __init__(self, is_filled: torch.Tensor) -> None:
        n_episodes, n_steps = is_filled.shape
        lengths = is_filled.sum(dim=1)
        order = lengths.argsort(descending=True, stable=True)
        by_time = is_filled[order].t()
        steps, ranks = by_time.nonzero(as_tuple=True)
        self.shape = (n_episodes, n_steps)
        #: (M,) index of each packed step in the flattened (B · T) steps.
        self.index = order[ranks] * n_steps + steps
        per_step = by_time.sum(dim=1)
        #: Episodes that have a step t, for each t that any has.
        self.counts: list[int] = [count for count in per_step.tolist() if count]
        # A step of episode rank r at time t is followed, one time step later, by the one at the same rank.
        has_next = by_time[1:][steps.clamp(max=n_steps - 2), ranks] & (steps < n_steps - 1)
        offsets = torch.cat([per_step.new_zeros(1), per_step.cumsum(0)])
        #: (P,) packed indices of the states that transitions start from and lead to.
        self.starts = has_next.nonzero().squeeze(1)
        self.ends = offsets[steps[self.starts] + 1] + ranks[self.starts]

    def rows_of_first(self, n_episodes: int) -> torch.Tensor:
        """Packed indices of the steps of the first ``n_episodes``, in the order of their own ``Packing``."""
        return (self.index < n_episodes * self.shape[1]).nonzero().squeeze(1)

    def pack(self, values: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """(B, T, …) → (M, …), written into ``out`` where it is given."""
        n_episodes, n_steps = self.shape
        between, step = values.stride()[:2]
        apart, odd = divmod(between, max(1, values[0, 0].numel()))
        if odd or apart <= n_steps or step * apart != between or not values[0, 0].is_contiguous():
            return torch.index_select(values.flatten(0, 1), 0, self.index, out=out)
        # The first steps of longer episodes, as hosts cut a sample: to flatten them would be to copy them.
        rows = values.as_strided(((n_episodes - 1) * apart + n_steps, *values.shape[2:]), values.stride()[1:])
        return torch.index_select(rows, 0, self.index + self.index // n_steps * (apart - n_steps), out=out)

    def unpack(self, values: torch.Tensor) -> torch.Tensor:
        """(M, …) → (B, T, …), zero where nothing is filled."""
        n_episodes, n_steps = self.shape
        padded = values.new_zeros((n_episodes * n_steps, *values.shape[1:]))
        return padded.index_copy(0, self.index, values).unflatten(0, (n_episodes, n_steps))
