"""SMAX in the hosts' interface: sizes, bounds, seeds, time limits and the vectorised twin."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from limask.envs import smax_battle, smax_import
from limask.envs.smax import Observation, SmaxVector, episode_info
from limask.envs.smax_battle import REWARD_SCALE
from limask.envs.smax_env import SmaxEnv
from limask.errors import LimaskError
from limask.layouts import smax_layout, tokens
from limask.layouts.teammates import known_from_state, known_from_teammates


def random_actions(avail: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One available action for each agent: (B, N)."""
    draw = rng.random(avail.shape) * (avail > 0)
    return draw.argmax(axis=-1)


@pytest.fixture(scope="module")
def battles() -> SmaxVector:
    return SmaxVector("2s3z", seeds=[0, 1, 2, 3], sight_range=0.6, attack_mode="random")


@pytest.fixture(scope="module")
def seen_whole() -> SmaxVector:
    """The same battles, in which agents see everywhere."""
    options = {"sight_range": 0.6, "attack_mode": "random", "full_observation": True}
    return SmaxVector("2s3z", seeds=[0, 1, 2, 3], **options)  # type: ignore[arg-type]


def in_sight_ranges(seen_whole: torch.Tensor) -> torch.Tensor:
    """Observations of agents that see everywhere, with positions in the units of those who see 0.6 as far."""
    scaled = seen_whole.clone()
    parts = tokens.split(scaled, smax_layout({"map_name": "2s3z"}))
    for kind in ("ally", "enemy"):
        parts[kind][..., 1:3] /= 0.6
    return scaled


@pytest.fixture(scope="module")
def one_battle() -> SmaxEnv:
    return SmaxEnv("2s3z", seed=2, sight_range=0.6, attack_mode="random")


def test_sizes(battles: SmaxVector, one_battle: SmaxEnv) -> None:
    info = one_battle.get_env_info()
    # 4 allies and 5 enemies of 13 features, 10 own; 10 units of 10 features, their teams and types in the
    # state; four moves, stop and five attacks.
    assert info["obs_shape"] == 9 * 13 + 10
    assert info["state_shape"] == 10 * 12
    assert (info["n_actions"], info["n_agents"], info["episode_limit"]) == (10, 5, 101)
    observation = battles.reset()
    assert observation.obs.shape == (4, 5, 127)
    assert observation.state.shape == (4, 120)
    assert observation.avail_actions.shape == (4, 5, 10)


def test_the_state_begins_with_the_agents(battles: SmaxVector) -> None:
    layout = smax_layout({"map_name": "2s3z"})
    observation = battles.reset()
    own = tokens.split(torch.from_numpy(observation.obs), layout)["own"][:, :, 0]
    state = torch.from_numpy(observation.state)[:, : 5 * layout.state_width].reshape(4, 5, layout.state_width)
    torch.testing.assert_close(state, own)


@pytest.mark.parametrize(("name", "bound"), [("battles", 1.0), ("seen_whole", 32 / 9)])
def test_every_feature_stays_bounded_over_long_random_episodes(
    name: str, bound: float, request: pytest.FixtureRequest
) -> None:
    """Raw, weapon cooldowns fall and positions leave the map: both spoil learning."""
    battles: SmaxVector = request.getfixturevalue(name)
    rng = np.random.default_rng(0)
    observation = battles.reset()
    extremes = []
    for _ in range(300):
        transition = battles.step(random_actions(observation.avail_actions, rng))
        observation = transition.observation
        extremes.append((observation.state.min(), observation.state.max(), np.abs(observation.obs).max()))
        assert np.isfinite(observation.obs).all()
        assert (0 <= transition.reward).all()
        assert (transition.reward <= 2 * REWARD_SCALE).all()
    low, high, obs = np.array(extremes).T
    assert low.min() >= 0
    assert high.max() <= 1
    assert bound / 2 < obs.max() <= bound
    assert high.max() > 0.5


