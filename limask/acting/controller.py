"""The multi-agent controller: the host's own, plus whole episodes at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from limask.acting.agent import LimAgent
from limask.faults import BatchSource, Faults, FaultyEpisodes
from limask.networks.packing import Packing
from limask.protocols import Args, EpisodeBatch

#: Added to a run's seed: faults have a stream of random numbers of their own.
FAULT_STREAM = 7919


class LimMac:
    """Mixed in before a host's ``BasicMAC``, which builds the agent and acts step by step.

    ``latest`` are the episodes last acted in (not in tests), kept where an autoencoder reads windows of them:
    it may learn from them.
    """

    agent: LimAgent
    n_agents: int
    args: Args
    hidden_states: torch.Tensor
    latest: EpisodeBatch | None = None
    _faulty: FaultyEpisodes | None = None
    _fault_generator: torch.Generator | None = None

    def init_hidden(self, batch_size: int) -> None:
        """Zero hidden states (B, N, H + W) at the start of ``batch_size`` episodes."""
        self.hidden_states = self.agent.init_hidden().unsqueeze(0).expand(batch_size, self.n_agents, -1)

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """What Q-learning trains: all of the agent but an autoencoder inside it."""
        return iter(self.agent.q_parameters())

    @torch.no_grad()  # some hosts' runners would keep what a gradient needs of a whole episode
    def select_actions(
        self, ep_batch: EpisodeBatch, *args: Any, test_mode: bool = False, **kwargs: Any
    ) -> Any:
        """See the host's."""
        if not test_mode:
            if self.agent.window:
                self.latest = ep_batch
            if self.agent.faults is not None and self.agent.config.faults.collect:
                self._go_wrong(self.agent.faults, ep_batch, kwargs["t_ep"] if "t_ep" in kwargs else args[0])
        self.agent.is_acting = True
        try:
            return super().select_actions(ep_batch, *args, test_mode=test_mode, **kwargs)  # type: ignore[misc]
        finally:
            self.agent.is_acting = False

    def _go_wrong(self, faults: Faults, ep_batch: EpisodeBatch, t: int) -> None:
        """Write into the episodes what the agents get of their observations at time step ``t``. The hosts'
        parallel runners choose no action on an episode's last one, which then stays as it was."""
        obs = ep_batch.data.transition_data["obs"]
        if self._fault_generator is None:
            seed = int(self.args.seed) + FAULT_STREAM
            self._fault_generator = torch.Generator(obs.device).manual_seed(seed)
        if t == 0 or self._faulty is None:
            source = BatchSource(self._fault_generator, ep_batch.batch_size)
            self._faulty = faults.draw(source, ep_batch.max_seq_length)
        obs[:, t] = self._faulty.observe_next(obs[:, t])

    def sequence_inputs(
        self, batch: EpisodeBatch, packing: Packing, obs: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Agent inputs of all filled steps: (M, N, D), in the order of the host's ``_build_inputs``, and
        behind them what is inferred from windows; ``obs`` (B, T, N, O) stand in for the batch's own."""
        if self.agent.window:
            inputs, taken = self.step_inputs(batch)
            return self._with_inferences(inputs, taken, packing.index)
        obs, last = batch["obs"] if obs is None else obs, packing.pack(_shifted(batch["actions_onehot"], 0))
        behind = self._join(obs.new_empty(*last.shape[:2], 0), last)
        # Packed where it belongs: to pack first and then to join would copy all observations twice.
        joined = obs.new_empty(*last.shape[:2], obs.shape[3] + behind.shape[2])
        packing.pack(obs, out=joined[..., : obs.shape[3]])
        joined[..., obs.shape[3] :] = behind
        return joined

    def step_inputs(self, batch: EpisodeBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Agent inputs (B, T, N, D) of all steps, without inferences, and the actions taken (B, T, N, A)."""
        taken = batch["actions_onehot"]
        return self._join(batch["obs"], _shifted(taken, 0)), taken

    def _build_inputs(self, batch: EpisodeBatch, t: int) -> torch.Tensor:
        """Agent inputs (B · N, D) of time step ``t``; the host's method, with fewer operations, and what
        is inferred from the last steps."""
        taken, window = batch["actions_onehot"], self.agent.window
        if not window:
            last = taken[:, t - 1] if t else torch.zeros_like(taken[:, 0])
            return self._join(batch["obs"][:, t], last).flatten(0, 1)
        first = max(0, t + 1 - window)
        last = _shifted(taken[:, : t + 1], first)
        inputs = self._join(batch["obs"][:, first : t + 1], last)
        n_episodes, n_steps = inputs.shape[:2]
        index = torch.arange(1, n_episodes + 1, device=inputs.device) * n_steps - 1
        return self._with_inferences(inputs, taken[:, first : t + 1], index).flatten(0, 1)

    def _with_inferences(
        self, inputs: torch.Tensor, taken: torch.Tensor, index: torch.Tensor
    ) -> torch.Tensor:
        """Inputs (M, N, D + N · O) of the steps in ``index`` (M,) of the flattened (B · T): behind each
        agent's own what it infers of all observations. Nothing is learned through it.

        Args: see ``Autoencoder.infer_from_window``.
        """
        assert self.agent.autoencoder is not None
        inferred = self.agent.autoencoder.infer_from_window(inputs, taken, index)
        now = inputs.flatten(0, 1).index_select(0, index)
        return now if inferred is None else torch.cat([now, inferred], dim=2)

    def _join(self, obs: torch.Tensor, last_actions: torch.Tensor) -> torch.Tensor:
        """Observations (..., N, O) and last actions (..., N, A) → inputs (..., N, D)."""
        inputs = [obs]
        if self.args.obs_last_action:
            inputs.append(last_actions)
        if self.args.obs_agent_id:
            inputs.append(torch.eye(self.n_agents, device=obs.device).expand(*obs.shape[:-2], -1, -1))
        return torch.cat(inputs, dim=-1)


def _shifted(taken: torch.Tensor, first: int) -> torch.Tensor:
    """Actions taken (B, T, N, A) → last actions (B, T − first, N, A) of the steps from ``first`` on."""
    last = torch.zeros_like(taken[:, first:])
    last[:, 1:] = taken[:, first:-1]
    if first:
        last[:, 0] = taken[:, first - 1]
    return last
