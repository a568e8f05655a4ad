"""What limask needs of a host's objects, and nothing more.

The families of PyMARL have classes of the same shape under the same names, and none of them is imported where
limask is: these are their shapes. ``Any`` stands where a host may pass what it likes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, overload

if TYPE_CHECKING:  # commands that need no torch do not wait for it
    import logging

    import torch
    from torch import nn

#: Options as YAML holds them, by name: of a config, of an environment, of a block.
Block: TypeAlias = Mapping[str, Any]

#: What a checkpoint or a file of JSON keeps, by name.
State: TypeAlias = dict[str, Any]


class EpisodeBatch(Protocol):
    """Episodes, padded to the longest; tensors (B, T, …) by name."""

    batch_size: int
    max_seq_length: int
    data: Any

    @overload
    def __getitem__(self, item: str) -> torch.Tensor: ...
    @overload
    def __getitem__(self, item: slice | list[int] | tuple[slice, slice]) -> EpisodeBatch: ...


class Args(Protocol):
    """A run's options, after the environment has been built. Families have more, and not all have each."""

    agent: str
    agent_output_type: str
    agent_own_state_size: int | bool
    batch_size: int
    batch_size_run: int
    buffer_cpu_only: bool
    buffer_size: int
    device: str
    double_q: bool
    env: str
    env_args: Block
    evaluation_epsilon: float
    gamma: float
    grad_norm_clip: float
    hidden_dim: int
    learner: str
    learner_log_interval: int
    lim: object
    mac: str
    mixer: str | None
    n_actions: int
    n_agents: int
    obs_agent_id: bool
    obs_last_action: bool
    rnn_hidden_dim: int
    runner_log_interval: int
    seed: int
    standardise_returns: bool
    standardise_rewards: bool
    t_max: int
    test_nepisode: int
    use_cuda: bool


class Logger(Protocol):
    """A host's logger of statistics."""

    console_logger: logging.Logger

    def log_stat(self, key: str, value: float, t: int, to_sacred: bool = True) -> None:
        """Log a value at ``t`` environment steps."""


class RunningStatistics(Protocol):
    """A host's running mean and variance of rewards."""

    mean: torch.Tensor
    var: torch.Tensor

    def update(self, values: torch.Tensor) -> None:
        """Take in values."""


class Mac(Protocol):
    """A host's controller, with limask's in front of it."""

    agent: Any
    action_selector: Any
    latest: EpisodeBatch | None
    hidden_states: torch.Tensor

    def init_hidden(self, batch_size: int) -> None:
        """Start ``batch_size`` episodes."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """What Q-learning trains."""

    def sequence_inputs(
        self, batch: EpisodeBatch, packing: Any, obs: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See ``LimMac``."""

    def step_inputs(self, batch: EpisodeBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``LimMac``."""

    def _build_inputs(self, batch: EpisodeBatch, t: int) -> torch.Tensor: ...

    def forward(self, ep_batch: EpisodeBatch, t: int, test_mode: bool = False) -> torch.Tensor:
        """Action values (B, N, A) at time step ``t``; steps the hidden states."""

    def select_actions(self, ep_batch: EpisodeBatch, *args: Any, **kwargs: Any) -> Any:
        """Actions, and with some families more."""

    def cuda(self) -> None:
        """Move to the GPU."""

    def cpu(self) -> None:
        """Move to the CPU."""


class Learner(Protocol):
    """A host's learner, as its family's adapter sees it."""

    args: Any
    mac: Mac
    target_mac: Mac
    mixer: nn.Module | None
    target_mixer: nn.Module
    params: list[nn.Parameter]
    target_params: list[nn.Parameter]
    training_steps: int
    last_target_update_step: int
    last_target_update_episode: int

    def _update_targets(self) -> None: ...

    def _update_targets_hard(self) -> None: ...


class Runner(Protocol):
    """A host's runner of episodes."""

    args: Any
    batch: EpisodeBatch
    batch_size: int
    env: Any
    logger: Any
    mac: Mac
    t_env: int

    def run(self, test_mode: bool = False) -> Any:
        """Play ``batch_size`` episodes."""

    def get_env_info(self) -> dict[str, int]:
        """Sizes of the environment."""

    def close_env(self) -> None:
        """Release it."""
