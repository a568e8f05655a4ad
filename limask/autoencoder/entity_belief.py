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
from limask.autoencoder.sightings import Chosen, Sightings
from limask.config import LimConfig
from limask.layouts import Layout, tokens
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
        hands_on: whether the agent gets the sighting beside what is decoded from it.
        denoises: see ``Belief``.
    """

    decoder: EntityBeliefDecoder
    side_by_side: torch.Tensor

    def __init__(
        self, spec: AgentSpec, layout: Layout, width: int, hands_on: bool = False, denoises: bool = False
    ) -> None:
        super().__init__(spec, layout, denoises)
        self.hands_on = hands_on
        self.width, self.sightings = width, Sightings(layout)
        self.state_size = width + self.sightings.own_size + self.sightings.size
        self.trunk = EntityTrunk(dataclasses.replace(spec, hidden_dim=width), layout)
        self.rnn = nn.GRUCell(width, width)
        self.decoder = EntityBeliefDecoder(self.sightings, width)
        self.register_buffer("side_by_side", self._side_by_side(), persistent=False)

    def _side_by_side(self) -> torch.Tensor:
        """Where in [all that is decoded P | all sightings G] each token's features and its sighting are."""
        columns: list[int] = []
        decoded, sighting = 0, sum(group.size for group in self.sightings.groups)
        for group in self.sightings.groups:
            width = self.sightings.width(group.kind)
            for _ in range(group.count):
                columns += [*range(decoded, decoded + group.width), *range(sighting, sighting + width)]
                decoded, sighting = decoded + group.width, sighting + width
        return torch.tensor(columns)

    @classmethod
    def build(cls, spec: AgentSpec, layout: Layout, config: LimConfig) -> EntityBeliefAutoencoder:
        """See ``Autoencoder.build``."""
        own = config.autoencoder
        return cls(spec, layout, own.width, own.sightings, own.denoise)

    @classmethod
    def inferred_widths(cls, layout: Layout, config: LimConfig) -> dict[str, int]:
        """See ``Autoencoder.inferred_widths``: what is decoded, D, and the sighting behind it, D + E + 1."""
        widths, sightings = super().inferred_widths(layout, config), Sightings(layout)
        return {
            kind: width + sightings.width(kind) * config.autoencoder.sightings
            for kind, width in widths.items()
        }

    def inferred_in(self, states: torch.Tensor, is_wanted: torch.Tensor) -> torch.Tensor:
        """See ``Belief.inferred_in``."""
        inferred = super().inferred_in(states, is_wanted)
        if not self.hands_on:
            return inferred
        remembered = self.sightings.of_tokens(states[:, -self.sightings.size :], is_wanted)
        return torch.cat([inferred, remembered], dim=1).index_select(1, self.side_by_side)

    def next_states(
        self, inputs: torch.Tensor, states: torch.Tensor, is_visible: torch.Tensor
    ) -> torch.Tensor:
        """See ``Belief.next_states``."""
        obs = inputs[:, : self.obs_size]
        context = self.rnn(torch.relu_(self.trunk(inputs).features), states[:, : self.width])
        remembered = self.sightings.after(obs, is_visible, states[:, -self.sightings.size :])
        return torch.cat([context, self.sightings.own(obs), remembered], dim=1)

    def states_of(self, inputs: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """See ``Belief.states_of``."""
        obs = inputs[:, : self.obs_size]
        is_visible = tokens.visibility(obs, self.decoder.layout)
        remembered = self.sightings.sequence(obs, is_visible, counts)
        return torch.cat([self._agents(inputs, is_visible, counts), remembered], dim=1)

    def inferred_of(self, inputs: torch.Tensor, counts: list[int], rows: torch.Tensor | None) -> torch.Tensor:
        """See ``Belief.inferred_of``; no more is decoded than what is wanted."""
        obs = inputs[:, : self.obs_size]
        is_visible = tokens.visibility(obs, self.decoder.layout)
        chosen = self.sightings.chosen(obs, is_visible, counts, self.wanted(is_visible, self.decoder.layout))
        of_chosen = self.decoder.infer_chosen(self._agents(inputs, is_visible, counts), chosen)
        if self.hands_on:
            of_chosen = {k: torch.cat([of, chosen[k].sightings], dim=1) for k, of in of_chosen.items()}
        inferred = self.sightings.spread(chosen, of_chosen, len(obs))
        return inferred if rows is None else inferred.index_select(0, rows)

    def _agents(self, inputs: torch.Tensor, is_visible: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """What of the states is not of sightings, (S, W + E), with the tokens (S, K) that are shown."""
        obs = inputs[:, : self.obs_size]
        shown = is_visible.any(dim=1).nonzero().squeeze(1)
        features = self.trunk.encode(self.trunk.gather(inputs, None, shown)).features
        return torch.cat(
            [packed_gru(self.rnn, torch.relu_(features), counts), self.sightings.own(obs)], dim=1
        )


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

    def infer_chosen(self, agents: torch.Tensor, chosen: Mapping[str, Chosen]) -> dict[str, torch.Tensor]:
        """What is inferred of those of each kind that are chosen (C, D); states ``agents`` (R, W + E)."""
        base, inferred = self.from_agent(agents), {}
        for kind, (rows, slots, sightings) in chosen.items():
            of_slots = self.slots[kind].index_select(0, slots)
            inferred[kind] = self._features(kind, sightings, base.index_select(0, rows), of_slots)
        return inferred

    def _decode(self, hidden: torch.Tensor) -> torch.Tensor:
        """See ``TokenDecoder._decode``."""
        agents, remembered = hidden.split([hidden.shape[1] - self.sightings.size, self.sightings.size], dim=1)
        base = self.from_agent(agents).unsqueeze(1)
        decoded = [
            self._features(kind, sightings, base, self.slots[kind]).flatten(1)
            for kind, sightings in self.sightings.split(remembered).items()
        ]
        return torch.cat(decoded, dim=1)

    def _features(
        self, kind: str, sightings: torch.Tensor, base: torch.Tensor, slots: torch.Tensor
    ) -> torch.Tensor:
        """Sightings (..., D + E + 1), what comes of their agents (..., W) and their slots' vectors (..., W) →
        standardised features (..., D)."""
        between = cast(nn.Linear, self.from_sighting[kind])(sightings) + base + slots
        features: torch.Tensor = self.to_features[kind](torch.relu_(between))
        return features
