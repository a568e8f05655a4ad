"""The learner in a real host (pymarlzooplus): the invariants of the two losses, and its errors."""

from __future__ import annotations

import copy
from typing import Any

import host_parts
import pytest
import torch

from limask.errors import LimaskError
from limask.hosts.base import Host
from limask.networks.packing import Packing

SMAX_3M_OBS, SMAX_3M_ACTIONS = 75, 8


@pytest.fixture(scope="module")
def host() -> Host:
    return host_parts.load_host("pymarlzooplus")


def smax_learner(host: Host, algorithm: str = "qmix_entity_lim", mixer: str = "qmix", **lim: Any) -> Any:
    """A learner on the sizes of SMAX 3m; every call starts from the same weights."""
    torch.manual_seed(0)
    overrides = {"env_args": {"map_name": "3m"}, "n_actions": SMAX_3M_ACTIONS, "lim": lim}
    overrides |= {"mixer": mixer}
    args = host_parts.make_args(host, algorithm, env="smax", **overrides)
    return host_parts.make_learner(host, args, SMAX_3M_OBS)


def smax_batch(host: Host, learner: Any, n_episodes: int = 32, seed: int = 0) -> Any:
    return host_parts.make_batch(host, learner.args, n_episodes, seed, SMAX_3M_OBS)


def test_td_gradients_are_bit_equal_with_and_without_an_autoencoder(host: Host) -> None:
    plain, full = (
        smax_learner(host, autoencoder={"weight": 0.0}),
        smax_learner(host, autoencoder={"weight": 1e-9}),
    )
    recorded = host_parts.record_td_gradients(full)
    plain.train(smax_batch(host, plain), 0, 0)
    full.train(smax_batch(host, full), 0, 0)
    assert recorded
    for ours, theirs in zip(recorded, host_parts.gradients(plain), strict=True):
        assert torch.equal(ours, theirs)


def test_reconstruction_reaches_the_trunk_and_not_the_head(host: Host) -> None:
    learner = smax_learner(host, autoencoder={"weight": 1.0})
    recorded = host_parts.record_td_gradients(learner)
    learner.train(smax_batch(host, learner), 0, 0)
    names = [name for name, _ in learner.agent.named_parameters()]
    changed = {
        name
        for name, td, total in zip(names, recorded, host_parts.gradients(learner), strict=False)
        if not torch.equal(td, total)
    }
    assert any(name.startswith("fc1.") for name in changed)
    assert any(name.startswith("rnn.") for name in changed)
    assert not any(name.startswith("fc2.") for name in changed)
    mixer = recorded[len(names) :], host_parts.gradients(learner)[len(names) :]
    assert all(torch.equal(a, b) for a, b in zip(*mixer, strict=True))


def test_detached_trunk_receives_nothing_from_the_reconstruction(host: Host) -> None:
    detached, plain = (
        smax_learner(host, autoencoder={"detach_trunk": True}),
        smax_learner(host, autoencoder={"weight": 0.0}),
    )
    before = copy.deepcopy(detached.reconstruction.autoencoder.state_dict())
    for learner in (detached, plain):
        learner.train(smax_batch(host, learner), 0, 0)
    for ours, theirs in zip(detached.params, plain.params, strict=True):
        assert torch.equal(ours, theirs)
    after = detached.reconstruction.autoencoder.state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in before)


def test_decoder_receives_no_gradient_of_the_td_loss(host: Host) -> None:
    learner = smax_learner(host, autoencoder={"weight": 0.0})
    learner.train(smax_batch(host, learner), 0, 0)
    assert all(p.grad is None for p in learner.reconstruction.autoencoder.parameters())
    ids = {id(p) for p in learner.params}
    assert not any(id(p) in ids for p in learner.reconstruction.autoencoder.parameters())


