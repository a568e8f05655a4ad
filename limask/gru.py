"""A GRU over packed sequences whose backward pass makes one product for each weight matrix.

torch's own kernel for packed sequences on the CPU records every time step: its backward pass then fills a
tensor of the whole sequence with zeros for each of them, which is quadratic in the length. Here the loop over
time holds only what depends on the step before; gates' derivatives and weight gradients are taken at once.

Axes: S rows of all time steps, ordered by time (rows of one time step side by side, and no time step with
more rows than the one before), D input features, H hidden size.
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
    weights = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
    if inputs.is_cuda:
        start = inputs.new_zeros(1, counts[0], cell.hidden_size)
        return torch.gru(inputs, torch.tensor(counts), start, weights, True, 1, 0.0, cell.training, False)[0]
    return _PackedGru.apply(inputs, *weights, counts, torch.is_grad_enabled())


class _PackedGru(torch.autograd.Function):
    """Gates in torch's order: reset, update, new. Large tensors are written in place wherever they can be:
    on a CPU, a fresh one costs more than the arithmetic done on it."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        weight_ih: torch.Tensor,
        weight_hh: torch.Tensor,
        bias_ih: torch.Tensor,
        bias_hh: torch.Tensor,
        counts: list[int],
        has_backward: bool,
    ) -> torch.Tensor:
        size = weight_hh.shape[1]
        gates = torch.addmm(bias_ih, inputs, weight_ih.t())
        hidden = gates.new_empty(gates.shape[0], size)
        new_recurrent = torch.empty_like(hidden) if has_backward else None
        scratch = gates.new_empty(counts[0], 3 * size)
        was = gates.new_zeros(counts[0], size)
        transposed = weight_hh.t()
        first = 0
        for count in counts:
            rows = slice(first, first + count)
            now, was, recurrent = gates[rows], was[:count], scratch[:count]
            torch.addmm(bias_hh, was, transposed, out=recurrent)
            now[:, : 2 * size].add_(recurrent[:, : 2 * size]).sigmoid_()
            if new_recurrent is not None:
                new_recurrent[rows] = recurrent[:, 2 * size :]
            new = now[:, 2 * size :]
            new.addcmul_(now[:, :size], recurrent[:, 2 * size :]).tanh_()
            was = torch.lerp(new, was, now[:, size : 2 * size], out=hidden[rows])
            first += count
        if has_backward:
            ctx.counts = counts
            ctx.save_for_backward(inputs, weight_ih, weight_hh, gates, new_recurrent, hidden)
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, weight_ih, weight_hh, gates, new_recurrent, hidden = ctx.saved_tensors
        size = weight_hh.shape[1]
        before = _states_before(hidden, ctx.counts)
        reset, update, new = gates.split(size, dim=1)
        # Derivatives of h' with respect to what each gate takes from the step before; the loop over time
        # multiplies them by dL/dh'.
        by_new = (1 - update).mul_(1 - new.square())
        by_gate = torch.empty_like(gates)
        by_reset, by_update, by_recurrent = by_gate.split(size, dim=1)
        torch.mul(by_new, reset, out=by_recurrent)
        torch.mul(by_recurrent, new_recurrent, out=by_reset).mul_(1 - reset)
        torch.sub(before, new, out=by_update).mul_(update).mul_(1 - update)
        grad_hidden = grad.clone()
        first = gates.shape[0]
        for step in range(len(ctx.counts) - 1, -1, -1):
            count = ctx.counts[step]
            first, end = first - count, first
            now, recurrent = grad_hidden[first:end], by_gate[first:end]
            recurrent.view(count, 3, size).mul_(now.unsqueeze(1))
            if step:
                earlier = first - ctx.counts[step - 1]
                into = grad_hidden[earlier : earlier + count]
                into.addcmul_(now, update[first:end]).addmm_(recurrent, weight_hh)
        grad_hh, grad_bias_hh = by_gate.t() @ before, by_gate.sum(dim=0)
        # The new gate takes its input as it is, and from the step before only the reset part.
        torch.mul(grad_hidden, by_new, out=by_recurrent)
        grad_inputs = by_gate @ weight_ih if ctx.needs_input_grad[0] else None
        return grad_inputs, by_gate.t() @ inputs, grad_hh, by_gate.sum(dim=0), grad_bias_hh, None, None


def _states_before(hidden: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """Hidden states (S, H) that each row's step started from: those of its row one time step earlier."""
    by_step = hidden.split(counts)
    followed = [states[:count] for states, count in zip(by_step, counts[1:], strict=False)]
    return torch.cat([torch.zeros_like(by_step[0]), *followed])