def test_who_sees_less_than_the_enemy_fights_the_same_battles(battles: SmaxVector) -> None:
    """`enemy_sight_range` decides the battle, `sight_range` what is shown of it."""
    rng = np.random.default_rng(5)
    less = SmaxVector("2s3z", range(4), sight_range=0.3, enemy_sight_range=0.6, attack_mode="random")
    battles.seed(range(4))
    layout = smax_layout({"map_name": "2s3z"})
    wide, narrow = battles.reset(), less.reset()
    n_lost = 0
    for _ in range(60):
        np.testing.assert_array_equal(narrow.state, wide.state)
        np.testing.assert_array_equal(narrow.avail_actions, wide.avail_actions)
        more, shown = (tokens.split(torch.from_numpy(seen.obs), layout) for seen in (wide, narrow))
        for kind in ("ally", "enemy"):
            x = layout.group(kind).features.index("position_x")
            is_seen = more[kind][..., 0] > 0
            distance = torch.hypot(more[kind][..., x], more[kind][..., x + 1])
            # Positions are in sight ranges: half as far is 1, and what is seen there doubles.
            torch.testing.assert_close(shown[kind][..., 0] > 0, is_seen & (distance < 0.5))
            still = shown[kind][..., 0] > 0
            torch.testing.assert_close(
                shown[kind][..., x : x + 2][still], 2 * more[kind][..., x : x + 2][still]
            )
            n_lost += int((is_seen & ~still).sum())
        actions = random_actions(wide.avail_actions, rng)
        wide, narrow = battles.step(actions).observation, less.step(actions).observation
    assert n_lost > 50


def test_full_observation_shows_all_the_living_and_leaves_the_battle_as_it_is(
    battles: SmaxVector, seen_whole: SmaxVector
) -> None:
    layout = smax_layout({"map_name": "2s3z"})
    sight = torch.tensor([10, 10, 9, 9, 9])[:, None, None]  # of two stalkers and three zealots, as published
    slots = tokens.teammate_slots(5)
    rng = np.random.default_rng(3)
    for env in (battles, seen_whole):
        env.seed([0, 1, 2, 3])
    partial, full = battles.reset(), seen_whole.reset()
    n_new, n_dead = 0, 0
    for _ in range(60):
        np.testing.assert_array_equal(full.state, partial.state)
        np.testing.assert_array_equal(full.avail_actions, partial.avail_actions)
        shown, more = (torch.from_numpy(observation.obs) for observation in (partial, full))
        # Whoever is seen anyway is seen the same, but for the units of positions.
        was_visible, is_visible = (tokens.visibility(obs, layout) for obs in (shown, more))
        torch.testing.assert_close(tokens.hide(in_sight_ranges(more), ~was_visible, layout), shown)
        is_alive = torch.from_numpy(full.state.reshape(4, -1)[:, :100].reshape(4, 10, 10)[..., 0] > 0)
        allies, enemies = is_alive[:, :5], is_alive[:, 5:]
        expected = torch.cat([allies[:, slots], enemies.unsqueeze(1).expand(4, 5, 5)], dim=-1)
        assert torch.equal(is_visible[..., :-1], expected & allies.unsqueeze(-1))
        # Relative positions are the differences of the agents' own, in sight ranges instead of map sizes.
        places = tokens.split(more, layout)["own"][:, :, 0, 1:3]
        away = (places[:, slots] - places.unsqueeze(2)) * 32 / sight
        seen = is_visible[..., :4]
        told = tokens.split(more, layout)["ally"][..., 1:3]
        np.testing.assert_allclose(told[seen], away[seen], atol=1e-5)
        n_new += int((is_visible & ~was_visible).sum())
        n_dead += int((~is_alive).sum())
        actions = random_actions(partial.avail_actions, rng)
        partial, full = battles.step(actions).observation, seen_whole.step(actions).observation
    assert n_new > 0
    assert n_dead > 0


