"""Autoencoder ``sightings``: what a belief has to beat. Agents get each entity's last sighting as it was.

Axes: R rows (agents fastest), S rows of all time steps, D features of a token, E of the agent itself,
O features of an observation, G of all sightings, P features of all tokens that may be hidden.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import cast

import torch

from limask.autoencoder.belief import Belief, TokenDecoder
from limask.autoencoder.losses import Standardiser
from limask.autoencoder.sightings import Sightings
from limask.config import LimConfig
from limask.errors import LimaskError
from limask.layouts import Layout, tokens
from limask.networks.spec import AgentSpec


class SightingsAutoencoder(Belief):
    """A memory, and nothing that is trained: of each token out of sight the agent gets what it last showed,
    what the agent itself was like then, and how long ago that was.

    A state is all sightings, G.

    Args:
        spec: sizes of the agent and of its input.
        layout: the observation's layout, with kinds of entities.
    """

    unused = MappingProxyType({
        **Belief.unused, "autoencoder.weight": 0.0, "autoencoder.saliency_weights": False,
        "autoencoder.sightings": False, "autoencoder.denoise": False,
    })  # fmt: skip
    is_trained = False

    def __init__(self, spec: AgentSpec, layout: Layout) -> None:
        super().__init__(spec, layout)
        self.sightings = Sightings(layout)
        self.state_size = self.sightings.size
        self.decoder = LastShown(self.sightings)

    @classmethod
    def build(cls, spec: AgentSpec, layout: Layout, config: LimConfig) -> SightingsAutoencoder:
        """See ``Autoencoder.build``."""
        return cls(spec, layout)

    @classmethod
    def check(cls, config: LimConfig) -> None:
        """See ``Autoencoder.check``: with nothing to train, only Q-learning can use a mask."""
        if config.masker.name != "none" and config.masker.replay == 0 and config.view.weight == 0:
            raise LimaskError(
                f"lim.masker.name={config.masker.name!r} with lim.autoencoder.name='sightings', which learns "
                "nothing from the mask; set lim.masker.name='none', or lim.masker.replay above 0"
            )

    @classmethod
    def inferred_widths(cls, layout: Layout, config: LimConfig) -> dict[str, int]:
        """See ``Autoencoder.inferred_widths``: D + E + 1."""
        return Sightings(layout).widths

    def next_states(
        self, inputs: torch.Tensor, states: torch.Tensor, is_visible: torch.Tensor
    ) -> torch.Tensor:
        """See ``Belief.next_states``."""
        return self.sightings.after(inputs[:, : self.obs_size], is_visible, states)

    def states_of(self, inputs: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """See ``Belief.states_of``."""
        obs = inputs[:, : self.obs_size]
        return self.sightings.sequence(obs, tokens.visibility(obs, self.sightings.layout), counts)

    def inferred_of(self, inputs: torch.Tensor, counts: list[int], rows: torch.Tensor | None) -> torch.Tensor:
        """See ``Belief.inferred_of``."""
        obs, layout = inputs[:, : self.obs_size], self.sightings.layout
        is_visible = tokens.visibility(obs, layout)
        chosen = self.sightings.chosen(obs, is_visible, counts, self.wanted(is_visible, layout))
        inferred = self.sightings.spread(
            chosen, {kind: of.sightings for kind, of in chosen.items()}, len(obs)
        )
        return inferred if rows is None else inferred.index_select(0, rows)

    def inferred_in(self, states: torch.Tensor, is_wanted: torch.Tensor) -> torch.Tensor:
        """See ``Belief.inferred_in``."""
        return self.sightings.of_tokens(states, is_wanted)


class LastShown(TokenDecoder):
    """Takes every token to be as it last was.

    Args:
        sightings: what is remembered.
    """

    def __init__(self, sightings: Sightings) -> None:
        super().__init__(sightings.layout)
        self.sightings = sightings

    def _decode(self, hidden: torch.Tensor) -> torch.Tensor:
        """See ``TokenDecoder._decode``."""
        shown = [
            cast(Standardiser, self.standardisers[group.kind])(of_kind[..., : group.width]).flatten(1)
            for group, of_kind in zip(self.groups, self.sightings.split(hidden).values(), strict=True)
        ]
        return torch.cat(shown, dim=1)
