"""The agent's acting step, compiled.

A time step of a few environments is some fifty operations on tensors so small that torch's own handling of
each takes longer than its arithmetic. AOTInductor makes one function of them, by way of a C++ compiler.

Axes: R rows (environments × agents), D input features, H hidden size, A actions.
"""

from __future__ import annotations

import copy
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

_log = logging.getLogger("limask.acting.compiled")

#: Inputs (R, D) and hidden states (R, H) → Q-values (R, A) and hidden states (R, H).
Step = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class Agent(Protocol):
    """A module that acts step by step."""

    def step(self, inputs: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``Step``."""


class CompiledStep:
    """The ``step`` of an agent, compiled at the first call for the sizes of that call.

    Other sizes, devices other than the CPU and machines on which it cannot be compiled get the agent's own.
    Parameters may change between calls, buffers that the step reads may not.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._sizes: tuple[torch.Size, torch.Size] | None = None
        self._compiled: Step | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledStep:
        """Of the copied agent, not compiled yet: most copies are target networks, which never act."""
        return CompiledStep(copy.deepcopy(self._agent, memo))

    def __call__(self, inputs: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs (R, D), hidden states (…, H) → Q-values (R, A), hidden states (R, H), without gradients."""
        # The compiled function takes for granted how its arguments lie in memory.
        inputs, hidden = inputs.contiguous(), hidden.reshape(-1, hidden.shape[-1]).contiguous()
        sizes = inputs.shape, hidden.shape
        if self._sizes is None and inputs.device.type == "cpu":
            self._sizes = sizes
            # What the step makes once and keeps must not be made while it is only traced.
            self._agent.step(inputs, hidden)
            self._compiled = _compiled(self._agent, inputs, hidden)
        step = self._agent.step if self._compiled is None or sizes != self._sizes else self._compiled
        q_values, hidden = step(inputs, hidden)
        return q_values, hidden


class _Stepping(nn.Module):
    """``forward`` is the agent's ``step``."""

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.agent = agent

    def forward(self, inputs: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.agent.step(inputs, hidden)


class _Function(nn.Module):
    """A ``module`` as a function of its parameters also: what is compiled has none that could lag behind."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.names = [name for name, _ in module.named_parameters()]
        self.modules_outside = [module]  # in a list, so that its parameters do not become this module's own

    def forward(self, parameters: list[torch.Tensor], inputs: torch.Tensor, hidden: torch.Tensor) -> Any:
        named = dict(zip(self.names, parameters, strict=True))
        return torch.func.functional_call(self.modules_outside[0], named, (inputs, hidden))


def _compiled(agent: Agent, inputs: torch.Tensor, hidden: torch.Tensor) -> Step | None:
    """The step for these sizes, or None where it cannot be compiled, which is logged either way."""
    stepping = _Stepping(agent)
    parameters = list(stepping.parameters())
    start = time.perf_counter()
    try:
        with torch.no_grad(), warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")  # torch's own, of itself
            program = torch.export.export(_Function(stepping), (parameters, inputs, hidden))
            path = str(Path(folder) / "step.pt2")
            torch._inductor.aoti_compile_and_package(program, package_path=path)
            compiled = torch._inductor.aoti_load_package(path)
    except Exception as error:  # a compiler that is missing, or fails, shows in many ways
        reason = str(error).strip().partition("\n")[0]
        _log.warning(
            "lim.compile: the acting step runs uncompiled; compiling it, which takes a C++ compiler, failed: "
            "%s: %s",
            type(error).__name__,
            reason,
        )
        return None
    _log.info("lim.compile: compiled the acting step in %.0f s", time.perf_counter() - start)
    return lambda inputs, hidden: compiled(parameters, inputs, hidden)
