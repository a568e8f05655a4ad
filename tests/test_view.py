"""The loss of the hidden view's values: by hand, and what it reaches in a real host."""

from __future__ import annotations

from typing import Any

import host_parts
import pytest
import torch
from host_parts import gradients, record_td_gradients
from test_faulty_training import OBS, make_batch, make_learner

from limask.hosts.base import Host
from limask.layouts import tokens
from limask.learning.distillation import distillation_loss
from limask.networks.packing import Packing

#: Three agents of one step: all three actions are available to the first, two to the second, one to the dead.
FULL = torch.tensor([[[1.0, 2.0, 6.0], [4.0, 0.0, 9.0], [5.0, 0.0, 0.0]]])
HIDDEN = torch.tensor([[[2.0, 2.0, 4.0], [1.0, 0.0, 0.0], [8.0, 1.0, 1.0]]])
AVAILABLE = torch.tensor([[[1, 1, 1], [1, 1, 0], [1, 0, 0]]]) > 0
CREDIT = torch.tensor([[2.0, 0.5, 3.0]])
LEARNS = {"view": {"weight": 1.0}, "autoencoder": {"warmup": 0, "share": 0.5}}


@pytest.fixture(scope="module")
def host() -> Host:
    return host_parts.load_host("pymarlzooplus")


# -- the loss --------------------------------------------------------------------------------------------


def test_distillation_by_hand() -> None:
    # Squares: 2² · (1 + 0 + 4), and 0.5² · (9 + 0), over five actions.
    loss = distillation_loss(HIDDEN, FULL, AVAILABLE, CREDIT)
    assert loss.item() == pytest.approx((20 + 2.25) / 5, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 7.0, 1e4])
def test_distillation_is_the_same_at_any_scale_of_the_values(scale: float) -> None:
    """QMIX leaves the scale of Q_i free, and where they lie: the mixer makes up for it."""
    plain = distillation_loss(HIDDEN, FULL, AVAILABLE, CREDIT)
    scaled = distillation_loss(
        scale * HIDDEN + 3 * scale, scale * FULL + 3 * scale, AVAILABLE, CREDIT / scale
    )
    torch.testing.assert_close(scaled, plain, rtol=1e-3, atol=0)


def test_distillation_is_as_small_as_what_the_battle_still_tells() -> None:
    """With the same mixer values that hardly differ have hardly a loss, as they have hardly a TD error."""
    plain = distillation_loss(HIDDEN, FULL, AVAILABLE, CREDIT)
    faint = distillation_loss(0.01 * HIDDEN, 0.01 * FULL, AVAILABLE, CREDIT)
    torch.testing.assert_close(faint, 1e-4 * plain)


def test_distillation_has_gradients_where_there_is_a_choice_and_for_the_hidden_view_alone() -> None:
    hidden, full = HIDDEN.clone().requires_grad_(), FULL.clone().requires_grad_()
    distillation_loss(hidden, full, AVAILABLE, CREDIT).backward()
    assert full.grad is None
    # 2 · credit² · difference / 5; nothing for what is not available, and nothing for the dead.
    expected = 2 * CREDIT.square().unsqueeze(-1) * (HIDDEN - FULL) / 5
    expected[0, 1, 2] = 0
    expected[0, 2] = 0
    torch.testing.assert_close(hidden.grad, expected)


def test_distillation_without_any_choice_is_nothing() -> None:
    hidden = HIDDEN.clone().requires_grad_()
    loss = distillation_loss(hidden, FULL, AVAILABLE & (torch.arange(3) == 0), CREDIT)
    loss.backward()
    assert loss.item() == 0
    assert hidden.grad is not None and not hidden.grad.any()


