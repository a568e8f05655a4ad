"""The GRU's loops as machine code: torch's numbers, whichever way they come, or none."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from limask.networks import gru, gru_kernel
from limask.networks.gru import packed_gru

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler, as `cc`")


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder in which nothing is, and no kernel loaded yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    gru_kernel.kernel.cache_clear()
    yield tmp_path
    gru_kernel.kernel.cache_clear()


def lengths(n_rows: int, n_steps: int) -> list[int]:
    """Rows at each of some time steps, ever fewer."""
    return [n_rows - t * (n_rows - 1) // n_steps for t in range(n_steps)]


def values_and_gradients(cell: nn.GRUCell, inputs: torch.Tensor, counts: list[int]) -> list[torch.Tensor]:
    weights = torch.randn(len(inputs), cell.hidden_size, generator=torch.Generator().manual_seed(1))
    hidden = packed_gru(cell, inputs, counts)
    with torch.no_grad():
        assert torch.equal(packed_gru(cell, inputs, counts), hidden)
    return [hidden, *torch.autograd.grad((hidden * weights).sum(), [inputs, *cell.parameters()])]


@needs_compiler
@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize(
    ("n_rows", "n_steps", "size", "rows_of_block"),
    [(1, 5, 64, 1000), (37, 12, 64, 100), (200, 9, 32, 500), (8, 1, 16, 1), (150, 4, 48, 10_000)],
)
def test_the_kernel_has_torchs_numbers(
    n_rows: int, n_steps: int, size: int, rows_of_block: int, n_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gru, "BLOCK", rows_of_block * 3 * size)
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    torch.manual_seed(0)
    counts = lengths(n_rows, n_steps)
    cell = nn.GRUCell(20, size)
    with torch.no_grad():
        cell.weight_hh.mul_(3)  # gates that open and close
    inputs = (3 * torch.randn(sum(counts), 20)).requires_grad_()
    kernel = gru_kernel.kernel()
    assert kernel is not None and kernel.takes(inputs, size), "or torch is compared with itself"
    ours = values_and_gradients(cell, inputs, counts)
    monkeypatch.setattr(gru, "kernel", lambda: None)
    for mine, torchs in zip(ours, values_and_gradients(cell, inputs, counts), strict=True):
        torch.testing.assert_close(mine, torchs, rtol=1e-4, atol=1e-5 * max(1.0, torchs.abs().max().item()))


@needs_compiler
def test_a_row_does_not_depend_on_those_beside_it() -> None:
    torch.manual_seed(0)
    cell, inputs = nn.GRUCell(4, 32), torch.randn(3, 13, 4)
    together = packed_gru(cell, inputs.flatten(0, 1), [13] * 3).view(3, 13, 32)
    for row in (0, 7, 12):
        alone = packed_gru(cell, inputs[:, row].contiguous(), [1] * 3)
        torch.testing.assert_close(alone, together[:, row], rtol=0, atol=2e-7)


@needs_compiler
def test_gradients_may_lie_in_memory_as_they_like(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    cell, inputs = nn.GRUCell(4, 32), torch.randn(9, 4)
    cell.weight_hh = nn.Parameter(torch.randn(32, 96).t())  # a transposed view
    weights = torch.randn(32, 9).t()
    assert not cell.weight_hh.is_contiguous() and not weights.is_contiguous()
    found = []
    for _ in range(2):
        hidden = packed_gru(cell, inputs, [3] * 3)
        found.append(torch.autograd.grad(hidden, [*cell.parameters()], weights))
        monkeypatch.setattr(gru, "kernel", lambda: None)
    for mine, torchs in zip(*found, strict=True):
        torch.testing.assert_close(mine, torchs, rtol=1e-4, atol=1e-4)


@needs_compiler
def test_what_saturates_stays_finite() -> None:
    cell = nn.GRUCell(2, 32)
    inputs = (1e6 * torch.randn(30, 2)).requires_grad_()
    for values in values_and_gradients(cell, inputs, [10] * 3):
        assert values.isfinite().all()


@needs_compiler
def test_what_is_not_a_number_stays_so() -> None:
    cell, inputs = nn.GRUCell(2, 32), torch.zeros(4, 2)
    inputs[1] = torch.nan
    hidden = packed_gru(cell, inputs, [2, 2])
    assert hidden[1].isnan().any() and hidden[3].isnan().any(), "a loss that diverges is seen"
    assert hidden[[0, 2]].isfinite().all()


@pytest.mark.parametrize(("dtype", "size"), [(torch.float64, 64), (torch.float32, 20)])
def test_other_numbers_and_sizes_are_torchs(dtype: torch.dtype, size: int) -> None:
    assert gru.kernel_for(torch.zeros(3, 2, dtype=dtype), size) is None
    packed_gru(nn.GRUCell(2, size).to(dtype), torch.zeros(3, 2, dtype=dtype), [2, 1])


@needs_compiler
def test_it_is_compiled_once(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gru_kernel.kernel() is not None
    (file,) = fresh.glob("limask/gru-*/*")
    assert file.suffix == ".so" and not file.stat().st_mode & stat.S_IWOTH
    gru_kernel.kernel.cache_clear()
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("compiled again"))
    assert gru_kernel.kernel() is not None


@pytest.mark.skipif(os.name == "nt", reason="needs programs as on Unix")
@pytest.mark.parametrize("compiler", ["/no/compiler", "false", "true"])
def test_without_a_compiler_that_works_torch_computes(
    compiler: str, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", compiler)
    assert gru_kernel.kernel() is None
    assert packed_gru(nn.GRUCell(2, 64), torch.zeros(3, 2), [2, 1]).shape == (3, 64)
    assert not list(fresh.glob("limask/gru-*/.*")), "nothing half-made is left"
