"""SMAX in the hosts' interface: sizes, bounds, seeds, time limits and the vectorised twin."""

from __future__ import annotations

import numpy as np
import pytest

from limask.envs import smax_battle
from limask.envs.smax import Observation, SmaxVector, episode_info
from limask.envs.smax_battle import REWARD_SCALE
from limask.envs.smax_env import SmaxEnv
from limask.errors import LimaskError


def random_actions(avail: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One available action for each agent: (B, N)."""
    draw = rng.random(avail.shape) * (avail > 0)
    return draw.argmax(axis=-1)


@pytest.fixture(scope="module")
def battles() -> SmaxVector:
    return SmaxVector("2s3z", seeds=[0, 1, 2, 3], sight_range=0.6, attack_mode="random")


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


def test_every_feature_stays_bounded_over_long_random_episodes(battles: SmaxVector) -> None:
    """Raw, weapon cooldowns fall and positions leave the map: both spoil learning."""
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
    assert obs.max() <= 1
    assert high.max() > 0.5


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
        ({"map_name": "3m", "attack_mode": "nearest"}, ("env_args.attack_mode='nearest'", "closest, random")),
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

    smax_battle.battle.cache_clear()  # what an earlier test has compiled needs no import any more
    monkeypatch.setitem(sys.modules, "jaxmarl", None)
    monkeypatch.setitem(sys.modules, "jaxmarl.environments", None)
    with pytest.raises(LimaskError, match=r"pip install 'limask\[smax\]'"):
        SmaxEnv("3m")


def test_observing_before_reset_says_so(one_battle: SmaxEnv) -> None:
    with pytest.raises(LimaskError, match="reset"):
        SmaxEnv("2s3z", seed=0).get_obs()