# -- in training -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["qmix_lim", "qmix_fc_lim", "qmix_entity_lim", "iql_lim"])
def test_the_teacher_sees_everything_and_the_agent_the_hidden_view(host: Host, algorithm: str) -> None:
    learner = make_learner(host, algorithm, masker={"ratio": 0.9}, **LEARNS)
    batch, layout = make_batch(host, learner), learner.agent.layout
    with torch.no_grad():  # the target network differs from the agent, or a teacher could be either
        for parameter in learner.target_mac.agent.q_parameters():
            parameter.mul_(1.1)
    part = batch[:4]  # the share of 8 that is reconstructed
    packing = Packing(part["filled"].squeeze(-1).bool())
    starts = packing.starts
    full, masks = learner.mac.sequence_inputs(part, packing), learner.reconstruction.masks
    is_hidden: list[torch.Tensor] = []
    learner.reconstruction.masks = lambda update: is_hidden.append(masks(update)) or is_hidden[0]
    view_loss, losses = learner.reconstruction._view_loss, []

    def by_hand(update: Any, view: Any) -> torch.Tensor:
        """Before the SGD step, of which the loss is part."""
        hidden = full.clone()
        hidden[..., :OBS] = tokens.hide(full[..., :OBS], packing.pack(is_hidden[0]), layout)
        with torch.no_grad():
            q_hidden, _ = learner.agent.sequence(hidden, packing.counts)
            q_full, _ = learner.target_mac.agent.sequence(full, packing.counts)
            q_seen, _ = learner.agent.sequence(full, packing.counts)
        is_available = packing.pack(part["avail_actions"])[starts] > 0
        chosen = q_seen[starts].gather(2, packing.pack(part["actions"])[starts]).squeeze(2).requires_grad_()
        credit = torch.ones_like(chosen)
        if learner.mixer is not None:
            with torch.enable_grad():
                state = packing.pack(part["state"])[starts]
                q_tot = learner.mixer(chosen.unsqueeze(1), state.unsqueeze(1))
                (credit,) = torch.autograd.grad(q_tot.sum(), chosen)
        losses.append(distillation_loss(q_hidden[starts], q_full[starts], is_available, credit))
        losses.append(view_loss(update, view))
        return losses[-1]

    learner.reconstruction._view_loss = by_hand
    learner.args.batch_size = 8
    learner.train(batch, 1, 0)
    expected, found = losses
    assert expected > 0
    torch.testing.assert_close(found.detach(), expected)


@pytest.mark.parametrize("loss", ["distillation", "td"])
def test_the_views_gradient_reaches_the_agent_alone(host: Host, loss: str) -> None:
    """Neither the belief nor the mixer nor the teacher is moved by it."""
    plain = make_learner(host, autoencoder=LEARNS["autoencoder"])
    viewed = make_learner(host, autoencoder=LEARNS["autoencoder"], view={"weight": 0.5, "loss": loss})
    recorded = record_td_gradients(viewed)
    teacher = [parameter.clone() for parameter in viewed.target_mac.agent.q_parameters()]
    plain.host.update_targets = viewed.host.update_targets = lambda *_: None
    for learner in (plain, viewed):
        learner.train(make_batch(host, learner), 1, 0)
    n_agent = len(viewed.agent.q_parameters())
    moved = [not torch.equal(a, b) for a, b in zip(recorded, gradients(viewed), strict=True)]
    assert any(moved[:n_agent]) and not any(moved[n_agent:])
    beliefs = (plain.agent.autoencoder.parameters(), viewed.agent.autoencoder.parameters())
    assert all(torch.equal(a, b) for a, b in zip(*beliefs, strict=True))
    kept = zip(teacher, viewed.target_mac.agent.q_parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in kept)


def test_the_views_gradient_is_bounded(host: Host) -> None:
    """However far apart the views are: it is clipped by itself, before its weight could undo that."""
    learner = make_learner(host, view={"weight": 1e6}, autoencoder=LEARNS["autoencoder"])
    recorded = record_td_gradients(learner)
    learner.train(make_batch(host, learner), 1, 0)
    added = [after - before for before, after in zip(recorded, gradients(learner), strict=True)]
    assert torch.nn.utils.get_total_norm(added).item() == pytest.approx(learner.args.grad_norm_clip, rel=1e-3)


def test_the_view_waits_for_the_warmup_and_weight_zero_leaves_every_bit(host: Host) -> None:
    plain = make_learner(host)
    waiting = make_learner(host, view={"weight": 0.5})
    for learner in (plain, waiting):
        for step in range(3):
            learner.train(make_batch(host, learner), step, 0)
    both = zip(plain.agent.state_dict().values(), waiting.agent.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in both)
    waiting.train(make_batch(host, waiting), 20000, 0)
    for name in ("view_loss", "view_grad_norm"):
        assert waiting.logger.stats[name][-1] > 0 and name not in plain.logger.stats


def test_with_masks_in_replay_the_teacher_still_sees_everything(host: Host) -> None:
    """Where Q-learning sees the hidden view, the full one is what really was observed."""
    masker = {"replay": 1.0, "ratio": 0.9}
    learner = make_learner(host, masker=masker, **LEARNS)
    batch = make_batch(host, learner)
    seen: list[torch.Tensor] = []
    teacher = learner.target_mac.agent.sequence
    learner.target_mac.agent.sequence = lambda *args: seen.append(args[0].clone()) or teacher(*args)
    learner.train(batch, 1, 0)
    of_td, of_view = seen
    part = batch[:4]
    packing = Packing(part["filled"].squeeze(-1).bool())
    assert torch.equal(of_view[..., :OBS], packing.pack(part["obs"]))
    layout = learner.agent.layout
    rates = [tokens.visibility(x[..., :OBS], layout)[..., : layout.n_tokens].float().mean() for x in seen]
    assert rates[0] < 0.5 * rates[1], "Q-learning sees little"
