"""What the learner tells maskers, held against slow readings of the formulas, in a real host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import host_parts
import pytest
import torch
from host_parts import gradients, record_td_gradients, record_views
from test_learner import smax_batch, smax_learner

from limask import masking
from limask.errors import LimaskError
from limask.hosts.base import Host
from limask.learning import signals
from limask.networks.packing import Packing


@pytest.fixture(scope="module")
def host() -> Host:
    return host_parts.load_host("pymarlzooplus")


AT_ONCE = {"random_until": 0, "random_anneal": 0}


def test_local_errors_by_hand() -> None:
    chosen, following = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[10.0, 20.0], [30.0, 40.0]])
    reward, terminated = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [1.0]])
    # 1 − (1 + 0.5 · 10), 2 − (1 + 0.5 · 20); the second transition ends the episode.
    assert signals.local_errors(chosen, reward, terminated, following, 0.5).tolist() == [[5, 9], [1, 2]]


@pytest.mark.parametrize("credit", ["local", "mixed"])
@pytest.mark.parametrize("mixer", ["qmix", "vdn", None])
def test_agents_td_errors_step_by_step(host: Host, credit: str, mixer: str | None) -> None:
    masker = {"name": "td_threshold", "credit": credit} | AT_ONCE
    options: dict[str, Any] = {
        "masker": masker,
        "autoencoder": {"share": 0.5},
        "targets": {"td_lambda": 0.0},
    }
    torch.manual_seed(0)
    overrides = {"env_args": {"map_name": "3m"}, "n_actions": 8, "lim": options, "mixer": mixer}
    args = host_parts.make_args(host, "qmix_entity_lim", env="smax", **overrides)
    learner = host_parts.make_learner(host, args, 75)
    batch = smax_batch(host, learner, n_episodes=6)
    expected = torch.zeros(3, host_parts.LIMIT + 1, 3)
    inputs = [learner.mac._build_inputs(batch, t) for t in range(host_parts.LIMIT + 1)]
    hidden = target_hidden = torch.zeros(6 * 3, learner.agent.spec.hidden_dim)
    q, q_bar = [], []
    for x in inputs:
        step, hidden = learner.agent(x, hidden)
        bar, target_hidden = learner.target_mac.agent(x, target_hidden)
        q.append(step.view(6, 3, -1).detach())
        q_bar.append(bar.view(6, 3, -1).detach())
    for b in range(3):
        for t in range(host_parts.LIMIT):
            if not batch["filled"][b, t + 1]:
                continue
            chosen = q[t][b].gather(1, batch["actions"][b, t]).squeeze(1).requires_grad_()
            closed = batch["avail_actions"][b, t + 1] == 0
            best = q[t + 1][b].masked_fill(closed, -1e9).argmax(dim=1, keepdim=True)
            following = q_bar[t + 1][b].gather(1, best).squeeze(1)
            going_on = 0.99 * (1 - float(batch["terminated"][b, t]))
            reward = batch["reward"][b, t]
            if credit == "local" or mixer is None:
                expected[b, t] = (chosen - (reward + going_on * following)).abs().detach()
                continue
            state, later = batch["state"][b, t].view(1, 1, -1), batch["state"][b, t + 1].view(1, 1, -1)
            total = learner.mixer(chosen.view(1, 1, -1), state).sum()
            delta = total - (reward + going_on * learner.target_mixer(following.view(1, 1, -1), later).sum())
            (slope,) = torch.autograd.grad(total, chosen)
            expected[b, t] = (delta * slope).abs().detach()
    seen = record_views(learner)
    learner.train(batch, 1, 1)
    torch.testing.assert_close(seen[0].td_error, expected, rtol=1e-4, atol=1e-5)


def test_token_gradients_are_the_slope_of_fading_a_token(host: Host) -> None:
    learner = smax_learner(host, masker={"name": "value_saliency"} | AT_ONCE, autoencoder={"share": 1.0})
    learner.agent.double(), learner.mixer.double()
    batch = smax_batch(host, learner, n_episodes=2)
    packing = Packing(batch["filled"].squeeze(-1).bool())
    inputs = learner.mac.sequence_inputs(batch, packing).double()
    actions, state = packing.pack(batch["actions"]), packing.pack(batch["state"]).double()[packing.starts]

    def value(chosen: torch.Tensor) -> torch.Tensor:
        return learner.mixer(chosen.unsqueeze(1), state.unsqueeze(1))

    @torch.no_grad()
    def total(x: torch.Tensor) -> float:
        q, _ = learner.agent.sequence(x, packing.counts)
        return float(value(q[packing.starts].gather(2, actions[packing.starts]).squeeze(2)).sum())

    found = signals.token_gradients(learner.agent, inputs, packing, actions, value)
    layout = learner.agent.layout
    widths = [group.width for group in layout.groups for _ in range(group.count)]
    edges = torch.tensor([0, *widths]).cumsum(0)
    for row, agent, token in ((0, 0, 0), (1, 2, 3), (3, 1, layout.n_tokens - 1)):
        of = slice(int(edges[token]), int(edges[token + 1]))
        less, more = inputs.clone(), inputs.clone()
        less[row, agent, of] *= 1 - 1e-6
        more[row, agent, of] *= 1 + 1e-6
        slope = abs(total(more) - total(less)) / 2e-6
        assert found[row, agent, token].item() == pytest.approx(slope, rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("masker", masking.REGISTRY)
def test_every_masker_trains(host: Host, masker: str) -> None:
    """Also on a batch with episodes of length 1 and with everything out of sight."""
    options = {"view": {"weight": 0.1}, "autoencoder": {"saliency_weights": True, "share": 1.0}}
    learner = smax_learner(host, masker={"name": masker, "span": 3} | AT_ONCE, **options)
    batch = smax_batch(host, learner, n_episodes=8)
    batch["obs"][:4] = 0.0
    batch["filled"][4:6, 2:] = 0
    for t_env in range(3):
        learner.train(batch, t_env, t_env)
    stats = learner.logger.stats
    assert all(torch.tensor(values).isfinite().all() for values in stats.values())
    assert {"mask_rate", "mask_rate_ally", "rec_error_enemy", "mask_entropy", "view_loss"} <= stats.keys()
    assert (stats["mask_rate"][-1] == 0) == (masker == "none")


def test_hidden_views_td_loss_is_the_td_loss_where_nothing_is_hidden(host: Host) -> None:
    learner = smax_learner(
        host,
        masker={"name": "none"},
        view={"weight": 1.0, "loss": "td"},
        autoencoder={"weight": 0.0, "share": 1.0, "warmup": 0},
    )
    learner.train(smax_batch(host, learner), 0, 0)
    stats = learner.logger.stats
    assert stats["view_loss"] == pytest.approx(stats["loss"], rel=1e-5)


def test_hidden_views_td_loss_trains_the_agent_and_not_the_mixer(host: Host) -> None:
    learner = smax_learner(
        host,
        masker={"name": "none"},
        view={"weight": 1.0, "loss": "td"},
        autoencoder={"weight": 0.0, "share": 1.0, "warmup": 0},
    )
    recorded = record_td_gradients(learner)
    learner.train(smax_batch(host, learner), 0, 0)
    n_agent = len(list(learner.agent.parameters()))
    pairs = list(zip(recorded, gradients(learner), strict=True))
    td = torch.cat([before.flatten() for before, _ in pairs[:n_agent]])
    aug = torch.cat([(after - before).flatten() for before, after in pairs[:n_agent]])
    # The same loss twice; only the clipping differs.
    assert torch.cosine_similarity(td, aug, dim=0).item() == pytest.approx(1.0, abs=1e-4)
    assert all(torch.equal(before, after) for before, after in pairs[n_agent:])


def test_balanced_gradient_is_a_share_of_the_td_losss(host: Host) -> None:
    learner = smax_learner(host, autoencoder={"balance": "gradient", "weight": 0.3})
    recorded = record_td_gradients(learner)
    learner.train(smax_batch(host, learner), 0, 0)
    pairs = zip(recorded, gradients(learner), learner.params, strict=False)
    names = [name for name, _ in learner.agent.named_parameters()]
    shared = [(td, total - td) for (td, total, _), name in zip(pairs, names, strict=False)]
    reached = [(td, rec) for td, rec in shared if rec.count_nonzero()]
    norms = [torch.cat([part.flatten() for part in parts]).norm() for parts in zip(*reached, strict=True)]
    assert (norms[1] / norms[0]).item() == pytest.approx(0.3, rel=1e-3)


def test_decoder_alone_learns_until_the_warm_up_is_over(host: Host) -> None:
    learner = smax_learner(host, autoencoder={"warmup": 100})
    recorded = record_td_gradients(learner)
    learner.train(smax_batch(host, learner), 99, 0)
    assert all(torch.equal(a, b) for a, b in zip(recorded, gradients(learner), strict=True))
    assert learner.reconstruction.optimiser.state
    recorded.clear()
    learner.train(smax_batch(host, learner), 100, 1)
    assert not all(torch.equal(a, b) for a, b in zip(recorded, gradients(learner), strict=True))


def test_checkpoint_of_another_masker_is_refused(host: Host, tmp_path: Path) -> None:
    learner = smax_learner(host, masker={"name": "td_ema"} | AT_ONCE)
    other = smax_learner(host, masker={"name": "random"})
    learner.train(smax_batch(host, learner), 1, 0)
    learner.save_models(str(tmp_path))
    before = [p.clone() for p in other.params]
    with pytest.raises(
        LimaskError, match="lim.masker.name='td_ema', and this run has lim.masker.name='random'"
    ):
        other.load_models(str(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(before, other.params, strict=True))
    twin = smax_learner(host, masker={"name": "td_ema"} | AT_ONCE)
    twin.load_models(str(tmp_path))
    kept = [each.reconstruction.masker.state_dict()["average"] for each in (learner, twin)]
    assert torch.equal(*kept)