@pytest.mark.parametrize("masker", ["none", "random", "random_agent"])
def test_reconstruction_error_falls_with_every_masker(host: Host, masker: str) -> None:
    learner = smax_learner(host, masker={"name": masker}, autoencoder={"weight": 1.0, "lr": 0.003})
    batch = smax_batch(host, learner)
    for step in range(60):
        learner.train(batch, step, step)
    errors = learner.logger.stats["rec_loss"]
    assert sum(errors[-5:]) < 0.8 * sum(errors[:5])
    rates = learner.logger.stats["mask_rate"]
    mean_rate = sum(rates) / len(rates)
    assert mean_rate == 0 if masker == "none" else 0.1 < mean_rate < 0.6


def test_same_seed_same_numbers(host: Host) -> None:
    runs = []
    for _ in range(2):
        learner = smax_learner(host)
        for step in range(3):
            learner.train(smax_batch(host, learner, seed=step), step, step)
        runs.append(learner.logger.stats)
    assert runs[0] == runs[1]


def test_minibatches_make_as_many_steps_as_separate_batches(host: Host) -> None:
    together, apart = smax_learner(host, minibatches=4), smax_learner(host, minibatches=1)
    batch = smax_batch(host, together, n_episodes=32)
    together.train(batch, 0, 0)
    for first in range(0, 32, 8):
        apart.train(batch[first : first + 8], 0, 0)
    assert together.training_steps == apart.training_steps == 4
    for ours, theirs in zip(together.params, apart.params, strict=True):
        assert torch.equal(ours, theirs)


def test_padding_does_not_take_part(host: Host) -> None:
    clean, dirty = smax_learner(host), smax_learner(host)
    batch = smax_batch(host, clean)
    clean.train(batch, 0, 0)
    is_padding = batch["filled"].squeeze(-1) == 0
    for key in ("obs", "state", "avail_actions", "actions_onehot"):
        batch[key][is_padding] = 77
    dirty.train(batch, 0, 0)
    assert clean.logger.stats == dirty.logger.stats


def test_nan_stops_before_the_networks_change(host: Host) -> None:
    learner = smax_learner(host)
    batch = smax_batch(host, learner)
    batch["reward"][0, 0] = float("nan")
    before = [p.clone() for p in learner.params]
    with pytest.raises(LimaskError) as caught:
        learner.train(batch, 1234, 0)
    message = str(caught.value)
    for words in (
        "TD loss is nan",
        "t_env=1234",
        "SGD step 1",
        "none written",
        "masker=MaskerOptions(name='random'",
    ):
        assert words in message
    assert "\n" not in message
    assert all(torch.equal(a, b) for a, b in zip(before, learner.params, strict=True))


def test_checkpoint_restores_everything_it_holds(host: Host, tmp_path: Any) -> None:
    learner = smax_learner(host)
    learner.train(smax_batch(host, learner), 0, 0)
    learner.save_models(str(tmp_path))
    assert not list(tmp_path.glob("*.part"))
    twin = smax_learner(host)
    twin.load_models(str(tmp_path))
    for part in ("agent", "mixer"):
        saved, loaded = getattr(learner, part).state_dict(), getattr(twin, part).state_dict()
        assert all(torch.equal(saved[key], loaded[key]) for key in saved)
    draws = [torch.rand(3, generator=each.reconstruction.generator) for each in (learner, twin)]
    assert torch.equal(*draws)
    saved = learner.reconstruction.autoencoder.state_dict()
    loaded = twin.reconstruction.autoencoder.state_dict()
    assert all(torch.equal(saved[key], loaded[key]) for key in saved)


