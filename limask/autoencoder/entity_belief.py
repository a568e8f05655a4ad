"""Autoencoder ``entity_belief``: a belief whose weights are shared by kind, for teams of any size.

Axes: R rows (agents fastest), D features of an agent's input without inferences, O features of an
observation, E of the agent itself, W width of the context, G features of all sightings, K tokens of a kind,
P features of all tokens that may be hidden.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import cast

import torch
from torch import nn

from limask.autoencoder.belief import Belief, TokenDecoder
from limask.autoencoder.sightings import Sightings
from limask.config import LimConfig
from limask.layouts import Layout
from limask.networks.entity_trunk import EntityTrunk
from limask.networks.gru import packed_gru
from limask.networks.spec import AgentSpec
from limask.networks.transfer import Team


class EntityBeliefAutoencoder(Belief):
    """An entity trunk and a GRU make a context of what is observed; each token is decoded from that, from the
    agent's own features, and from the token's last sighting.

    A state is [context W | the agent itself E | sightings G].

    Args:
        spec: sizes of the agent and of its input.
        layout: the observation's layout, with kinds of entities.
        width: W, of all layers.
    """

    def __init__(self, spec: AgentSpec, layout: Layout, width: int) -> None:
        super().__init__(spec, layout)
        self.width, self.sightings = width, Sightings(layout)
        self.state_size = width + self.sightings.own_size + self.sightings.size
        self.trunk = EntityTrunk(dataclasses.replace(spec, hidden_dim=width), layout)
        self.rnn = nn.GRUCell(width, width)
        self.decoder = EntityBeliefDecoder(self.sightings, width)

    @classmethod
    def build(cls, spec: AgentSpec, layout: Layout, config: LimConfig) -> EntityBeliefAutoencoder:
        """See ``Autoencoder.build``."""
        return cls(spec, layout, config.autoencoder.width)

    def next_states(self, inputs: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """See ``Belief.next_states``."""
        obs = inputs[:, : self.obs_size]
        context = self.rnn(torch.relu_(self.trunk(inputs).features), states[:, : self.width])
        remembered = self.sightings.after(obs, states[:, -self.sightings.size :])
        return torch.cat([context, self.sightings.own(obs), remembered], dim=1)

    def states_of(
        self, inputs: torch.Tensor, counts: list[int], rows: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See ``Belief.states_of``."""
        x = torch.relu_(self.trunk(inputs).features)
        context, obs = packed_gru(self.rnn, x, counts), inputs[:, : self.obs_size]
        remembered = self.sightings.sequence(obs, counts, rows)
        own = self.sightings.own(obs)
        if rows is not None:
            context, own = context.index_select(0, rows), own.index_select(0, rows)
        return torch.cat([context, own, remembered], dim=1)


class EntityBeliefDecoder(TokenDecoder):
    """Two layers for each kind, over context, the agent's own features and a token's last sighting. A trained
    vector tells each slot from the others, as the same unit stands there in every battle of a map.

    Args:
        sightings: what is remembered.
        width: W, of the context and of the layer between.
    """

    def __init__(self, sightings: Sightings, width: int) -> None:
        super().__init__(sightings.layout)
        self.sightings, self.width = sightings, width
        self.from_agent = nn.Linear(width + sightings.own_size, width)
        self.from_sighting = nn.ModuleDict(
            {g.kind: nn.Linear(sightings.width(g.kind), width, bias=False) for g in self.groups}
        )
        self.slots = nn.ParameterDict({g.kind: torch.zeros(g.count, width) for g in self.groups})
        self.to_features = nn.ModuleDict({g.kind: nn.Linear(width, g.width) for g in self.groups})

    def fitted(self, weights: Mapping[str, torch.Tensor], before: Team) -> dict[str, torch.Tensor]:
        """See ``SizeFree.fitted``: each slot of another number of them has their mean."""
        slots = {f"slots.{group.kind}": group.count for group in self.groups}
        return {
            name: weights[name].mean(dim=0, keepdim=True).expand(count, -1)
            for name, count in slots.items()
            if count != len(weights[name])
        }

    def _decode(self, hidden: torch.Tensor) -> torch.Tensor:
        """See ``TokenDecoder._decode``."""
        n_agent = self.width + self.sightings.own_size
        base = self.from_agent(hidden[:, :n_agent]).unsqueeze(1)
        decoded = []
        for kind, sighting in self.sightings.split(hidden[:, n_agent:]).items():
            between = cast(nn.Linear, self.from_sighting[kind])(sighting) + base + self.slots[kind]
            decoded.append(self.to_features[kind](torch.relu_(between)).flatten(1))
        return torch.cat(decoded, dim=1)
