"""A GRU over packed sequences whose backward pass makes one product for each weight matrix.

torch's own kernel for packed sequences on the CPU records every time step: its backward pass then fills a
tensor of the whole sequence with zeros for each of them, which is quadratic in the length. Here the loop over
time holds only what depends on the step before; gates' derivatives and weight gradients are taken at once.

Axes: S rows of all time steps, ordered by time (rows of one time step side by side, and no time step with
more rows than the one before), H hidden size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable


def packed_gru(cell: nn.GRUCell, inputs: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """Hidden states (S, H) of ``cell`` over packed ``inputs`` (S, D), starting from zeros.

    Args:
        cell: its weights are used; the equations are torch's.
        inputs: (S, D).
        counts: rows at each time step, not increasing; they add up to S.
    """
    if inputs.is_cuda:
        start = inputs.new_zeros(1, counts[0], cell.hidden_size)
        weights = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
        return torch.gru(inputs, torch.tensor(counts), start, weights, True, 1, 0.0, cell.training, False)[0]
    from_inputs = nn.functional.linear(inputs, cell.weight_ih, cell.bias_ih)
    return _Recurrence.apply(from_inputs, cell.weight_hh, cell.bias_hh, counts)


class _Recurrence(torch.autograd.Function):
    """The part of a GRU that depends on the step before; gates in torch's order: reset, update, new."""

    @staticmethod
    def forward(
        ctx: Any, from_inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, counts: list[int]
    ) -> torch.Tensor:
        size = weight.shape[1]
        gates = from_inputs.clone()
        from_hidden = torch.empty_like(gates)
        hidden = gates.new_empty(gates.shape[0], size)
        before = torch.zeros_like(hidden)
        transposed = weight.t()
        first = 0
        for step, count in enumerate(counts):
            rows = slice(first, first + count)
            now, recurrent = gates[rows], from_hidden[rows]
            if step:
                before[rows] = hidden[first - counts[step - 1] : first - counts[step - 1] + count]
            torch.addmm(bias, before[rows], transposed, out=recurrent)
            reset_update = now[:, : 2 * size]
            reset_update.add_(recurrent[:, : 2 * size]).sigmoid_()
            new = now[:, 2 * size :]
            new.addcmul_(now[:, :size], recurrent[:, 2 * size :]).tanh_()
            torch.lerp(new, before[rows], now[:, size : 2 * size], out=hidden[rows])
            first += count
        ctx.counts = counts
        ctx.save_for_backward(gates, from_hidden[:, 2 * size :], before, weight)
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gates, new_recurrent, before, weight = ctx.saved_tensors
        size = weight.shape[1]
        reset, update, new = gates.split(size, dim=1)
        # Derivatives of h' with respect to the three gates' inputs; the loop multiplies them by dL/dh'.
        by_new = (1 - update) * (1 - new.square())
        by_update = (before - new) * update * (1 - update)
        by_reset = by_new * new_recurrent * reset * (1 - reset)
        by_recurrent = torch.stack([by_reset, by_update, by_new * reset], dim=1)
        grad_hidden = grad.clone()
        grad_recurrent = torch.empty_like(gates)
        first = end = gates.shape[0]
        for step in range(len(ctx.counts) - 1, -1, -1):
            count = ctx.counts[step]
            first, end = first - count, first
            now = grad_hidden[first:end]
            recurrent = grad_recurrent[first:end]
            torch.mul(now.unsqueeze(1), by_recurrent[first:end], out=recurrent.view(count, 3, size))
            if step:
                earlier = first - ctx.counts[step - 1]
                into = grad_hidden[earlier : earlier + count]
                into.addcmul_(now, update[first:end]).addmm_(recurrent, weight)
        grad_inputs = grad_recurrent.clone()
        torch.mul(grad_hidden, by_new, out=grad_inputs[:, 2 * size :])
        return grad_inputs, grad_recurrent.t() @ before, grad_recurrent.sum(dim=0), None
