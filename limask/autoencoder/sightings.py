"""What an agent remembers of each entity: its last sighting.

Axes: R rows (agents fastest), S rows of all time steps in the order of ``Packing``, K tokens (of a kind),
D features of a token, O features of an observation, E of the agent itself, G of all sightings, C sightings
chosen.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from limask.layouts import Layout, token_starts, tokens

#: What is left of a sighting's freshness after each time step: about 30 steps are told apart.
FADING = 0.9


class Chosen(NamedTuple):
    """Some sightings of a kind: of ``rows`` (C,) and ``slots`` (C,), the ``sightings`` (C, D + E + 1)."""

    rows: torch.Tensor
    slots: torch.Tensor
    sightings: torch.Tensor


class Sightings(nn.Module):
    """Of each token that may be hidden the D features that it last showed, the E that the agent itself had
    then, and how fresh that is: 1 when seen now, times ``FADING`` for each step since. All are 0 if it was
    never seen.

    Args:
        layout: of the observations.
    """

    own_columns: torch.Tensor
    columns: torch.Tensor
    tokens: torch.Tensor
    fading: torch.Tensor

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout, self.groups = layout, [group for group in layout.groups if group.is_hideable]
        self.own_size = layout.obs_size - layout.hideable_size
        #: G, of all sightings.
        self.size = sum(group.count * self.width(group.kind) for group in self.groups)
        starts = itertools.accumulate((group.size for group in layout.groups), initial=0)
        spans = [
            (group, range(start, start + group.size))
            for group, start in zip(layout.groups, starts, strict=False)
        ]
        own = [column for group, span in spans if not group.is_hideable for column in span]
        columns: list[int] = []
        of_tokens: list[int] = []
        for (group, span), token in zip(spans, token_starts(layout), strict=True):
            for k in range(group.count * group.is_hideable):
                columns += [*span[k * group.width : (k + 1) * group.width], *own, layout.obs_size]
                of_tokens += [token + k] * self.width(group.kind)
        fading = torch.ones(self.size)
        for part in self.split(fading).values():
            part[..., -1] = FADING
        # Of an observation that a one follows: the agent's own features (E,), and those of all sightings (G,)
        # as if all tokens were seen; the token (G,) that each of these is of, and what is left of it a time
        # step later.
        self.register_buffer("own_columns", torch.tensor(own, dtype=torch.long), persistent=False)
        self.register_buffer("columns", torch.tensor(columns), persistent=False)
        self.register_buffer("tokens", torch.tensor(of_tokens), persistent=False)
        self.register_buffer("fading", fading, persistent=False)

    def width(self, kind: str) -> int:
        """Features of one sighting of that kind, D + E + 1."""
        group = self.layout.group(kind)
        assert group is not None
        return group.width + self.own_size + 1

    @property
    def widths(self) -> dict[str, int]:
        """See ``width``, of each kind."""
        return {group.kind: self.width(group.kind) for group in self.groups}

    def split(self, remembered: torch.Tensor) -> dict[str, torch.Tensor]:
        """All sightings (R, G) → those of each kind (R, K, D + E + 1)."""
        parts = remembered.split([group.count * self.width(group.kind) for group in self.groups], dim=-1)
        return {
            group.kind: part.unflatten(-1, (group.count, -1))
            for group, part in zip(self.groups, parts, strict=True)
        }

    def own(self, obs: torch.Tensor) -> torch.Tensor:
        """Observations (R, O) → the agents' own features (R, E)."""
        return obs.index_select(1, self.own_columns)

    def after(self, obs: torch.Tensor, is_visible: torch.Tensor, remembered: torch.Tensor) -> torch.Tensor:
        """Sightings (R, G) after the observations (R, O) of the next time step, which show tokens as
        ``is_visible`` (R, K) bool says."""
        is_new = is_visible.index_select(1, self.tokens)
        now = nn.functional.pad(obs, (0, 1), value=1.0).index_select(1, self.columns)
        return torch.where(is_new, now, remembered * self.fading)

    def sequence(self, obs: torch.Tensor, is_visible: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """The same over whole episodes: observations (S, O) that show these tokens (S, K), ``counts`` rows at
        each time step, not increasing → sightings (S, G)."""
        of_kind = self.chosen(obs, is_visible, counts, torch.ones_like(is_visible))
        return torch.cat([part.sightings.view(len(obs), -1) for part in of_kind.values()], dim=1)

    def chosen(
        self,
        obs: torch.Tensor,
        is_visible: torch.Tensor,
        counts: list[int],
        is_wanted: torch.Tensor,
    ) -> dict[str, Chosen]:
        """Those of each kind that are wanted (S, K) bool, of observations (S, O) in the order of ``Packing``,
        which show tokens as ``is_visible`` (S, K) says; ``counts`` rows at each time step."""
        of_kinds = self._of_kinds(is_wanted)
        parts, own, is_seen = tokens.split(obs, self.layout), self.own(obs), self._of_kinds(is_visible)
        last, fresh = _last_seen(torch.cat(list(is_seen.values()), dim=1), counts, obs.dtype)
        found, first = {}, 0
        for group in self.groups:
            rows, slots = of_kinds[group.kind].nonzero(as_tuple=True)
            # Row and slot as one index: a gather by two takes several times as long.
            index = rows * last.shape[1] + (slots + first)
            where, how_fresh = last.view(-1).index_select(0, index), fresh.view(-1).index_select(0, index)
            shown = parts[group.kind].reshape(-1, group.width).index_select(0, where * group.count + slots)
            both = torch.cat([shown, own.index_select(0, where)], dim=1)
            both *= (how_fresh > 0).unsqueeze(1)
            found[group.kind] = Chosen(rows, slots, torch.cat([both, how_fresh.unsqueeze(1)], dim=1))
            first += group.count
        return found

    def of_tokens(self, remembered: torch.Tensor, is_wanted: torch.Tensor) -> torch.Tensor:
        """All sightings (R, G), and zeros for those of tokens that are not ``is_wanted`` (R, K) bool."""
        return remembered * is_wanted.index_select(1, self.tokens)

    def spread(
        self, chosen: Mapping[str, Chosen], features: Mapping[str, torch.Tensor], n_rows: int
    ) -> torch.Tensor:
        """Some ``features`` (C, F) of the ``chosen`` sightings of each kind, and zeros of all others, in
        ``n_rows``: (R, K · F of all kinds)."""
        parts = []
        for group in self.groups:
            of_kind, (rows, slots, _) = features[group.kind], chosen[group.kind]
            whole = of_kind.new_zeros(n_rows * group.count, of_kind.shape[1])
            parts.append(whole.index_copy_(0, rows * group.count + slots, of_kind).view(n_rows, -1))
        return torch.cat(parts, dim=1)

    def _of_kinds(self, of_tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        """Of tokens of all kinds (R, K) → of those of each that may be hidden."""
        parts = of_tokens.split([group.count for group in self.layout.groups], dim=1)
        return {g.kind: part for g, part in zip(self.layout.groups, parts, strict=True) if g.is_hideable}


def _last_seen(
    is_seen: torch.Tensor, counts: list[int], dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens seen (S, K) bool → the row of each one's last sighting (S, K), any row where there is none, and
    its freshness (S, K), 0 there, of type ``dtype``."""
    rows = torch.arange(len(is_seen), device=is_seen.device).unsqueeze(1)
    last, fresh = rows.repeat(1, is_seen.shape[1]), is_seen.to(dtype)
    start = counts[0]
    for before, count in zip(counts, counts[1:], strict=False):
        now, was = slice(start, start + count), slice(start - before, start - before + count)
        torch.where(is_seen[now], last[now], last[was], out=last[now])
        fresh[now] = torch.maximum(fresh[now], fresh[was] * FADING)
        start += count
    return last, fresh
