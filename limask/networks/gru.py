"""A GRU over packed sequences whose backward pass makes few products for each weight matrix.

torch's own kernel for packed sequences on the CPU records every time step: its backward pass then fills a
tensor of the whole sequence with zeros for each of them, which is quadratic in the length. Here the loop over
time holds only what depends on the step before. All else is done for a block of time steps at once: for as
many as a core's own cache holds, so that what one operation wrote is still there for the next.

Axes: S rows of all time steps, ordered by time (rows of one time step side by side, and no time step with
more rows than the one before), R rows of a block, D input features, H hidden size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from limask.networks.gru_kernel import Kernel, kernel

#: Numbers in a block's gates, R · 3H at most: 2 MiB in float32.
BLOCK = 2**19


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


def kernel_for(inputs: torch.Tensor, size: int) -> Kernel | None:
    """The machine's kernel if it is made for these ``inputs`` and this hidden ``size``."""
    machine = kernel()
    return machine if machine and machine.takes(inputs, size) else None


class _Block(NamedTuple):
    """Consecutive time steps from ``first`` to before ``end``, and the ``rows`` that are theirs."""

    first: int
    end: int
    rows: slice

    def before(self, counts: list[int]) -> int:
        """Rows of the time step before; 0 = there is none."""
        return counts[self.first - 1] if self.first else 0


def _blocks(counts: list[int], size: int) -> list[_Block]:
    """Blocks of as many rows as ``BLOCK`` allows, but of one time step at least."""
    n_rows = BLOCK // (3 * size)
    starts, row, first_row = [0], 0, 0
    rows = [0]
    for step, count in enumerate(counts):
        if row + count - first_row > n_rows and row > first_row:
            starts.append(step)
            rows.append(row)
            first_row = row
        row += count
    steps = zip(starts, [*starts[1:], len(counts)], rows, [*rows[1:], row], strict=True)
    return [_Block(first, end, slice(start, stop)) for first, end, start, stop in steps]


class _PackedGru(torch.autograd.Function):
    """Gates in torch's order: reset, update, new."""

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
        both = 2 * size
        # tanh(x) = 2 σ(2x) − 1, and torch's σ takes a fifth of the time of its tanh: what the new gate takes
        # is doubled at the weights. The other gates' recurrent bias joins their inputs'.
        project = torch.cat([weight_ih[:both], weight_ih[both:] * 2]).t()
        bias = torch.cat([bias_ih[:both] + bias_hh[:both], bias_ih[both:] * 2])
        recur, recur_new, bias_new = weight_hh[:both].t(), weight_hh[both:].t() * 2, bias_hh[both:] * 2
        blocks = _blocks(counts, size)
        # Without a backward pass, the gates of one block after the other are written to the same place.
        n_kept = len(inputs) if has_backward else max(block.rows.stop - block.rows.start for block in blocks)
        gates, recurrent = inputs.new_empty(n_kept, 3 * size), inputs.new_empty(n_kept, size)
        hidden = inputs.new_empty(len(inputs), size)
        machine = kernel_for(inputs, size)
        weight = torch.cat([recur, recur_new], dim=1).contiguous()
        for block in blocks:
            kept = block.rows if has_backward else slice(block.rows.stop - block.rows.start)
            torch.addmm(bias, inputs[block.rows], project, out=gates[kept])
            parts = gates[kept], recurrent[kept], hidden[block.rows]
            of_steps, before = counts[block.first : block.end], block.before(counts)
            if machine:
                machine.forward(*parts, weight, bias_new, of_steps, before, keeps=has_backward)
            else:
                first = block.rows.start - before
                start = hidden[first : block.rows.start] if before else hidden.new_zeros(counts[0], size)
                _block_forward(*parts, weight, bias_new, of_steps, start)
        if has_backward:
            ctx.counts = counts
            ctx.save_for_backward(inputs, weight_ih, weight_hh, gates, recurrent, hidden)
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, weight_ih, weight_hh, gates, recurrent, hidden = ctx.saved_tensors
        size = weight_hh.shape[1]
        grad_hidden = grad.clone(memory_format=torch.contiguous_format)
        grad_inputs = torch.empty_like(inputs) if ctx.needs_input_grad[0] else None
        grad_ih, grad_hh = torch.zeros_like(weight_ih), torch.zeros_like(weight_hh)
        grad_bias, grad_bias_new = grad.new_zeros(3 * size), grad.new_zeros(size)
        machine = kernel_for(inputs, size)
        for block in reversed(_blocks(ctx.counts, size)):
            rows = block.rows
            if machine:
                by_gate, by_new, before = machine.backward(
                    grad_hidden[rows], gates[rows], recurrent[rows], hidden[rows], weight_hh.contiguous(),
                    ctx.counts[block.first : block.end], block.before(ctx.counts),
                )  # fmt: skip
            else:
                before = _states_before(hidden, ctx.counts, block)
                by_gate, by_new = _derivatives(gates[rows], recurrent[rows], before)
                _through_time(grad_hidden, by_gate, gates, weight_hh, ctx.counts, block)
                by_new.mul_(grad_hidden[rows])
            grad_hh.addmm_(by_gate.t(), before)
            grad_bias += by_gate.sum(dim=0)
            # The new gate takes its input as it is, and from the step before only the reset part.
            by_gate[:, 2 * size :] = by_new
            grad_ih.addmm_(by_gate.t(), inputs[rows])
            grad_bias_new += by_gate[:, 2 * size :].sum(dim=0)
            if grad_inputs is not None:
                torch.mm(by_gate, weight_ih, out=grad_inputs[rows])
        grad_bias_ih = torch.cat([grad_bias[: 2 * size], grad_bias_new])
        return grad_inputs, grad_ih, grad_hh, grad_bias_ih, grad_bias, None, None


