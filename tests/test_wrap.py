"""The reconstruction objective beside the hosts' own learners: what it leaves alone, does and refuses."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import host_parts
import parity_wrap
import pytest
import torch

from limask import masking
from limask.errors import LimaskError
from limask.hosts.base import Host

TESTS = Path(__file__).parent
CHECKOUTS = [Path(path) for path in os.environ.get("LIMASK_TEST_HOSTS", "").split(os.pathsep) if path]
EPYMARL = [path for path in CHECKOUTS if (path / "src/learners/ppo_learner.py").is_file()]

ALGORITHMS = ("mappo_lim", "ippo_lim", "maa2c_lim", "qplex_lim")
#: Informed masks from the first step on.
AT_ONCE = {"random_until": 0, "random_anneal": 0, "random_finish": 0.0}


@pytest.fixture(scope="module")
def host() -> Host:
    return host_parts.load_host("pymarlzooplus")


def smax_learner(host: Host, algorithm: str, batch_size: int = 8, **lim: Any) -> Any:
    """A learner on the sizes of SMAX 3m; every call starts from the same weights."""
    torch.manual_seed(0)
    sizes = {"env_args": {"map_name": "3m"}, "n_actions": 8, "batch_size": batch_size}
    args = host_parts.make_args(host, algorithm, env="smax", lim=lim, **sizes)
    return host_parts.make_learner(host, args, 75)


def smax_batch(host: Host, learner: Any, n_episodes: int = 8, seed: int = 0) -> Any:
    return host_parts.make_batch(host, learner.args, n_episodes, seed, 75)


# --- what it leaves alone --------------------------------------------------------------


def check_same(results: dict[str, Any]) -> None:
    for algorithm, arms in results.items():
        assert arms.pop("moved"), f"{algorithm}: the host's own learner learned nothing"
        taught = arms.pop("taught")
        assert taught["reconstructs"] and not taught["networks"], algorithm
        for arm, same in arms.items():
            assert not same.pop("reconstructs"), (algorithm, arm)
            assert all(same.values()), (algorithm, arm, same)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_without_reconstruction_it_is_pymarlzooplus_own_learner_and_agent(host: Host, algorithm: str) -> None:
    """Networks, statistics and the next random number, bit by bit, after several updates."""
    check_same({algorithm: parity_wrap.is_same(host, algorithm)})


@pytest.mark.skipif(not EPYMARL, reason="LIMASK_TEST_HOSTS names no EPyMARL checkout with a PPO learner")
def test_without_reconstruction_it_is_epymarls_own_learner_and_agent() -> None:
    """The same in a checkout."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}
    command = [sys.executable, str(TESTS / "parity_wrap.py"), str(EPYMARL[0])]
    done = subprocess.run(command, env=env, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout.strip().splitlines()[-1])
    assert {"mappo_lim", "ippo_lim", "maa2c_lim"} <= results.keys()
    check_same(results)


