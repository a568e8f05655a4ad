"""What a layout is: which slice of the flat observation is which entity."""

from __future__ import annotations

import dataclasses
import itertools
import math

from limask.errors import LimaskError


@dataclasses.dataclass(frozen=True)
class TokenGroup:
    """Tokens of one kind, side by side in the observation.

    Attributes:
        kind: ``own`` and ``move`` (the agent itself), ``ally`` (the others of its team, in the team's order),
            ``enemy``, ``food``, …; ``group_i`` in layout ``flat``.
        count: number of tokens K_kind.
        features: names of the D features of one token.
        is_hideable: whether a masker may hide these tokens.
        first_action: token k is the target of action ``first_action + k``; None where no action has
            these tokens as its target.
        unseen: what the D features are where the agent sees no such entity; empty for zeros.
    """

    kind: str
    count: int
    features: tuple[str, ...]
    is_hideable: bool = True
    first_action: int | None = None
    unseen: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """D, the features of one token."""
        return len(self.features)

    @property
    def size(self) -> int:
        """Features of the whole group."""
        return self.count * self.width


@dataclasses.dataclass(frozen=True)
class Frame:
    """Where tokens say that their units stand, so that what an agent sees can be put as another would see it.

    Attributes:
        place: features of an ally's or enemy's token with its position relative to the viewer, in units of
            the viewer's sight range.
        origin: features of the own token with the agent's position on the map; none where the agent does not
            know it, and places its teammates by the tokens that show them.
        sights: sight range of each unit type, in units of ``origin``; none where it is the same for all.
        distance: feature with the length of ``place``, or None.
        within_sight: features that are 0 for whoever is out of sight.
        in_state: features of each unit in the global state, which begins with the agents' and then the
            enemies', as in the own token; none where the state is not known like that.
    """

    place: tuple[str, str]
    origin: tuple[str, ...] = ()
    sights: tuple[float, ...] = ()
    distance: str | None = None
    within_sight: tuple[str, ...] = ()
    in_state: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Layout:
    """Token groups in the order in which the observation holds them.

    Attributes:
        name: the layout's name in ``REGISTRY``.
        groups: the token groups; their sizes add up to the observation.
        has_entities: whether tokens are entities, which may be out of sight; not so in ``flat``.
        healers: agents whose k-th target action aims at agent k of their team (SMAC's Medivacs).
        frame: how tokens place their units, or None where what teammates see cannot be put in other terms.
        state_width: features of one agent in the global state, which begins with those of all agents; 0 where
            nothing is known of the state.
        limit: no feature is farther from 0; infinite where that is not known.
    """

    name: str
    groups: tuple[TokenGroup, ...]
    has_entities: bool = True
    healers: tuple[int, ...] = ()
    frame: Frame | None = None
    state_width: int = 0
    limit: float = math.inf

    @property
    def obs_size(self) -> int:
        """O, the features of an observation."""
        return sum(group.size for group in self.groups)

    @property
    def hideable_size(self) -> int:
        """P, the features of the tokens that a masker may hide."""
        return sum(group.size for group in self.groups if group.is_hideable)

    @property
    def n_tokens(self) -> int:
        """K, the tokens of an observation."""
        return sum(group.count for group in self.groups)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of entity that the layout knows, besides the agent itself; empty for ``flat``."""
        return frozenset(g.kind for g in self.groups if g.is_hideable and self.has_entities)

    @property
    def targets(self) -> frozenset[str]:
        """Values of ``lim.autoencoder.targets``: whose knowledge can be put as an agent would see it."""
        return frozenset(self._targets())

    def rec_targets(self, chosen: str) -> str:
        """``lim.autoencoder.targets`` as it was ``chosen``, or what tells most where that is ``auto``."""
        return self._targets()[-1] if chosen == "auto" else chosen

    def _targets(self) -> list[str]:
        """From those that tell least to those that tell most."""
        if self.frame is None:
            return ["own"]
        return ["own", "team", "state"] if self.frame.in_state else ["own", "team"]

    @property
    def target(self) -> TokenGroup | None:
        """The group that actions aim at, or None."""
        return next((group for group in self.groups if group.first_action is not None), None)

    @property
    def unseen(self) -> tuple[float, ...]:
        """O features of an observation that shows nothing; empty where these are zeros."""
        if not any(group.unseen for group in self.groups):
            return ()
        return tuple(
            value for group in self.groups for value in (group.unseen or (0.0,) * group.width) * group.count
        )

    def group(self, kind: str) -> TokenGroup | None:
        """The group of that kind, or None."""
        return next((group for group in self.groups if group.kind == kind), None)

    def check_obs_size(self, obs_size: int) -> None:
        """Compare with the size that the host reports.

        Raises:
            LimaskError: the layout adds up to another number; both are shown.
        """
        if obs_size != self.obs_size:
            parts = " + ".join(f"{g.kind} {g.count}×{g.width}" for g in self.groups)
            raise LimaskError(
                f"layout {self.name!r} adds up to {parts} = {self.obs_size} features, and the environment "
                f"reports observations of {obs_size}; set lim.layout=flat, or check env_args"
            )

    def check_team(self, n_agents: int, n_actions: int) -> None:
        """Compare with the team and the actions that the host reports.

        Raises:
            LimaskError: there are not as many teammates or targets as the layout says.
        """
        ally = self.group("ally")
        if ally is not None and ally.count != n_agents - 1:
            raise LimaskError(
                f"layout {self.name!r} has {ally.count} tokens of kind 'ally' in a team of {n_agents}: "
                f"they are the other {n_agents - 1} agents in the team's order; give others another kind, "
                "such as 'player'"
            )
        target = self.target
        if target is None or target.first_action is None:
            return
        n_targets = n_actions - target.first_action
        if n_targets != target.count:
            raise LimaskError(
                f"layout {self.name!r} has {target.count} tokens of kind {target.kind!r} as targets of the "
                f"actions from {target.first_action} on, and the environment has {n_actions} actions, so "
                f"{n_targets} of these; set lim.layout=flat, or correct first_action"
            )


def token_starts(layout: Layout) -> tuple[int, ...]:
    """Index of each group's first token among the layout's K tokens."""
    return tuple(itertools.accumulate((g.count for g in layout.groups), initial=0))[:-1]
