"""The vector runner fills the host's batch as the host's own runners do, and keeps the same statistics."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import host_parts
import pytest
import torch

from limask.envs.smax import SmaxVector
from limask.errors import LimaskError
from limask.hosts.base import Host

N_ENVS = 4


@pytest.fixture(scope="module")
def host() -> Host:
    return host_parts.load_host("pymarlzooplus")


@pytest.fixture(scope="module")
def runner(host: Host) -> Any:
    """A runner of four battles whose agents act at random."""
    overrides = {"env_args": {"map_name": "3m", "seed": 1}, "batch_size_run": N_ENVS, "test_nepisode": 8}
    args = host_parts.make_args(host, "qmix_entity", env="smax", runner_log_interval=0, **overrides)
    runner = host.module("runners").REGISTRY["vector"](args=args, logger=host_parts.RecordingLogger())
    info = runner.get_env_info()
    args.n_actions, args.state_shape = info["n_actions"], info["state_shape"]
    mac = host_parts.make_learner(host, args, info["obs_shape"]).mac
    one_hot = host.module("components.transforms").OneHot(out_dim=args.n_actions)
    scheme = host_parts.make_scheme(args, info["obs_shape"])
    preprocess = {"actions": ("actions_onehot", [one_hot])}
    runner.setup(scheme=scheme, groups={"agents": 3}, preprocess=preprocess, mac=mac, explorer=None)
    return runner


def test_batch_holds_each_episode_and_nothing_else(runner: Any) -> None:
    before = runner.t_env
    batch, returns = runner.run(test_mode=False)
    filled = batch["filled"].squeeze(-1)
    lengths = filled.sum(dim=1) - 1
    assert torch.equal(filled.bool(), torch.arange(filled.shape[1]) <= lengths.unsqueeze(1))
    assert len(set(lengths.tolist())) > 1, "battles of one length would not show what padding is"
    assert runner.t_env - before == int(lengths.sum())
    assert batch["reward"].sum(dim=(1, 2)).tolist() == pytest.approx(returns, abs=1e-4)
    is_padding = ~filled.bool()
    for key, values in batch.data.transition_data.items():
        assert not values[is_padding].any(), key
    for episode, length in enumerate(lengths.tolist()):
        assert batch["terminated"][episode, :, 0].nonzero().flatten().tolist() == [length - 1]
        assert (
            batch["avail_actions"][episode, : length + 1]
            .gather(2, batch["actions"][episode, : length + 1])
            .all()
        )
        assert batch["actions_onehot"][episode, : length + 1].sum(dim=-1).eq(1).all()


def test_same_seed_same_episodes(runner: Any) -> None:
    batches, t_env = [], runner.t_env
    for _ in range(2):
        torch.manual_seed(0)
        runner.env.seed([5, 6, 7, 8])
        runner.t_env = t_env  # ε falls with it
        batches.append(runner.run(test_mode=False)[0])
    for key, values in batches[0].data.transition_data.items():
        assert torch.equal(values, batches[1][key]), key


def test_a_test_changes_nothing_in_training(runner: Any) -> None:
    batches, t_env = [], runner.t_env
    for n_tests in (0, 3):
        torch.manual_seed(0)
        runner.env.seed([5, 6, 7, 8])
        runner.t_env = t_env
        for _ in range(n_tests):
            runner.run(test_mode=True)
        batches.append(runner.run(test_mode=False)[0])
    for key, values in batches[0].data.transition_data.items():
        assert torch.equal(values, batches[1][key]), key
    runner.test_returns.clear()
    runner.test_stats.clear()


def test_tests_are_logged_together_and_cost_no_steps(runner: Any) -> None:
    stats = runner.logger.stats
    before = runner.t_env, len(stats.get("test_return_mean", []))
    runner.run(test_mode=True)
    assert len(stats.get("test_return_mean", [])) == before[1]
    runner.run(test_mode=True)  # eight episodes are a test here
    assert runner.t_env == before[0]
    for key in ("return_mean", "return_std", "ep_length_mean", "battle_won_mean", "dead_allies_mean"):
        assert len(stats[f"test_{key}"]) == before[1] + 1
    assert 0 <= stats["test_battle_won_mean"][-1] <= 1
    assert 1 <= stats["test_ep_length_mean"][-1] <= SmaxVector("3m", [0]).episode_limit


def test_agents_with_policies_have_no_epsilon_to_log(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "mac", SimpleNamespace(action_selector=object()))
    logged = {key: len(runner.logger.stats.get(key, [])) for key in ("return_mean", "epsilon")}
    runner._log_episodes([1.0] * N_ENVS, 40, [{}] * N_ENVS, test_mode=False)
    assert len(runner.logger.stats["return_mean"]) == logged["return_mean"] + 1
    assert len(runner.logger.stats.get("epsilon", [])) == logged["epsilon"]


def test_another_environment_gets_the_hosts_parallel_runner(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []
    parallel = host.module("runners.parallel_runner").ParallelRunner
    sizes = {"n_agents": 1, "n_actions": 1, "obs_shape": 1, "state_shape": 1, "episode_limit": 1}

    def build(self: Any, args: Any, logger: Any) -> None:
        built.append(args.env)
        self.parent_conns, self.ps = (), ()

    monkeypatch.setattr(parallel, "__init__", build)
    monkeypatch.setattr(parallel, "get_env_info", lambda self: sizes)
    args = host_parts.make_args(host, "qmix_fc")
    runner = host.module("runners").REGISTRY["vector"](args=args, logger=host_parts.RecordingLogger())
    assert isinstance(runner, parallel)
    assert built == ["gymma"]


def test_a_replay_buffer_that_cannot_fit_is_refused_before_it_is_built(host: Host) -> None:
    args = host_parts.make_args(host, "qmix_fc", env="smax", env_args={"map_name": "3m", "seed": 1})
    args.buffer_size = 10**9
    with pytest.raises(LimaskError, match="GiB for buffer_size=1000000000 episodes"):
        host.module("runners").REGISTRY["vector"](args=args, logger=host_parts.RecordingLogger())


def test_individual_rewards_are_refused(host: Host) -> None:
    overrides = {"env_args": {"map_name": "3m", "seed": 1}, "common_reward": False}
    args = host_parts.make_args(host, "qmix_fc", env="smax", **overrides)
    with pytest.raises(LimaskError, match="common_reward=False"):
        host.module("runners").REGISTRY["vector"](args=args, logger=host_parts.RecordingLogger())