def recorded_gradients(learner: Any) -> list[list[torch.Tensor | None]]:
    """The agent's gradients as they stand whenever the reconstruction's are about to be added."""
    seen: list[list[torch.Tensor | None]] = []
    step = learner.reconstruction.step

    def recording(*losses: Any) -> torch.Tensor:
        seen.append([None if p.grad is None else p.grad.clone() for p in learner.agent.parameters()])
        return step(*losses)

    learner.reconstruction.step = recording
    return seen


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_gradient_of_the_hosts_loss_is_what_it_is_without(host: Host, algorithm: str) -> None:
    plain, full = (
        smax_learner(host, algorithm, autoencoder={"weight": 0.0}),
        smax_learner(host, algorithm, autoencoder={"weight": 0.3}),
    )
    seen = recorded_gradients(full)
    for learner in (plain, full):
        learner.args.epochs = 1
        learner.train(smax_batch(host, learner), 0, 0)
    for ours, theirs in zip(seen[0], (p.grad for p in plain.agent.parameters()), strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.equal(ours, theirs)
    names = [name for name, _ in full.agent.named_parameters()]
    pairs = zip(names, seen[0], full.agent.parameters(), strict=True)
    changed = {name.split(".")[0] for name, td, p in pairs if not torch.equal(td, p.grad)}
    assert changed == {"fc1", "rnn"}


def test_every_epoch_of_ppo_reconstructs(host: Host) -> None:
    learner = smax_learner(host, "mappo_lim")
    seen = recorded_gradients(learner)
    learner.train(smax_batch(host, learner), 0, 0)
    assert len(seen) == learner.args.epochs == 4


def test_steps_outside_of_training_are_the_hosts_own(host: Host) -> None:
    learner = smax_learner(host, "maa2c_lim")
    learner.train(smax_batch(host, learner), 0, 0)
    seen = recorded_gradients(learner)
    learner.agent_optimiser.step()
    assert not seen


# --- what it does ----------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["mappo_lim", "qplex_lim"])
def test_reconstruction_error_falls_and_is_logged(host: Host, algorithm: str) -> None:
    learner = smax_learner(host, algorithm, autoencoder={"weight": 1.0, "lr": 0.003, "share": 1.0})
    batch = smax_batch(host, learner)
    for step in range(30):
        learner.train(batch, step, 300 * step)
    stats = learner.logger.stats
    assert sum(stats["rec_loss"][-5:]) < 0.8 * sum(stats["rec_loss"][:5])
    assert {"rec_grad_norm", "mask_rate", "mask_rate_ally", "rec_error_enemy", "mask_entropy"} <= stats.keys()
    assert all(torch.tensor(values).isfinite().all() for values in stats.values())


@pytest.mark.parametrize("masker", sorted(set(masking.REGISTRY) - {"value_saliency"}))
def test_maskers_beside_agents_with_q_values(host: Host, masker: str) -> None:
    learner = smax_learner(host, "qplex_lim", masker={"name": masker} | AT_ONCE, autoencoder={"share": 1.0})
    for t_env in range(1, 3):
        learner.train(smax_batch(host, learner), t_env, 0)
    assert (learner.logger.stats["mask_rate"][-1] == 0) == (masker == "none")


def test_td_errors_are_those_of_independent_learners(host: Host) -> None:
    """The same agent in ``lim_learner``, which is tested step by step elsewhere."""
    options = {
        "masker": {"name": "td_threshold"} | AT_ONCE,
        "autoencoder": {"name": "entity", "targets": "own", "share": 1.0},
        "targets": {"td_lambda": 0.0},
    }
    theirs, ours = (smax_learner(host, name, **options) for name in ("iql_lim", "qplex_lim"))
    ours.agent.load_state_dict(theirs.agent.state_dict())
    ours.target_mac.load_state(theirs.target_mac)
    errors = []
    for learner in (theirs, ours):
        seen = host_parts.record_views(learner)
        learner.train(smax_batch(host, learner), 1, 0)
        errors.append(seen[0].td_error)
    assert errors[0].abs().sum() > 0
    torch.testing.assert_close(*errors)


def test_parts_of_a_batch_are_batches_of_their_own(host: Host) -> None:
    together = smax_learner(host, "qplex_lim", batch_size=32, minibatches=4)
    apart = smax_learner(host, "qplex_lim", batch_size=8, minibatches=1)
    batch = smax_batch(host, together, n_episodes=32)
    together.train(batch, 0, 0)
    for first in range(0, 32, 8):
        apart.train(batch[first : first + 8], 0, 0)
    pairs = zip(parity_wrap.networks(together), parity_wrap.networks(apart), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_checkpoint_restores_everything_it_holds(host: Host, tmp_path: Path) -> None:
    learner, twin = smax_learner(host, "mappo_lim"), smax_learner(host, "mappo_lim")
    learner.train(smax_batch(host, learner), 0, 0)
    learner.save_models(str(tmp_path))
    twin.load_models(str(tmp_path))
    parts = [(each.agent, each.critic, each.reconstruction.autoencoder) for each in (learner, twin)]
    for saved, loaded in zip(*parts, strict=True):
        states = saved.state_dict(), loaded.state_dict()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    other = smax_learner(host, "mappo_lim", masker={"name": "random_agent"})
    with pytest.raises(LimaskError, match="lim.masker.name='random'"):
        other.load_models(str(tmp_path))


# --- errors ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "options", "words"),
    [
        (
            "mappo_lim",
            {"masker": {"name": "td_threshold"}},
            ("lim.masker.name='td_threshold'", "lim_ppo_learner", "random_agent"),
        ),
        (
            "maa2c_lim",
            {"masker": {"name": "coordination"}},
            ("lim.masker.name='coordination'", "no dependence", "adversarial"),
        ),
        (
            "qplex_lim",
            {"masker": {"name": "value_saliency"}},
            ("lim.masker.name='value_saliency'", "no saliency", "td_ema"),
        ),
        ("mappo_lim", {"view": {"weight": 0.1}}, ("lim.view.weight=0.1", "set lim.view.weight=0.0")),
        (
            "mappo_lim",
            {"autoencoder": {"saliency_weights": True}},
            ("lim.autoencoder.saliency_weights=True", "set lim.autoencoder.saliency_weights=False"),
        ),
        (
            "qplex_lim",
            {"masker": {"credit": "mixed"}},
            ("lim.masker.credit='mixed'", "set lim.masker.credit='local'"),
        ),
        (
            "qplex_lim",
            {"targets": {"td_lambda": 0.6}},
            ("lim.targets.td_lambda=0.6", "set lim.targets.td_lambda=0.0"),
        ),
        ("ippo_lim", {"minibatches": 2}, ("lim.minibatches=2", "batch_size=32", "set lim.minibatches=1")),
        (
            "mappo_lim",
            {"autoencoder": {"name": "team"}, "trunk": "fc", "masker": {"name": "random_agent", "ratio": 0}},
            ("lim.autoencoder.name='team'", "lim_ppo_learner", "learner=lim_learner"),
        ),
    ],
)
def test_what_cannot_go_beside_a_hosts_loss_is_refused_before_an_environment_is_built(
    host: Host, algorithm: str, options: dict[str, Any], words: tuple[str, ...]
) -> None:
    args = host_parts.make_args(host, algorithm, env="smax", lim=options, env_args={"map_name": "3m"})
    with pytest.raises(LimaskError) as caught:
        host.module("runners").REGISTRY[args.runner](args=args, logger=None)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("algorithm", "options", "words"),
    [
        ("iql_lim", {"common_reward": False}, ("common_reward=False", "EPyMARL")),
        (
            "qmix_entity_lim",
            {"learner": "lim_qatten"},
            ("learner='lim_qatten'", "lim_dmaq_qatten_learner", "lim_learner"),
        ),
        ("qmix_entity_lim", {"standardise_returns": True}, ("standardise_returns=True",)),
    ],
)
def test_options_of_the_host_are_refused_before_an_environment_is_built(
    host: Host, algorithm: str, options: dict[str, Any], words: tuple[str, ...]
) -> None:
    args = host_parts.make_args(host, algorithm, env="smax", env_args={"map_name": "3m"}, **options)
    with pytest.raises(LimaskError) as caught:
        host.module("runners").REGISTRY[args.runner](args=args, logger=None)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_mixer_of_individual_rewards_is_refused(host: Host) -> None:
    with pytest.raises(LimaskError, match="common_reward=False with mixer='vdn'.*iql_lim"):
        host_parts.make_learner(host, host_parts.make_args(host, "vdn_lim", common_reward=False))


