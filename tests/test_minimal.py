"""examples/qmix_lim_minimal.py computes what the package computes: losses, gradients, weights, actions."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import host_parts
import pytest
import torch
import yaml
from example_parts import EXAMPLES, load_example
from torch import Tensor

from limask import masking, resources
from limask.autoencoder.sightings import FADING
from limask.config import RENAMED, LimConfig, MaskerOptions, migrated
from limask.config.nested import flat
from limask.hosts.base import Host
from limask.layouts import tokens

FILE = EXAMPLES / "qmix_lim_minimal.py"
KINDS = ("ally", "enemy")
N, OBS, ACTIONS, STATE = 3, 75, 8, 72  # of SMAX 3m
WARMUP = 100
#: Given to both; γ and λ are exact in binary, as the package keeps the flag of an episode's end in 32 bits.
OPTIONS = {"gamma": 63 / 64, "td_lambda": 5 / 8, "rec_warmup": WARMUP, "rec_share": 0.5, "keep_at_least": 2}
EXACT = {"rtol": 1e-9, "atol": 1e-12}

minimal = load_example("qmix_lim_minimal")


@pytest.fixture(scope="module")
def host() -> Host:
    return host_parts.load_host("pymarlzooplus")


def make_learner(host: Host, clip: float = 10.0) -> Any:
    """The package's learner of ``qmix_lim_robust`` in 64 bits, with inferences that enter its agents."""
    torch.manual_seed(0)
    lim = migrated({key: value for key, value in OPTIONS.items() if key != "gamma"})
    where = {"env_args": {"map_name": "3m", "sight_range": 0.5}, "n_actions": ACTIONS, "state_shape": STATE}
    args = host_parts.make_args(
        host, "qmix_lim_robust", env="smax", lim=lim, gamma=OPTIONS["gamma"], grad_norm_clip=clip, **where
    )
    learner = host_parts.make_learner(host, args, OBS)
    for module in (learner.agent, learner.target_mac.agent, learner.mixer, learner.target_mixer):
        module.double()
        if module in (learner.target_mac.agent, learner.target_mixer):
            with torch.no_grad():  # other values than the online networks'
                for parameter in module.parameters():
                    parameter.mul_(0.8)
    fading = learner.agent.autoencoder.sightings.fading  # was 0.9 in 32 bits
    fading[fading < 1] = FADING
    return learner


def let_in(learner: Any) -> None:
    """Make the layers through which inferences enter carry something, in the target network as well."""
    for agent in (learner.agent, learner.target_mac.agent):
        for linear in agent.fc1.embed_inferred.values():
            torch.nn.init.normal_(linear.weight, std=0.1)


def make_batch(host: Host, learner: Any, seed: int = 0) -> Any:
    """Eight episodes of different lengths in which units of several types die and are out of sight."""
    batch = host_parts.make_batch(host, learner.args, 8, seed, OBS)
    data = batch.data.transition_data
    for key in ("obs", "state", "reward", "actions_onehot"):
        data[key] = data[key].double()
    obs, layout = data["obs"], learner.agent.layout
    generator = torch.Generator().manual_seed(seed)
    parts = tokens.split(obs, layout)
    own = parts["own"]  # (B, T, N, 1, 10)
    own[..., 1:3] = torch.rand(own[..., 1:3].shape, generator=generator).double()
    kinds = torch.randint(6, (*own.shape[:2], 2 * N), generator=generator)
    units = data["state"][..., : 2 * N * own.shape[-1]].unflatten(-1, (2 * N, -1))  # (B, T, U, 10)
    units[..., :N, :] = own.squeeze(3)
    units[..., 4:] = torch.nn.functional.one_hot(kinds, 6).double()
    own[..., 4:] = units[..., :N, None, 4:]
    # Each unit dies at some step, or never; its row of the state, its own view, and its tokens become zeros.
    death = torch.randint(2, 2 * host_parts.LIMIT, (len(obs), 1, 2 * N), generator=generator)
    is_dead = torch.arange(obs.shape[1]).view(1, -1, 1) >= death  # (B, T, U)
    units[is_dead] = 0.0
    others = torch.tensor([[u for u in range(2 * N) if u != i] for i in range(N)])
    is_gone = is_dead[:, :, others] | (torch.rand((*obs.shape[:3], 5), generator=generator) < 0.4)
    is_gone = torch.nn.functional.pad(is_gone, (0, 1)) | is_dead[:, :, :N, None]
    is_padding = batch["filled"].unsqueeze(-1) == 0
    obs.copy_(tokens.hide(obs, is_gone | is_padding, layout))
    return batch


