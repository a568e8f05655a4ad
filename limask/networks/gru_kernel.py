"""The loops of ``gru.py`` as machine code, made of ``gru.c`` by the machine's C compiler at the first use.

It is kept in the user's cache folder. Without a compiler, and for numbers that it is not made for, torch's
operations do the same.

Axes: R rows of a block of time steps, H hidden size.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from limask.cache import own_folder
from limask.files import replace

_log = logging.getLogger("limask.networks.gru_kernel")

_SOURCE = Path(__file__).with_name("gru.c")

#: For the instructions of this machine; and where a compiler does not know that word, without.
_FLAGS = (("-march=native",), ())
_ALWAYS = ("-O3", "-ffp-contract=fast", "-shared", "-fPIC")

#: Rows that are worth a thread of their own.
_ROWS_OF_A_THREAD = 64


class Kernel:
    """The two functions of ``gru.c``, which says what they take.

    Args:
        file: the compiled library.

    Raises:
        OSError: it cannot be loaded.
    """

    def __init__(self, file: Path) -> None:
        library = ctypes.CDLL(str(file))
        library.lanes.restype = ctypes.c_int64
        self.lanes = int(library.lanes())
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        self._forward, self._backward = library.forward, library.backward
        self._forward.argtypes = [pointer] * 6 + [number] * 6
        self._backward.argtypes = [pointer] * 9 + [number] * 5
        self._forward.restype = self._backward.restype = None

    def takes(self, inputs: torch.Tensor, size: int) -> bool:
        """Whether it is made for such ``inputs`` and a hidden ``size``."""
        return inputs.dtype == torch.float32 and inputs.device.type == "cpu" and size % self.lanes == 0

    def forward(
        self,
        gates: torch.Tensor,
        taken: torch.Tensor,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias_new: torch.Tensor,
        counts: Sequence[int],
        before: int,
        *,
        keeps: bool,
    ) -> None:
        """A block forwards: writes ``hidden`` (R, H), and gates and ``taken`` if it ``keeps`` them."""
        size = hidden.shape[1]

        def part(first: int, end: int) -> None:
            self._forward(
                *_pointers(gates, taken, hidden, weight, bias_new), steps, len(counts), before, size, keeps,
                first, end,
            )  # fmt: skip

        steps = (ctypes.c_int64 * len(counts))(*counts)
        _in_threads(part, counts[0])

    def backward(
        self,
        grad: torch.Tensor,
        gates: torch.Tensor,
        taken: torch.Tensor,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        counts: Sequence[int],
        before: int,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The block backwards: adds to ``grad``; returns ``by_gate`` (R, 3H), ``by_new`` and ``states``
        (R, H)."""
        size = hidden.shape[1]

        def part(first: int, end: int) -> None:
            self._backward(
                *_pointers(grad, gates, taken, hidden, weight, by_gate, by_new, states), steps, len(counts),
                before, size, first, end,
            )  # fmt: skip

        by_gate, by_new, states = torch.empty_like(gates), torch.empty_like(hidden), torch.empty_like(hidden)
        steps = (ctypes.c_int64 * len(counts))(*counts)
        _in_threads(part, counts[0])
        return by_gate, by_new, states


def _pointers(*tensors: torch.Tensor) -> list[int]:
    assert all(tensor.is_contiguous() for tensor in tensors)
    return [tensor.data_ptr() for tensor in tensors]


def _in_threads(part: Callable[[int, int], None], n_rows: int) -> None:
    """Do ``part`` of all rows, from one to before another, in as many threads as torch has."""
    n_parts = min(torch.get_num_threads(), n_rows // _ROWS_OF_A_THREAD)
    if n_parts < 2:
        part(0, n_rows)
        return
    ends = [n_rows * i // n_parts for i in range(n_parts + 1)]
    list(_threads(torch.get_num_threads()).map(part, ends, ends[1:]))


@functools.cache
def _threads(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, "limask-gru")


@functools.cache
def kernel() -> Kernel | None:
    """The kernel of this machine, made if need be; None where it cannot be made."""
    compiler = shlex.split(os.environ.get("CC") or "cc")
    folder, found = own_folder("gru"), shutil.which(compiler[0])
    if folder is None or found is None:
        _log.info("no C compiler, or no folder for what it makes: GRUs are computed by torch's operations")
        return None
    made_of = f"{_SOURCE.read_text(encoding='utf-8')}{found} {compiler[1:]} {_ALWAYS} {_FLAGS}"
    file = folder / f"{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.so"
    try:
        if not file.exists():
            start = time.perf_counter()
            replace(file, lambda temporary: _compile([found, *compiler[1:]], temporary))
            _log.info("GRUs are computed by %s, compiled in %.1f s", file, time.perf_counter() - start)
        return Kernel(file)
    except (OSError, subprocess.SubprocessError) as error:
        _log.info("GRUs are computed by torch's operations: %s", error)
        return None


def _compile(compiler: Sequence[str], file: Path) -> None:
    """Raises the last attempt's error."""
    for i, flags in enumerate(_FLAGS):
        command = [*compiler, *_ALWAYS, *flags, "-o", str(file), str(_SOURCE)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=60, text=True)
            return
        except subprocess.CalledProcessError as error:
            if i == len(_FLAGS) - 1:
                raise OSError(f"{shlex.join(command)} failed: {error.stderr.strip()}") from error
