"""What teammates see, put as the agent would see it: by hand on three agents.

That it is so in battles of SMAX and SMAC too is tested where these are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from limask.layouts import Frame, Layout, TokenGroup, smax_layout, tokens
from limask.layouts.teammates import known_from_teammates

#: As SMAX: agents know where they stand, and types see a quarter or half of the map.
KNOWN_PLACES = Layout(
    "known",
    (
        TokenGroup("ally", 2, ("health", "x", "y", "speed", "unit_type_0", "unit_type_1")),
        TokenGroup("enemy", 1, ("health", "x", "y")),
        TokenGroup("own", 1, ("health", "x", "y", "unit_type_0", "unit_type_1"), is_hideable=False),
    ),
    frame=Frame(("x", "y"), origin=("x", "y"), sights=(0.25, 0.5)),
)
#: As SMAC: agents know where their visible teammates stand, and all see equally far.
SEEN_PLACES = Layout(
    "seen",
    (
        TokenGroup("enemy", 1, ("attackable", "distance", "x", "y", "health")),
        TokenGroup("ally", 2, ("visible", "distance", "x", "y", "health")),
        TokenGroup("own", 1, ("health",), is_hideable=False),
    ),
    frame=Frame(("x", "y"), distance="distance", within_sight=("attackable",)),
)
NOTHING = [0.0] * 6


def known_places() -> torch.Tensor:
    """Three agents in a row at x = 0.2, 0.4 and 0.75; the second sees far; an enemy is at (0.6, 0.5)."""
    allies = [
        [[0.9, 0.8, 0.0, 0.5, 0.0, 1.0], NOTHING],  # agent 0 sees agent 1, 0.2 / 0.25 away
        [[1.0, -0.4, 0.0, 0.1, 1.0, 0.0], [0.8, 0.7, 0.0, 0.3, 1.0, 0.0]],
        [NOTHING, NOTHING],
    ]
    enemies = [[[0.0, 0.0, 0.0]], [[0.6, 0.4, 0.6]], [[0.0, 0.0, 0.0]]]
    own = [[[1.0, 0.2, 0.2, 1, 0]], [[0.9, 0.4, 0.2, 0, 1]], [[0.8, 0.75, 0.2, 1, 0]]]
    parts = {"ally": torch.tensor(allies), "enemy": torch.tensor(enemies), "own": torch.tensor(own)}
    return tokens.join(parts, KNOWN_PLACES)


def test_known_places_by_hand() -> None:
    told = known_from_teammates(known_places(), KNOWN_PLACES)
    parts, known = tokens.split(told.obs, KNOWN_PLACES), tokens.split(told.is_feature, KNOWN_PLACES)
    # The enemy, seen by agent 1 alone: (0.4, 0.3) from agent 0 and (-0.15, 0.3) from agent 2, of sight 0.25.
    expected = [[0.6, 1.6, 1.2], [0, 0, 0], [0.6, -0.6, 1.2]]
    np.testing.assert_allclose(parts["enemy"][:, 0], expected, atol=1e-6)
    # Each agent's two allies: by another agent that sees them, or else by themselves, who show no speed.
    expected = [
        [[0.9, 0.8, 0, 0, 0, 1], [0.8, 2.2, 0, 0.3, 1, 0]],
        [[1.0, -0.4, 0, 0, 1, 0], [0.8, 0.7, 0, 0, 1, 0]],
        [[1.0, -2.2, 0, 0.1, 1, 0], [0.9, -1.4, 0, 0.5, 0, 1]],
    ]
    np.testing.assert_allclose(parts["ally"], expected, atol=1e-6)
    assert known["ally"][..., 3].tolist() == [[False, True], [False, False], [True, True]]
    assert known["ally"][..., [0, 1, 2, 4, 5]].all()
    assert known["enemy"][:, 0].all(dim=-1).tolist() == [True, False, True]
    assert told.is_token.tolist() == [
        [True, True, True, False],
        [True, True, False, False],
        [True] * 3 + [False],
    ]
    assert not parts["own"].any()


def test_the_dead_tell_nothing_and_are_told_nothing() -> None:
    obs = known_places()
    obs[1] = 0.0  # agent 1 died, and the others no longer see it
    obs[0, :6] = 0.0
    told = known_from_teammates(obs, KNOWN_PLACES)
    assert not told.is_token[1].any()
    # Of agent 1 and of the enemy nobody knows; agents 0 and 2 know of each other by themselves.
    assert told.is_token[[0, 2]].tolist() == [[False, True, False, False], [True, False, False, False]]
    assert not known_from_teammates(torch.zeros_like(obs), KNOWN_PLACES).is_token.any()
    assert torch.isfinite(told.obs).all()


def test_seen_places_by_hand() -> None:
    """In a row at 0, 0.6 and 1.4 sight ranges: only the second sees both others; an enemy at (1.2, 0.3)."""
    near = math.hypot(0.6, 0.3)
    allies = [
        [[1, 0.6, 0.6, 0, 0.5], [0.0] * 5],
        [[1, 0.6, -0.6, 0, 0.7], [1, 0.8, 0.8, 0, 0.9]],
        [[0.0] * 5, [1, 0.8, -0.8, 0, 0.5]],
    ]
    enemies = [[[0.0] * 5], [[0, near, 0.6, 0.3, 0.2]], [[1, math.hypot(0.2, 0.3), -0.2, 0.3, 0.2]]]
    own = [[[0.7]], [[0.5]], [[0.9]]]
    obs = tokens.join(
        {"ally": torch.tensor(allies), "enemy": torch.tensor(enemies), "own": torch.tensor(own)}, SEEN_PLACES
    )
    told = known_from_teammates(obs, SEEN_PLACES)
    parts = tokens.split(told.obs, SEEN_PLACES)
    # Agent 0 is told by agent 1; agent 2 is out of its sight, and so is what that one sees.
    expected = [0, math.hypot(1.2, 0.3), 1.2, 0.3, 0.2]
    np.testing.assert_allclose(parts["enemy"][0, 0], expected, atol=1e-6)
    np.testing.assert_allclose(parts["ally"][0, 1], [1, 1.4, 1.4, 0, 0.9], atol=1e-6)
    np.testing.assert_allclose(parts["ally"][2, 0], [1, 1.4, -1.4, 0, 0.7], atol=1e-6)
    # What another tells of a unit that one sees oneself is the same, but for whether it can be attacked.
    for agent in (1, 2):
        shown = tokens.split(obs, SEEN_PLACES)["enemy"][agent, 0, 1:]
        np.testing.assert_allclose(parts["enemy"][agent, 0, 1:], shown, atol=1e-6)
    assert told.is_token[:, :3].all()


def test_axes_in_front_make_no_difference() -> None:
    obs = torch.stack([known_places(), known_places().flip(0) * 0.5]).unsqueeze(0)
    told = known_from_teammates(obs, KNOWN_PLACES)
    for row in range(2):
        alone = known_from_teammates(obs[0, row], KNOWN_PLACES)
        for together, expected in zip(told, alone, strict=True):
            assert torch.equal(together[0, row], expected)


def test_a_team_of_one_is_told_nothing() -> None:
    for layout in (KNOWN_PLACES, SEEN_PLACES):
        groups = tuple(group for group in layout.groups if group.kind != "ally")
        alone = Layout(layout.name, groups, frame=layout.frame)
        told = known_from_teammates(torch.ones(2, 1, alone.obs_size), alone)
        assert not told.is_token.any()
        assert not told.obs.any()


def test_sight_ranges_of_smax_follow_the_runs() -> None:
    published, halved = (
        smax_layout({"map_name": "2s3z", "sight_range": factor}).frame for factor in (1, 0.5)
    )
    assert published is not None and halved is not None
    # Marines see 9 of 32 map units, marauders, stalkers 10.
    assert published.sights[:3] == pytest.approx((9 / 32, 10 / 32, 10 / 32))
    assert halved.sights == pytest.approx([sight / 2 for sight in published.sights])
