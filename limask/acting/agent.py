"""The agent: trunk, GRU, Q head; one time step for acting, whole episodes for learning.

Axes: R rows (episodes × agents, or filled steps × agents, agents fastest), M filled steps, N agents, D input
features, H hidden size, W width of a belief, A actions, P features of inferences.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from limask import autoencoder
from limask.acting.compiled import CompiledStep
from limask.autoencoder import Autoencoder
from limask.autoencoder.base import Place
from limask.config import LimConfig
from limask.faults import read_faults
from limask.layouts import Layout, tokens
from limask.networks.entity_trunk import EntityHead, EntityTrunk
from limask.networks.gru import packed_gru
from limask.networks.spec import AgentSpec
from limask.networks.trunks import (
    BeliefTrunk,
    FcHead,
    FcTrunk,
    GatedLinear,
    Joined,
    TeamTrunk,
    n_inferred,
)

#: Share of the rows up to which it pays to encode only those that show anything.
FEW = 0.9


class LimAgent(nn.Module):
    """Trunk, GRU (or a feed-forward layer) and head, shared by all agents.

    The submodules carry the names of the hosts' RNN agent, so that its checkpoints load into trunk ``fc``.
    ``autoencoder`` is the one that takes part in acting, or None; what it infers enters at its ``place``.
    """

    autoencoder: Autoencoder | None

    def __init__(self, spec: AgentSpec, config: LimConfig, layout: Layout) -> None:
        super().__init__()
        self.spec, self.config, self.layout = spec, config, layout
        hidden_dim = spec.hidden_dim
        kind = autoencoder.REGISTRY[config.autoencoder.name]
        place = "nowhere" if kind is None else kind.place(config.autoencoder.use_inference)
        # Without entities, one linear layer over all feature groups is what the entity trunk would compute.
        is_entity = config.trunk == "entity" and bool(layout.kinds)
        widths = {} if kind is None else kind.inferred_widths(layout, config)
        self.fc1 = _trunk(spec, layout, is_entity, place, widths)
        self.rnn: nn.Module = (
            nn.GRUCell(hidden_dim, hidden_dim) if spec.is_recurrent else nn.Linear(hidden_dim, hidden_dim)
        )
        self.fc2: nn.Module = EntityHead(spec, layout) if is_entity else FcHead(hidden_dim, spec.n_actions)
        #: What may go wrong with what it observes in training, or None.
        self.faults = read_faults(config.faults.severities(), layout, spec.n_agents, "lim.faults")
        self.compiled = CompiledStep(self) if config.compile else None
        self.is_acting = False  # what learns from single steps needs their gradients
        self.autoencoder = None
        if kind is not None and place != "nowhere":
            # The same seed gives the weights, and until the gates open the run, of an agent without.
            with torch.random.fork_rng(devices=[]):
                self.autoencoder = kind.build(spec, layout, config)
                if place == "head":
                    self.join = Joined(n_inferred(layout, widths), hidden_dim)

    @property
    def window(self) -> int:
        """Last time steps that the controller has to show the autoencoder; 0 = it asks for none."""
        return 0 if self.autoencoder is None else self.autoencoder.window

    def init_hidden(self) -> torch.Tensor:
        """Zeros (1, H + W), with an autoencoder's own state behind the agent's, on the agent's device."""
        width = 0 if self.autoencoder is None else self.autoencoder.state_size
        return next(self.parameters()).new_zeros(1, self.spec.hidden_dim + width)

    def q_parameters(self) -> list[nn.Parameter]:
        """What Q-learning trains: all but an autoencoder inside the agent."""
        of_autoencoder = [] if self.autoencoder is None else self.autoencoder.parameters()
        not_trained = {id(parameter) for parameter in of_autoencoder}
        return [parameter for parameter in self.parameters() if id(parameter) not in not_trained]

    def open_gates(self, is_open: bool) -> None:
        """Whether Q-learning trains the layers through which inferences enter. They begin at zero: until it
        does, the agent acts as if nothing were inferred."""
        for module in self.modules():
            if isinstance(module, GatedLinear):
                module.open(is_open)

    def forward(self, inputs: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``step``."""
        step = self.compiled if self.compiled is not None and self.is_acting else self.step
        return step(inputs, hidden)

    def step(self, inputs: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One time step: inputs (R, D) and hidden states (…, H + W) → Q-values (R, A), hidden states
        (R, H + W); see ``init_hidden``."""
        if self.autoencoder is None:
            return self._step(inputs, hidden)
        sizes = [self.spec.hidden_dim, self.autoencoder.state_size]
        hidden, states = hidden.reshape(-1, sum(sizes)).split(sizes, dim=1)
        inferred, states = self.autoencoder.infer_step(inputs, states)
        q_values, hidden = self._step(
            inputs if inferred is None else torch.cat([inputs, inferred], dim=1), hidden
        )
        return q_values, torch.cat([hidden, states], dim=1)

    def _step(self, inputs: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        encoded = self.fc1(inputs)
        x = torch.relu_(encoded.features)
        if isinstance(self.rnn, nn.GRUCell):
            hidden = self.rnn(x, hidden.reshape(-1, self.spec.hidden_dim))
        else:
            hidden = torch.relu(self.rnn(x))
        return self.fc2(self._joined(hidden, inputs), encoded), hidden

    def _joined(self, hidden: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Hidden states (R, H) for the head, with what is inferred from them where it enters there."""
        if self.autoencoder is None:
            return hidden
        inferred = self.autoencoder.infer_from_hidden(hidden, inputs[:, : self.layout.obs_size])
        if inferred is None:
            return hidden
        joined: torch.Tensor = self.join(hidden, inferred)
        return joined

    def gather(self, inputs: torch.Tensor, counts: list[int]) -> Any:
        """What of whole episodes agents of these sizes need not find out twice, with what is inferred at the
        trunk; see ``sequence``."""
        rows = self._rows_to_encode(inputs) if self.fc1.skips_empty else None
        inferred = None if self.autoencoder is None else self.autoencoder.infer_episodes(inputs, counts, rows)
        return self.fc1.gather(inputs.flatten(0, 1), inferred, rows)

    def _rows_to_encode(self, inputs: torch.Tensor) -> torch.Tensor | None:
        """Of inputs (M, N, D) as rows, those whose observation is not all zeros, where that leaves out
        enough to pay: the dead see nothing."""
        is_all_inferred = self.autoencoder is not None and all(g.is_hideable for g in self.layout.groups)
        if is_all_inferred or self.layout.unseen:
            return None
        is_shown = tokens.is_shown(inputs[..., : self.layout.obs_size]).flatten()
        rows = is_shown.nonzero().squeeze(1)
        return rows if len(rows) < FEW * len(is_shown) else None

    def sequence(
        self, inputs: torch.Tensor, counts: list[int], gathered: Any = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Whole episodes from zero hidden states, with the same numbers as step by step.

        Args:
            inputs: (M, N, D), the filled steps of B episodes in the order of ``Packing``, and behind them
                what the controller has had inferred.
            counts: episodes at each time step.
            gathered: of the inputs, by ``gather``; None = it is done here.

        Returns:
            Q-values (M, N, A) and hidden states (M, N, H).
        """
        n_rows, n_agents, _ = inputs.shape
        encoded = self.fc1.encode(self.gather(inputs, counts) if gathered is None else gathered)
        x = torch.relu_(encoded.features)
        if isinstance(self.rnn, nn.GRUCell):
            hidden = packed_gru(self.rnn, x, [count * n_agents for count in counts])
        else:
            hidden = torch.relu(self.rnn(x))
        q = self.fc2(self._joined(hidden, inputs.flatten(0, 1)), encoded)
        return q.view(n_rows, n_agents, -1), hidden.view(n_rows, n_agents, -1)


def _trunk(
    spec: AgentSpec, layout: Layout, is_entity: bool, place: Place, widths: Mapping[str, int]
) -> EntityTrunk | FcTrunk | TeamTrunk:
    """The trunk that takes in inferences which enter at ``place``, of ``widths`` features by kind."""
    if place == "attention":
        return TeamTrunk(spec, layout.obs_size)
    if is_entity:
        return EntityTrunk(spec, layout, widths if place == "trunk" else None)
    return (
        BeliefTrunk(spec, layout, n_inferred(layout, widths))
        if place == "trunk"
        else FcTrunk(spec, layout.obs_size)
    )