def as_tensors(batch: Any) -> Any:
    """The host's batch as the example's."""
    return minimal.Batch(
        batch["obs"],
        batch["state"],
        batch["avail_actions"] > 0,
        batch["actions"].squeeze(3),
        batch["reward"].squeeze(2),
        batch["terminated"].squeeze(2),
        batch["filled"].squeeze(2) > 0,
    )


def of_q(agent: Any, mixer: Any, value: Callable[[Tensor], Any]) -> dict[str, Any]:
    """``value`` of the package's parameters that Q-learning trains, by their names in the example."""
    trunk, head = agent.fc1, agent.fc2.linear
    found = of_trunk(trunk, "0.trunk", value)
    for i, kind in enumerate(KINDS):
        found[f"0.V.{i}.weight"] = value(trunk.embed_inferred[kind].weight)
    modules = {"0.gru": agent.rnn, "0.head": head, "1.b1": mixer.hyper_b_1}
    modules |= {"1.w1": mixer.hyper_w_1, "1.w2": mixer.hyper_w_final, "1.b2": mixer.V}
    return found | by_name(modules, value)


def of_belief(belief: Any, value: Callable[[Tensor], Any]) -> dict[str, Any]:
    """The same of the belief's parameters."""
    decoder, modules = belief.decoder, {"gru": belief.rnn, "from_agent": belief.decoder.from_agent}
    found = of_trunk(belief.trunk, "trunk", value)
    for i, kind in enumerate(KINDS):
        found[f"slots.{i}"] = value(decoder.slots[kind])
        modules[f"from_sighting.{i}"] = decoder.from_sighting[kind]
        modules[f"to_features.{i}"] = decoder.to_features[kind]
    return found | by_name(modules, value)


def of_trunk(trunk: Any, name: str, value: Callable[[Tensor], Any]) -> dict[str, Any]:
    """The same of a trunk's parameters."""
    n_own, width = len(trunk.own_columns), trunk.mix.out_features // 2
    found = {f"{name}.own.bias": value(trunk.mix.bias)}
    found[f"{name}.own.weight"] = value(trunk.mix.weight)[:, :n_own]
    for i, kind in enumerate(KINDS):
        columns = slice(n_own + i * width, n_own + (i + 1) * width)
        found[f"{name}.E.{i}.weight"] = value(trunk.embed[kind].weight)
        found[f"{name}.pool.{i}.weight"] = value(trunk.mix.weight)[:, columns]
    return found


def by_name(modules: dict[str, Any], value: Callable[[Tensor], Any]) -> dict[str, Any]:
    return {
        f"{name}.{inner}": value(parameter)
        for name, module in modules.items()
        for inner, parameter in module.named_parameters()
    }


def make_example(learner: Any, clip: float = 10.0) -> Any:
    """The example with the package's weights and stream of masks."""
    options = SimpleNamespace(**vars(minimal.DEFAULTS) | OPTIONS | {"grad_norm_clip": clip})
    example = minimal.QmixLim(minimal.Layout(sight_range=0.5), STATE, options)
    example.generator.set_state(learner.reconstruction.generator.get_state())
    for module, found in weights(learner, example):
        module.double()
        assert found.keys() == dict(module.named_parameters()).keys()
        module.load_state_dict(found, strict=False)
    return example


def weights(learner: Any, example: Any) -> list[tuple[Any, dict[str, Tensor]]]:
    """The example's modules, and what the package has in their place."""
    copied = torch.Tensor.detach
    return [
        (example.online, of_q(learner.agent, learner.mixer, copied)),
        (example.target, of_q(learner.target_mac.agent, learner.target_mixer, copied)),
        (example.belief, of_belief(learner.agent.autoencoder, copied)),
    ]


def assert_same_gradients(learner: Any, example: Any) -> None:
    """All gradients as the optimisers took them, clipped; none where the package has none."""
    expected = of_q(learner.agent, learner.mixer, lambda parameter: parameter.grad)
    found = {name: parameter.grad for name, parameter in example.online.named_parameters()}
    belief = of_belief(learner.agent.autoencoder, lambda parameter: parameter.grad)
    found |= {f"belief.{name}": p.grad for name, p in example.belief.named_parameters()}
    expected |= {f"belief.{name}": gradient for name, gradient in belief.items()}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        if expected[name] is None:
            assert gradient is None and ".V." in name
        else:
            assert gradient.any(), name
            torch.testing.assert_close(gradient, expected[name], **EXACT, msg=name)