def test_teammates_tell_the_truth(battles: SmaxVector, seen_whole: SmaxVector) -> None:
    """What an agent sees itself its teammates tell alike; what it does not see, as if it saw everywhere."""
    layout = smax_layout({"map_name": "2s3z", "sight_range": 0.6})
    rng = np.random.default_rng(0)
    for env in (battles, seen_whole):
        env.seed([0, 1, 2, 3])
    partial, full = battles.reset(), seen_whole.reset()
    n_checked = torch.zeros(2, dtype=torch.int64)
    for _ in range(60):
        shown, truth = torch.from_numpy(partial.obs), in_sight_ranges(torch.from_numpy(full.obs))
        told = known_from_teammates(shown, layout)
        is_visible, is_there = tokens.visibility(shown, layout), tokens.visibility(truth, layout)
        assert not (told.is_token & ~is_there).any()
        assert ((told.obs - truth) * told.is_feature).abs().max() < 1e-5
        assert not (told.obs * ~told.is_feature).any()
        n_checked += torch.stack([(told.is_token & seen).sum() for seen in (is_visible, ~is_visible)])
        actions = random_actions(partial.avail_actions, rng)
        partial, full = battles.step(actions).observation, seen_whole.step(actions).observation
    assert (n_checked > 1000).all()


def test_the_state_tells_of_everybody(battles: SmaxVector, seen_whole: SmaxVector) -> None:
    """All that is seen of anybody from anywhere, but for what the state does not hold, and who is dead."""
    layout = smax_layout({"map_name": "2s3z", "sight_range": 0.6})
    open_features = {"last_movement_x", "last_movement_y", "last_targeted"}
    rng = np.random.default_rng(0)
    for env in (battles, seen_whole):
        env.seed([0, 1, 2, 3])
    partial, full = battles.reset(), seen_whole.reset()
    for _ in range(60):
        told = known_from_state(torch.from_numpy(partial.state), 5, layout)
        truth = in_sight_ranges(torch.from_numpy(full.obs))
        known, units = tokens.split(told.is_feature, layout), tokens.split(truth, layout)
        is_alive = units["own"][..., 0] > 0
        for kind in ("ally", "enemy"):
            is_there = units[kind][..., 0] > 0
            for d, name in enumerate(layout.group(kind).features):
                if name == "health":
                    assert torch.equal(known[kind][..., d], is_alive.expand_as(is_there))
                else:
                    assert torch.equal(known[kind][..., d], is_there & (name not in open_features))
        assert torch.equal(told.is_token, is_alive & tokens.hideable(layout))
        assert ((told.obs - truth) * told.is_feature).abs().max() < 1e-4
        assert not (told.obs * ~told.is_feature).any()
        actions = random_actions(partial.avail_actions, rng)
        partial, full = battles.step(actions).observation, seen_whole.step(actions).observation


def test_units_of_the_spread_scenarios_start_all_over_the_map() -> None:
    state = SmaxVector("2s3z_spread", seeds=range(32)).reset().state
    places = state[:, :100].reshape(32, 10, 10)[..., 1:3] * 32
    teams = places.reshape(32, 2, 5, 2)
    # Elsewhere each team starts within two map units of its place, about 16 from the other's.
    assert np.ptp(teams, axis=2).max(axis=(1, 2)).mean() > 8
    assert (state[:, 110:] * 5).round().tolist() == [[2, 2, 3, 3, 3] * 2] * 32


def test_a_battle_in_the_vector_plays_as_it_does_alone(battles: SmaxVector, one_battle: SmaxEnv) -> None:
    rng = np.random.default_rng(1)
    battles.seed([0, 1, 2, 3])
    one_battle.seed(2)
    for _ in range(2):
        observation = battles.reset()
        one_battle.reset()
        for _ in range(40):
            actions = random_actions(observation.avail_actions, rng)
            transition = battles.step(actions)
            observation = transition.observation
            reward, is_over, info = one_battle.step(actions[2])
            assert reward == pytest.approx(float(transition.reward[2]), abs=1e-5)
            assert is_over == bool(transition.is_over[2])
            np.testing.assert_allclose(one_battle.get_obs(), observation.obs[2], atol=1e-5)
            np.testing.assert_allclose(one_battle.get_state(), observation.state[2], atol=1e-5)
            np.testing.assert_array_equal(one_battle.get_avail_actions(), observation.avail_actions[2])
            if is_over:
                assert info == episode_info(transition, 2)
                break