def _block_forward(
    gates: torch.Tensor,
    recurrent: torch.Tensor,
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias_new: torch.Tensor,
    counts: list[int],
    was: torch.Tensor,
) -> None:
    """What the gates take of a block's inputs (R, 3H) → the gates, what the new gate takes of the step before
    (R, H), and hidden states (R, H), all in place; ``was`` are those before the block."""
    size = hidden.shape[1]
    recur, recur_new = weight.split([2 * size, size], dim=1)
    minus_one = hidden.new_tensor(-1.0)
    # Views of all steps at once: made step by step they show in the time of small batches.
    views = (gates[:, : 2 * size], *gates.split(size, dim=1), recurrent, hidden)
    by_step = zip(counts, *(view.split(counts) for view in views), strict=True)
    for count, reset_update, reset, update, new, taken, out in by_step:
        was = was[:count]
        reset_update.addmm_(was, recur).sigmoid_()
        torch.addmm(bias_new, was, recur_new, out=taken)
        new.addcmul_(reset, taken).sigmoid_()
        torch.add(minus_one, new, alpha=2, out=new)
        was = torch.lerp(new, was, update, out=out)


def _derivatives(
    gates: torch.Tensor, recurrent: torch.Tensor, before: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Derivatives of h' with respect to what each gate takes from the step before (R, 3H), and to what the
    new gate takes of its input (R, H); x · (1 − y) is written x − x · y, which reads the memory once."""
    reset, update, new = gates.chunk(3, dim=1)
    by_new = torch.addcmul(new.new_ones(1, 1), new, new, value=-1)
    by_new.addcmul_(by_new, update, value=-1)
    by_gate = torch.empty_like(gates)
    by_reset, by_update, by_recurrent = by_gate.chunk(3, dim=1)
    torch.mul(by_new, reset, out=by_recurrent)
    # ``recurrent`` was doubled.
    torch.mul(by_recurrent, recurrent, out=by_reset).addcmul_(by_reset, reset, value=-1).mul_(0.5)
    torch.sub(before, new, out=by_update).mul_(update).addcmul_(by_update, update, value=-1)
    return by_gate, by_new


def _through_time(
    grad_hidden: torch.Tensor,
    by_gate: torch.Tensor,
    gates: torch.Tensor,
    weight_hh: torch.Tensor,
    counts: list[int],
    block: _Block,
) -> None:
    """Multiply the derivatives of a block's rows by dL/dh', and add to each step's dL/dh' what comes from
    the step after it; both in place."""
    size = weight_hh.shape[1]
    of_steps = counts[block.first : block.end]
    before = block.before(counts)
    grads = grad_hidden[block.rows.start - before : block.rows.stop].split([before, *of_steps])
    parts = (gates[block.rows, size : 2 * size], by_gate, by_gate.view(-1, 3, size))
    by_step = zip(of_steps, grads, grads[1:], *(part.split(of_steps) for part in parts), strict=False)
    for count, earlier, now, update, here, by_part in reversed(list(by_step)):
        by_part.mul_(now.unsqueeze(1))
        if earlier.numel():
            earlier[:count].addcmul_(now, update).addmm_(here, weight_hh)


def _states_before(hidden: torch.Tensor, counts: list[int], block: _Block) -> torch.Tensor:
    """Hidden states (R, H) that each row's step started from: those of its row one time step earlier."""
    states, row = [], block.rows.start
    for step in range(block.first, block.end):
        earlier = row - counts[step - 1] if step else 0
        states.append(
            hidden[earlier : earlier + counts[step]] if step else torch.zeros_like(hidden[: counts[0]])
        )
        row += counts[step]
    return torch.cat(states)