def assert_same_weights(learner: Any, example: Any) -> None:
    for module, expected in weights(learner, example):
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(parameter.detach(), expected[name], **EXACT, msg=name)


@pytest.mark.parametrize("clip", [0.001, 1000.0])
@pytest.mark.parametrize("t_env", [0, WARMUP])
def test_losses_and_gradients_are_the_packages(host: Host, t_env: int, clip: float) -> None:
    """Before and after inferences are let in, with gradients that are clipped and that are not."""
    learner = make_learner(host, clip)
    if t_env >= WARMUP:
        let_in(learner)
    example, batch = make_example(learner, clip), make_batch(host, learner)
    learner.train(batch, t_env, 0)
    stats = {key: values[-1] for key, values in learner.logger.stats.items()}
    assert (stats["grad_norm"] > clip) == (stats["rec_grad_norm"] > clip) == (clip < 1)
    assert stats["mask_rate"] > 0.1
    assert stats["rec_error_unseen"] > 0
    td_loss, rec_loss = example.update(as_tensors(batch), t_env)
    assert td_loss == pytest.approx(stats["loss"], rel=1e-12)
    assert rec_loss == pytest.approx(stats["rec_loss"], rel=1e-12)
    assert_same_gradients(learner, example)
    assert (learner.agent.fc1.embed_inferred["ally"].weight.grad is None) == (t_env < WARMUP)
    assert_same_weights(learner, example)


def test_a_run_across_the_warm_up_keeps_the_packages_weights(host: Host) -> None:
    learner = make_learner(host)
    example = make_example(learner)
    for step, t_env in enumerate((0, WARMUP - 1, WARMUP, WARMUP + 50, WARMUP + 99)):
        batch = make_batch(host, learner, seed=step)
        learner.train(batch, t_env, step)
        losses = example.update(as_tensors(batch), t_env)
        expected = (learner.logger.stats["loss"][-1], learner.logger.stats["rec_loss"][-1])
        assert losses == pytest.approx(expected, rel=1e-9)
        assert_same_weights(learner, example)
        assert example.agent.V[0].weight.any() == (t_env >= WARMUP)


def test_what_is_inferred_matters_to_these_comparisons(host: Host) -> None:
    """The example's losses move with the belief, with V and with the masks: equal ones say something."""
    learner = make_learner(host)
    let_in(learner)
    batch = as_tensors(make_batch(host, learner))
    plain, blind, other = (make_example(learner) for _ in range(3))
    torch.nn.init.zeros_(blind.agent.V[1].weight)
    torch.nn.init.normal_(other.belief.to_features[1].bias)
    td_losses, rec_losses = zip(*(each.update(batch, WARMUP) for each in (plain, blind, other)), strict=True)
    assert len(set(td_losses)) == 3
    assert rec_losses[0] == rec_losses[1] != rec_losses[2]


@pytest.mark.parametrize(("ratio", "keep"), [(0.5, 1), (0.9, 3), (0.5, 6), (0.0, 1)])
def test_masks_are_the_packages(host: Host, ratio: float, keep: int) -> None:
    learner = make_learner(host)
    batch, layout = make_batch(host, learner), learner.agent.layout
    is_visible = tokens.visibility(batch["obs"], layout)
    masker = learner.reconstruction.masker
    masker.config = LimConfig(masker=MaskerOptions(ratio=ratio, keep_at_least=keep))
    view = masking.MaskView(batch["obs"], is_visible, batch["filled"].squeeze(2) > 0)
    seeded = torch.Generator().manual_seed(7)
    expected = masking.hidden_tokens(masker, view, tokens.hideable(layout), seeded)
    options = SimpleNamespace(mask_ratio=ratio, keep_at_least=keep)
    is_hidden = minimal.random_masks(is_visible, options, seeded.manual_seed(7))
    assert torch.equal(is_hidden, expected[..., :-1])
    n_left = (is_visible[..., :-1] & ~is_hidden).sum(dim=-1) + is_visible[..., -1]
    assert (n_left >= is_visible.sum(dim=-1).clamp(max=keep)).all()