def test_seeds_are_reproducible_and_differ(battles: SmaxVector) -> None:
    battles.seed([5, 5, 6, 7])
    first = battles.reset()
    np.testing.assert_array_equal(first.obs[0], first.obs[1])
    assert not np.array_equal(first.obs[0], first.obs[2])
    battles.seed([5, 5, 6, 7])
    np.testing.assert_array_equal(battles.reset().obs, first.obs)
    assert not np.array_equal(battles.reset().obs, first.obs)


def test_flipped_observations_are_negated_whole_and_change_nothing_else() -> None:
    seeds = list(range(8))
    clean, flipped = SmaxVector("3m", seeds), SmaxVector("3m", seeds, flipped=0.15)
    rng, signs = np.random.default_rng(4), []
    truth, shown = clean.reset(), flipped.reset()
    for _ in range(200):
        sign = np.where((truth.obs == shown.obs).all(axis=2), 1, -1)
        np.testing.assert_array_equal(shown.obs, truth.obs * sign[:, :, None])
        np.testing.assert_array_equal(shown.state, truth.state)
        np.testing.assert_array_equal(shown.avail_actions, truth.avail_actions)
        signs.append(sign[np.abs(truth.obs).any(axis=2)])  # the dead see nothing, which has no sign
        actions = random_actions(truth.avail_actions, rng)
        before, after = clean.step(actions), flipped.step(actions)
        np.testing.assert_array_equal(before.reward, after.reward)
        truth, shown = before.observation, after.observation
        if before.is_over.all():
            truth, shown = clean.reset(), flipped.reset()
    drawn = np.concatenate(signs) < 0
    assert len(drawn) > 1000
    assert drawn.mean() == pytest.approx(0.15, abs=0.03)


def test_random_steps_begin_every_battle_and_leave_it_time_and_life() -> None:
    """What is over before anybody acts starts anew, alone: a battle does not depend on those beside it."""
    seeds, options = [0, 1, 2, 3], {"sight_range": 0.01}  # nobody fires: only the border kills
    mess = SmaxVector("3m", seeds, random_steps=10, **options)  # type: ignore[arg-type]
    alone = SmaxVector("3m", [2], random_steps=10, **options)  # type: ignore[arg-type]
    started = SmaxVector("3m", seeds, **options).reset()  # type: ignore[arg-type]
    first = mess.reset()
    assert not (first.state == started.state).all(axis=1).any()
    np.testing.assert_allclose(alone.reset().state[0], first.state[2], atol=1e-5)
    for step in range(1, mess.episode_limit - 10 + 1):
        transition = mess.step(np.full((4, 3), 4))
        assert transition.is_over.all() == (step == mess.episode_limit - 10)
    mess.seed(seeds)
    np.testing.assert_array_equal(mess.reset().state, first.state)


def test_a_battle_that_is_over_within_the_random_steps_starts_anew() -> None:
    """100 random steps are the whole of a battle of 3m: all are over, each starts again on its own."""
    limit = SmaxVector("3m", [0]).episode_limit
    together = SmaxVector("3m", [0, 1, 2, 3], random_steps=limit, sight_range=0.01)
    alone = SmaxVector("3m", [1], random_steps=limit, sight_range=0.01)
    for _ in range(2):
        shown = together.reset()
        assert (shown.avail_actions[..., :4].sum(axis=(1, 2)) > 0).all()  # somebody is alive and can move
        np.testing.assert_allclose(shown.state[1], alone.reset().state[0], atol=1e-5)