def test_agents_and_controllers_of_the_hosts_are_refused(host: Host) -> None:
    args = host_parts.make_args(host, "mappo_lim", mac="basic_mac", agent="rnn")
    with pytest.raises(LimaskError, match="mac='basic_mac' agent='rnn'.*set mac=lim_mac agent=lim"):
        host_parts.make_learner(host, args)


def test_learner_without_an_optimiser_of_the_agent_is_refused(host: Host) -> None:
    learner = smax_learner(host, "mappo_lim")
    twin = copy.copy(learner)
    del twin.agent_optimiser
    with pytest.raises(LimaskError, match="expected one optimiser that trains the agent, found none"):
        twin._agent_optimiser()


def test_nan_stops_before_the_agent_changes(host: Host) -> None:
    learner = smax_learner(host, "maa2c_lim")
    batch = smax_batch(host, learner)
    batch["obs"][0, 0] = float("nan")
    before = [p.clone() for p in learner.agent.parameters()]
    with pytest.raises(LimaskError, match="norm of the host's gradient is nan at t_env=77"):
        learner.train(batch, 77, 0)
    assert all(torch.equal(a, b) for a, b in zip(before, learner.agent.parameters(), strict=True))


def test_result_wanted_for_the_whole_batch_is_not_lost_silently(host: Host) -> None:
    """pymarlzooplus's prioritised replay takes each episode's squared TD errors."""

    def prioritised(minibatches: int) -> Any:
        options = {"learner": "lim_q_learner", "prioritized_buffer": True, "n_actions": 8}
        lim = {"targets": {"td_lambda": 0.0}, "minibatches": minibatches}
        env = {"env": "smax", "env_args": {"map_name": "3m"}}
        return host_parts.make_learner(
            host, host_parts.make_args(host, "qmix_entity_lim", lim=lim, **env, **options), 75
        )

    learner, whole = prioritised(2), prioritised(1)
    with pytest.raises(LimaskError, match="lim.minibatches=2 .*prioritised replay.*set lim.minibatches=1"):
        learner.train(smax_batch(host, learner), 0, 0)
    assert whole.train(smax_batch(host, whole), 0, 0).shape[0] == 8