def test_checkpoint_of_a_run_without_autoencoder_is_refused_before_anything_is_loaded(
    host: Host, tmp_path: Any
) -> None:
    plain = smax_learner(host, "qmix_entity")
    plain.train(smax_batch(host, plain), 0, 0)
    plain.save_models(str(tmp_path))
    learner = smax_learner(host)
    before = [p.clone() for p in learner.params]
    with pytest.raises(LimaskError, match=r"no autoencoder\.th"):
        learner.load_models(str(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(before, learner.params, strict=True))


def test_standardised_returns_are_refused(host: Host) -> None:
    args = host_parts.make_args(host, "qmix_fc", standardise_returns=True)
    with pytest.raises(LimaskError, match="standardise_returns=False"):
        host_parts.make_learner(host, args)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"lim": {"maskr": "random"}}, "did you mean 'lim.masker'"),
        ({"env": "smax", "env_args": {"map_name": "3n"}}, "did you mean '3m'"),
        ({"lim": {"trunk": "fc"}}, "lim.trunk='fc'"),
        ({"lim": {"minibatches": 300}, "batch_size": 256}, "lim.minibatches=300"),
    ],
)
def test_mistakes_are_found_before_an_environment_is_built(
    host: Host, overrides: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Any] = []
    for name in ("gymma", "smax"):
        monkeypatch.setitem(host.module("envs").REGISTRY, name, lambda **kwargs: built.append(kwargs))
    args = host_parts.make_args(host, "qmix_entity_lim", **({"env": "gymma"} | overrides))
    for runner in ("vector", "episode"):
        with pytest.raises(LimaskError) as caught:
            host.module("runners").REGISTRY[runner](args=args, logger=host_parts.RecordingLogger())
        assert words in str(caught.value)
    assert not built


def test_q_lambda_corrects_each_reward_for_the_action_taken(host: Host) -> None:
    """With λ = 0 the targets differ by the value of the best available action minus that of the one taken, in
    the target networks and step by step through the host's own controller."""
    plain, corrected = (
        smax_learner(host, mixer="vdn", targets={"td_lambda": 0.0, "q_lambda": on}) for on in (False, True)
    )
    batch = smax_batch(host, plain)
    targets = []
    for learner in (plain, corrected):
        with torch.no_grad():  # other target networks than those that choose the action
            for parameter in learner.target_mac.agent.parameters():
                parameter.mul_(0.5)
        packing = Packing(batch["filled"].squeeze(-1).bool())
        td = learner._begun(batch, 0, learner._rewards(batch)).td
        targets.append(packing.unpack(scattered(packing, td.target)))
    online, target = (step_by_step(mac, batch) for mac in (plain.mac, plain.target_mac))
    best = online.masked_fill(batch["avail_actions"] == 0, -1e9).argmax(dim=3, keepdim=True)
    gap = (target.gather(3, best) - target.gather(3, batch["actions"])).sum(dim=2)
    is_step = (batch["filled"][:, :-1] * batch["filled"][:, 1:]).bool()
    torch.testing.assert_close((targets[1] - targets[0])[:, :-1][is_step], gap[:, :-1][is_step])
    assert gap.abs().max() > 0.01


def scattered(packing: Packing, values: torch.Tensor) -> torch.Tensor:
    """(P, V) of the transitions → (M, V), zero in the last step of each episode."""
    packed = values.new_zeros(len(packing.index), values.shape[1])
    return packed.index_copy(0, packing.starts, values)


def step_by_step(mac: Any, batch: Any) -> torch.Tensor:
    """Q-values (B, T, N, A) as the hosts' own learner computes them."""
    mac.init_hidden(batch.batch_size)
    with torch.no_grad():
        return torch.stack([mac.forward(batch, t=t) for t in range(batch.max_seq_length)], dim=1)


def test_a_host_that_minimises_half_the_squared_error(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the loss and the gradient, and the same credit of each agent."""
    found = []
    for weight in (1.0, 0.5):
        monkeypatch.setattr(type(host), "td_weight", weight)
        learner = smax_learner(host, masker={"credit": "mixed"})
        batch = smax_batch(host, learner)
        update = learner._begun(batch, 0, learner._rewards(batch))
        update.td.loss.backward()
        found.append((update.td.loss.detach(), host_parts.gradients(learner), update.agent_errors()))
    (loss, whole, credit), (half_loss, half, half_credit) = found
    torch.testing.assert_close(half_loss, loss / 2)
    torch.testing.assert_close(half_credit, credit)
    for a, b in zip(whole, half, strict=True):
        torch.testing.assert_close(b, a / 2)