def test_return_of_a_win_is_on_smacs_scale_and_a_cut_is_marked(battles: SmaxVector) -> None:
    """All damage and the victory add up to 20; who runs out of time is cut, who is dead is not."""
    rng = np.random.default_rng(2)
    outcomes = set()
    for _ in range(12):
        observation: Observation = battles.reset()
        returns, running = np.zeros(4), np.ones(4, dtype=bool)
        for step in range(1, 102):
            avail = observation.avail_actions.copy()
            attacks = avail[..., 5:].any(axis=-1)
            avail[attacks, :5] = 0  # attack whenever possible
            transition = battles.step(random_actions(avail, rng))
            observation = transition.observation
            returns[running] += transition.reward[running]
            for battle in np.flatnonzero(running & transition.is_over):
                info = episode_info(transition, int(battle))
                if info["battle_won"]:
                    assert returns[battle] == pytest.approx(20, abs=1e-3)
                    assert info["dead_enemies"] == 5
                else:
                    assert returns[battle] < 20
                is_cut = info["dead_allies"] < 5 and info["dead_enemies"] < 5
                assert info.get("episode_limit", False) == is_cut
                assert not is_cut or step == 101
                outcomes.add("cut" if is_cut else "won" if info["battle_won"] else "lost")
            running &= ~transition.is_over
        assert not running.any()
    assert "lost" in outcomes


def test_time_limit_without_a_fight() -> None:
    """At a sight of nearly nothing nobody fires: the battle is cut, and lasts exactly as long as it says."""
    env = SmaxEnv("3m", seed=0, sight_range=0.01)
    env.reset()
    for step in range(1, env.episode_limit + 1):
        _, is_over, info = env.step([4, 4, 4])
        assert is_over == (step == env.episode_limit)
    assert info["episode_limit"]
    assert not info["battle_won"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"map_name": "2s3x"}, ("env_args.map_name='2s3x'", "did you mean '2s3z'")),
        ({"map_name": "3m", "sight_range": 0}, ("env_args.sight_range=0", "above 0")),
        ({"map_name": "3m", "sight_range": True}, ("env_args.sight_range=True", "above 0")),
        (
            {"map_name": "3m", "enemy_sight_range": -1},
            ("env_args.enemy_sight_range=-1", "above 0", "null (the agents' sight_range)"),
        ),
        ({"map_name": "3m", "attack_mode": "nearest"}, ("env_args.attack_mode='nearest'", "closest, random")),
        ({"map_name": "3m", "flipped": 1.5}, ("env_args.flipped=1.5", "probability in [0, 1]")),
        ({"map_name": "3m", "flipped": True}, ("env_args.flipped=True", "probability in [0, 1]")),
        ({"map_name": "3m", "random_steps": -1}, ("env_args.random_steps=-1", "0 or more")),
        ({"map_name": "3m", "random_steps": 2.5}, ("env_args.random_steps=2.5", "0 or more")),
        ({"map_name": "3m", "sigth_range": 1}, ("env_args.sigth_range", "did you mean 'sight_range'")),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], expected: tuple[str, ...]) -> None:
    with pytest.raises(LimaskError) as caught:
        SmaxEnv(**arguments)  # type: ignore[arg-type]
    for words in expected:
        assert words in str(caught.value)


def test_missing_jaxmarl_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for earlier in (smax_battle.battle, smax_import.import_smax):  # needs no import any more
        earlier.cache_clear()
    for name in ("jaxmarl", "jaxmarl.environments", "jaxmarl.environments.smax"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(LimaskError, match=r"pip install 'limask\[smax\]'"):
        SmaxEnv("3m")


def test_observing_before_reset_says_so(one_battle: SmaxEnv) -> None:
    with pytest.raises(LimaskError, match="reset"):
        SmaxEnv("2s3z", seed=0).get_obs()


#: A host's root logger is at DEBUG when SMAX is imported, compiled and played.
_LOGGED = """
import logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, format="%(name)s")
if len(sys.argv) > 1:
    logging.getLogger("jax").setLevel(sys.argv[1])
from limask.envs.smax import SmaxVector
SmaxVector("3m", [0]).reset()
"""


@pytest.mark.parametrize("chosen", [[], ["DEBUG"]])
def test_jax_tells_a_hosts_log_nothing_of_what_it_compiles_unless_asked_to(chosen: list[str]) -> None:
    command = [sys.executable, "-c", _LOGGED, *chosen]
    said = subprocess.run(command, text=True, capture_output=True, check=True).stdout.splitlines()
    assert any(name.startswith("jax") for name in said) == bool(chosen)