def test_step_by_step_q_values_and_actions_are_the_packages(host: Host) -> None:
    learner = make_learner(host)
    let_in(learner)
    batch = make_batch(host, learner)
    example, given = make_example(learner), as_tensors(batch)
    example.options.epsilon_finish = 0.0  # the best action
    seen: list[Tensor] = []
    example.agent.register_forward_hook(lambda module, args, output: seen.append(output[0].squeeze(1)))
    learner.mac.init_hidden(8)
    states: Any = [None, None]
    for t in range(host_parts.LIMIT + 1):
        last_action = batch["actions_onehot"][:, t - 1] * (t > 0)
        inputs = example.layout.inputs(given.obs[:, t], last_action)
        actions, states = example.act(inputs, given.is_available[:, t], states, t_env=10**9)
        with torch.no_grad():
            expected = learner.mac.forward(batch, t)
        torch.testing.assert_close(seen[-1], expected, **EXACT)
        is_filled = given.is_filled[:, t]
        best = expected.masked_fill(~given.is_available[:, t], -torch.inf).argmax(dim=-1)
        assert torch.equal(actions[is_filled], best[is_filled])
    assert len(seen) == host_parts.LIMIT + 1


def test_epsilon_falls_linearly_and_explores_available_actions_alone() -> None:
    torch.manual_seed(0)
    learner = minimal.QmixLim(minimal.Layout(), STATE)
    inputs = learner.layout.inputs(torch.rand(4000, N, OBS), torch.zeros(4000, N, ACTIONS))
    is_available = torch.zeros(4000, N, ACTIONS, dtype=torch.bool)
    is_available[..., 2:6] = True
    greedy, _ = learner.act(inputs, is_available, [None, None], t_env=50000)
    for t_env, epsilon in ((0, 1.0), (25000, 0.525), (90000, 0.05)):
        actions, _ = learner.act(inputs, is_available, [None, None], t_env)
        assert ((2 <= actions) & (actions < 6)).all()
        changed = (actions != greedy).float().mean()
        # A random choice is the best action one time in four, and ``greedy`` explores a little itself.
        assert changed == pytest.approx(0.75 * epsilon, abs=0.06)


def test_defaults_are_the_configs(host: Host) -> None:
    config = yaml.safe_load((resources.config_dir() / "algs/qmix_lim_robust.yaml").read_text())
    lim = flat(config.pop("lim"))
    config |= {old: lim[new] for old, new in RENAMED.items()}
    config["tau"] = config["target_update_interval_or_tau"]
    config["hidden_dim"] = host_parts.make_args(host, "qmix_lim_robust").hidden_dim
    config["burst"] = lim["faults.burst"]
    defaults = vars(minimal.DEFAULTS)
    assert defaults == {key: config[key] for key in defaults}
    learner = make_learner(host)
    layout, ours = learner.agent.layout, minimal.Layout(sight_range=0.5)
    assert ours.sizes == [65, 10, ACTIONS, N] == [layout.hideable_size, 10, ACTIONS, N]
    assert ours.sights.tolist() == pytest.approx(layout.frame.sights)


def test_bursts_lose_as_many_sightings_as_the_packages() -> None:
    """A sighting is there with a chance of (1 − p / 5)⁵ at every step, and it goes out for five at least."""
    torch.manual_seed(0)
    shown = torch.ones(4000, 12, 3, 5, 2)
    is_lost = ~minimal.bursts(shown, SimpleNamespace(burst=[0.5, 0.5])).bool().any(dim=-1)
    assert is_lost.float().mean(dim=(0, 2, 3)).tolist() == pytest.approx([1 - 0.9**5] * 12, abs=0.01)
    begins = is_lost[:, 1:] & ~is_lost[:, :-1]  # of those that have four more steps:
    assert is_lost[:, 5:][begins[:, :7]].all() and begins[:, :7].any()
    fewer, more = (
        ~minimal.bursts(shown, SimpleNamespace(burst=ends)).bool().any(dim=-1) for ends in ([0, 0], [0, 1])
    )
    assert not fewer.any()
    by_episode = more.float().mean(dim=(1, 2, 3))
    assert by_episode.min() < 0.05 and by_episode.max() > 0.5


def test_file_is_short_and_stands_alone() -> None:
    source = FILE.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 360
    nodes = list(ast.walk(ast.parse(source)))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= set(sys.stdlib_module_names) | {"numpy", "torch"}


def test_main_runs_and_learns() -> None:
    # -I leaves out the working folder and PYTHONPATH: nothing of the checkout is within reach.
    env = os.environ | {"OMP_NUM_THREADS": "1"}  # networks as small as these lose time on more threads
    result = subprocess.run(
        [sys.executable, "-I", str(FILE)], env=env, text=True, capture_output=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    rewards = [float(value) for value in re.findall(r"reward (\d\.\d+)", result.stdout)]
    assert len(rewards) >= 2
    assert rewards[-1] > 2 * rewards[0]
