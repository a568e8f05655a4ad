"""Where units are drawn: by hand, and in battles of SMAX."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from limask.envs.smax import SmaxVector
from limask.envs.smax_battle import map_size
from limask.errors import LimaskError
from limask.layouts import Frame, Layout, TokenGroup, flat_layout, smax_layout, tokens
from limask.layouts.places import Places
from limask.layouts.teammates import known_from_state

UNIT = ("health", "x", "y", "speed")
OWN = ("health", "x", "y", "unit_type_0", "unit_type_1")
#: Types see a quarter or half of the map, which is 40 units wide: 10 or 20 units.
LAYOUT = Layout(
    "known",
    (
        TokenGroup("ally", 1, UNIT),
        TokenGroup("enemy", 2, UNIT),
        TokenGroup("own", 1, OWN, is_hideable=False),
    ),
    frame=Frame(("x", "y"), origin=("x", "y"), sights=(0.25, 0.5), in_state=OWN),
)
#: Agents at (10, 20) and (20, 24); an enemy at (18, 14); the other one is dead. Two features follow.
STATE = torch.tensor([
    1.0, 0.25, 0.5, 1, 0,
    0.5, 0.5, 0.6, 0, 1,
    0.8, 0.45, 0.35, 1, 0,
    0.0, 0.0, 0.0, 0, 0,
    0.3, 0.7,
])  # fmt: skip


def test_states_by_hand() -> None:
    places = Places(LAYOUT, 2, 40.0)
    units = places.truth(STATE)
    np.testing.assert_allclose(units.place[:3], [[10, 20], [20, 24], [18, 14]], atol=1e-5)
    np.testing.assert_allclose(units.health[:3], [1.0, 0.5, 0.8])
    assert units.is_there.tolist() == [True, True, True, False]
    np.testing.assert_allclose(places.sights(STATE), [10, 20])


def test_observations_by_hand() -> None:
    """Agent 0 sees 10 units far: (0.8, -0.6) is (8, -6) away. Agent 1 sees 20 units far."""
    parts = {
        "ally": torch.tensor([[[0.5, 1.0, 0.4, 0.1]], [[0.0, 0.0, 0.0, 0.0]]]),
        "enemy": torch.tensor(
            [
                [[0.8, 0.8, -0.6, 0.0], [0.0, 0.0, 0.0, 0.0]],
                [[0.7, -0.1, -0.5, 0.0], [0.2, 0.3, 0.05, 0.0]],
            ]
        ),
        "own": torch.tensor([[[1.0, 0.25, 0.5, 1, 0]], [[0.5, 0.9, 0.9, 1, 0]]]),
    }
    seen = Places(LAYOUT, 2, 40.0).seen(tokens.join(parts, LAYOUT), STATE)
    assert seen.is_there.tolist() == [[True, True, True, False], [False, True, True, True]]
    np.testing.assert_allclose(seen.place[0, :3], [[10, 20], [20, 24], [18, 14]], atol=1e-5)
    # Around where agent 1 really stands, whatever its own features say.
    np.testing.assert_allclose(seen.place[1, 1:], [[20, 24], [18, 14], [26, 25]], atol=1e-5)
    np.testing.assert_allclose(seen.health[1, 1:], [0.5, 0.7, 0.2])


def test_the_dead_see_nothing() -> None:
    seen = Places(LAYOUT, 2, 40.0).seen(torch.zeros(2, LAYOUT.obs_size), STATE)
    assert not seen.is_there.any()


def test_axes_in_front() -> None:
    places = Places(LAYOUT, 2, 40.0)
    obs = torch.rand(3, 5, 2, LAYOUT.obs_size)
    seen = places.seen(obs, STATE.expand(3, 5, -1))
    assert seen.place.shape == (3, 5, 2, 4, 2) and seen.health.shape == seen.is_there.shape == (3, 5, 2, 4)
    torch.testing.assert_close(seen.place[1, 2], places.seen(obs[1, 2], STATE).place)


@pytest.mark.parametrize(("map_name", "full_observation"), [("2s3z", False), ("3m", True)])
def test_smax_shows_units_where_they_are(map_name: str, full_observation: bool) -> None:
    """What is seen, and what could be known of those out of sight, is where the game has it."""
    battles = SmaxVector(map_name, [3], full_observation=full_observation)
    layout = smax_layout({"map_name": map_name, "full_observation": full_observation})
    n_agents, size = battles.n_agents, map_size(map_name)
    assert size == 32
    places, observation = Places(layout, n_agents, size), battles.reset()
    n_unseen = 0
    for _ in range(12):
        state, obs = torch.from_numpy(observation.state)[0], torch.from_numpy(observation.obs)[0]
        game = battles._battle.battle_of(battles._rows[0, : battles._battle.size]).state
        truth, seen = places.truth(state), places.seen(obs, state)
        where = torch.from_numpy(np.array(game.unit_positions))
        alive = torch.from_numpy(np.array(game.unit_alive))
        assert truth.is_there.equal(alive)
        torch.testing.assert_close(truth.place[alive], where[alive], atol=1e-3, rtol=0)
        told = places.seen(torch.where(obs != 0, obs, known_from_state(state, n_agents, layout).obs), state)
        for view in (seen, told):
            error = (view.place - where).norm(dim=-1)[view.is_there & alive]
            assert error.max() < 1e-2
        n_unseen += int((told.is_there & ~seen.is_there).sum())
        # East, or at whoever is in range.
        avail = observation.avail_actions
        actions = np.where(avail[..., 5:].any(axis=-1), 5 + avail[..., 5:].argmax(axis=-1), avail[..., 1])
        observation = battles.step(actions).observation
    assert (n_unseen == 0) == full_observation


def test_environments_without_positions_are_refused() -> None:
    for layout in (flat_layout(9, 3), Layout("bare", LAYOUT.groups, frame=Frame(("x", "y")))):
        with pytest.raises(LimaskError, match="says not where units stand"):
            Places(layout, 2, 1.0)
