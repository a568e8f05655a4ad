"""Faults of sensors in training: where they are drawn, what they reach, and what stays as it is."""

from __future__ import annotations

from typing import Any

import host_parts
import pytest
import torch

from limask import masking
from limask.hosts.base import Host
from limask.layouts import tokens
from limask.networks.packing import Packing

N, OBS, ACTIONS, STATE = 3, 75, 8, 72  # of SMAX 3m
ALL_LOST = {"replay": 1.0, "dropout": 1.0}
TRUNKS = [("qmix_fc", "fc"), ("qmix_entity", "entity"), ("qmix_lim", "entity")]


@pytest.fixture(scope="module")
def host() -> Host:
    return host_parts.load_host("pymarlzooplus")


def make_learner(host: Host, algorithm: str = "qmix_lim", **lim: Any) -> Any:
    torch.manual_seed(0)
    where: dict[str, Any] = {"env_args": {"map_name": "3m"}, "n_actions": ACTIONS, "n_agents": N}
    where |= {"state_shape": STATE, "lim": lim}
    args = host_parts.make_args(host, algorithm, env="smax", **where)
    return host_parts.make_learner(host, args, OBS)


def make_batch(host: Host, learner: Any, n_episodes: int = 8) -> Any:
    return host_parts.make_batch(host, learner.args, n_episodes, obs_size=OBS)


def hidden(batch: Any, learner: Any) -> torch.Tensor:
    """The batch's observations with nobody else in sight."""
    layout = learner.agent.layout
    return tokens.hide(batch["obs"], tokens.hideable(layout).expand(*batch["obs"].shape[:-1], -1), layout)


# -- replay ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("algorithm", "trunk"), TRUNKS)
def test_replay_is_q_learning_from_the_same_episodes_with_worse_sensors(
    host: Host, algorithm: str, trunk: str
) -> None:
    """Online and target network see the faulty view: the update is that of a batch in which it stands."""
    faulty, plain = make_learner(host, algorithm, faults=ALL_LOST), make_learner(host, algorithm)
    batch = make_batch(host, plain)
    seen = make_batch(host, plain)
    seen["obs"].copy_(hidden(batch, plain))
    before = batch["obs"].clone()
    for learner, episodes in ((faulty, batch), (plain, seen)):
        update = learner._begun(episodes, 0, learner._rewards(episodes), learner._replayed(episodes))
        update.td.loss.backward()
        learner.found = (update.td, host_parts.gradients(learner))
    for name in ("loss", "target", "q_taken", "next_values"):
        assert torch.equal(getattr(faulty.found[0], name), getattr(plain.found[0], name)), name
    assert all(torch.equal(a, b) for a, b in zip(faulty.found[1], plain.found[1], strict=True))
    assert torch.equal(batch["obs"], before), "what is replayed again is what happened"


def test_share_zero_leaves_every_bit(host: Host) -> None:
    plain, none = make_learner(host), make_learner(host, faults={"collect": True, "dropout": 0.5})
    for learner in (plain, none):
        for step in range(3):
            learner.train(make_batch(host, learner), 30000 + step, 0)
    both = zip(plain.agent.state_dict().values(), none.agent.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in both)
    assert plain.logger.stats == none.logger.stats


def test_the_share_of_episodes_is_faulty(host: Host) -> None:
    learner = make_learner(host, faults={"replay": 0.3, "dropout": 1.0})
    batch = make_batch(host, learner, 400)
    lost = hidden(batch, learner)
    replayed = learner._replayed(batch)
    is_faulty = torch.tensor([torch.equal(a, b) for a, b in zip(replayed, lost, strict=True)])
    is_whole = torch.tensor([torch.equal(a, b) for a, b in zip(replayed, batch["obs"], strict=True)])
    assert (is_faulty ^ is_whole).all()
    assert is_faulty.float().mean().item() == pytest.approx(0.3, abs=0.07)
    assert not torch.equal(learner._replayed(batch), replayed), "drawn anew each time"


@pytest.mark.parametrize("algorithm", ["qmix_lim", "qmix_entity_lim"])
def test_the_reconstruction_keeps_the_truth(host: Host, algorithm: str) -> None:
    """What faults took is scored as what a masker hides is, against what was really there."""
    learner = make_learner(
        host, algorithm, faults=ALL_LOST, autoencoder={"targets": "own", "share": 1.0}, masker={"ratio": 0.0}
    )
    batch, layout = make_batch(host, learner), learner.agent.layout
    seen: list[Any] = []
    score = learner.reconstruction._score

    def recording(states: Any, truth: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(truth)
        return score(states, truth, *args, **kwargs)

    learner.reconstruction._score = recording
    learner.args.batch_size = 8
    learner.train(batch, 0, 0)
    packing = Packing(batch["filled"].squeeze(-1).bool())
    real = packing.pack(batch["obs"])
    assert torch.equal(seen[0].obs, real)
    assert torch.equal(seen[0].is_scored, tokens.visibility(real, layout) & tokens.hideable(layout))
    assert learner.logger.stats["rec_loss"][-1] > 0


# -- a masker's tokens in replay -------------------------------------------------------------------------


class EverythingMasker(masking.Masker):
    """Proposes to hide all that there is, and keeps what it was shown."""

    signals = frozenset({"td_error", "saliency", "dependence"})

    def propose(self, view: masking.MaskView, generator: torch.Generator) -> torch.Tensor:
        self.view = view
        return torch.ones_like(view.is_visible)


def masked_learner(host: Host, monkeypatch: pytest.MonkeyPatch, algorithm: str, **lim: Any) -> Any:
    monkeypatch.setitem(masking.REGISTRY, "everything", EverythingMasker)
    masker = {"name": "everything", **lim.pop("masker", {})}
    return make_learner(host, algorithm, masker=masker, **lim)


@pytest.mark.parametrize(("algorithm", "trunk"), [("qmix_fc_lim", "fc"), ("qmix_lim", "entity")])
def test_masked_replay_is_q_learning_from_what_the_masker_left(
    host: Host, monkeypatch: pytest.MonkeyPatch, algorithm: str, trunk: str
) -> None:
    """Online and target network see the hidden view in the share of the episodes, and no others."""
    learner = masked_learner(host, monkeypatch, algorithm, masker={"replay": 0.5})
    batch, seen = make_batch(host, learner), make_batch(host, learner)
    seen["obs"][:4] = hidden(batch, learner)[:4]
    before = batch["obs"].clone()
    masked = learner._masked(learner._begun(batch, 0, learner._rewards(batch)))
    plain = learner._begun(seen, 0, learner._rewards(seen))
    for name in ("loss", "target", "q_taken", "next_values"):
        assert torch.equal(getattr(masked.td, name), getattr(plain.td, name)), name
    assert not torch.equal(plain.td.loss, learner._begun(batch, 0, learner._rewards(batch)).td.loss)
    assert torch.equal(batch["obs"], before), "what is replayed again is what happened"


def test_the_masker_is_told_of_agents_that_see_everything(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saliency of a token that is hidden already would be nothing."""
    learner = masked_learner(host, monkeypatch, "qmix_lim", masker={"replay": 1.0})
    batch = make_batch(host, learner)
    update = learner._begun(batch, 0, learner._rewards(batch))
    told = {name: update.signal(name) for name in EverythingMasker.signals}
    masked = learner._masked(update)
    view = learner.reconstruction.masker.view
    assert all(torch.equal(getattr(view, name), told[name]) for name in told)
    is_hidden = masked.masks
    assert is_hidden.any()
    assert (masked.signal("saliency")[is_hidden] == 0).all()
    assert (told["saliency"][is_hidden] > 0).any()


@pytest.mark.parametrize("algorithm", ["qmix_lim", "qmix_entity_lim"])
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_masks_are_drawn_once_and_the_reconstruction_keeps_the_truth(
    host: Host, monkeypatch: pytest.MonkeyPatch, algorithm: str, share: float
) -> None:
    """What is hidden from the values is hidden from the autoencoder, which is scored against the truth, also
    in episodes of which Q-learning sees everything."""
    learner = masked_learner(
        host, monkeypatch, algorithm, masker={"replay": share},
        autoencoder={"targets": "own", "share": 0.5},
    )  # fmt: skip
    batch, layout = make_batch(host, learner), learner.agent.layout
    n_episodes = 4  # the share of 8 that is reconstructed
    proposed: list[int] = []
    propose, score = EverythingMasker.propose, learner.reconstruction._score
    seen: list[Any] = []
    monkeypatch.setattr(
        EverythingMasker,
        "propose",
        lambda self, view, generator: proposed.append(len(view.obs)) or propose(self, view, generator),
    )
    learner.reconstruction._score = lambda states, truth, *args, **kwargs: (
        seen.append(truth) or score(states, truth, *args, **kwargs)
    )
    learner.args.batch_size = 8
    learner.train(batch, 0, 0)
    assert proposed == [max(n_episodes, round(share * 8))]
    packing = Packing(batch["filled"][:n_episodes].squeeze(-1).bool())
    real = packing.pack(batch["obs"][:n_episodes])
    assert torch.equal(seen[0].obs, real)
    assert torch.equal(seen[0].is_scored, tokens.visibility(real, layout) & tokens.hideable(layout))
    assert learner.logger.stats["mask_rate"][-1] == 1.0


def test_faults_and_masks_go_together(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A masker hides of what faults have left, and all of it is scored."""
    learner = masked_learner(
        host, monkeypatch, "qmix_lim", masker={"replay": 1.0}, faults={"replay": 1.0, "dropout": 0.5}
    )
    batch = make_batch(host, learner)
    update = learner._begun(batch, 0, learner._rewards(batch), learner._replayed(batch))
    masked = learner._masked(update)
    is_left = tokens.visibility(update.inputs[..., :OBS], learner.agent.layout)
    assert torch.equal(update.packing.pack(masked.masks), is_left & tokens.hideable(learner.agent.layout))
    assert torch.equal(masked.truth, update.packing.pack(batch["obs"]))


def test_an_informed_masker_learns_from_the_reconstructed_episodes(host: Host) -> None:
    """Of the masked episodes only a share is reconstructed: adversarial masks learn from those."""
    informed = {"name": "adversarial", "replay": 1.0, "ratio": [0.2, 0.6], "random_until": 0}
    learner = make_learner(host, masker=informed | {"random_anneal": 0}, autoencoder={"share": 0.25})
    masker = learner.reconstruction.masker.informed
    before = [parameter.clone() for parameter in masker.network.parameters()]
    for step in range(3):
        learner.train(make_batch(host, learner), 1 + step, 0)
    assert any(not torch.equal(a, b) for a, b in zip(before, masker.network.parameters(), strict=True))


# -- collect ---------------------------------------------------------------------------------------------


def acted(learner: Any, batch: Any, test_mode: bool = False) -> torch.Tensor:
    """Play through a batch; returns the actions."""
    learner.mac.init_hidden(batch.batch_size)
    taken = []
    for t in range(batch.max_seq_length):
        actions, _ = learner.mac.select_actions(batch, t_ep=t, t_env=10**6, test_mode=test_mode)
        taken.append(actions)
    return torch.stack(taken, dim=1)


def test_what_is_played_is_stored_and_acted_on(host: Host) -> None:
    """Agents whose sightings are lost act as agents do to whom nobody is shown."""
    faulty = make_learner(host, "qmix_entity", faults={"collect": True, "dropout": 1.0})
    plain = make_learner(host, "qmix_entity")
    batch, seen = make_batch(host, plain), make_batch(host, plain)
    seen["obs"].copy_(hidden(seen, plain))
    torch.manual_seed(3)
    actions = acted(faulty, batch)
    torch.manual_seed(3)
    assert torch.equal(actions, acted(plain, seen))
    assert torch.equal(batch["obs"], seen["obs"])


def test_tests_lose_nothing(host: Host) -> None:
    learner = make_learner(host, "qmix_entity", faults={"collect": True, "dropout": 1.0})
    batch = make_batch(host, learner)
    before = batch["obs"].clone()
    acted(learner, batch, test_mode=True)
    assert torch.equal(batch["obs"], before)


def test_only_observations_change(host: Host) -> None:
    learner = make_learner(host, faults={"collect": True, "dropout": [0, 0.8], "noise": 0.1})
    batch, before = make_batch(host, learner), make_batch(host, learner)
    acted(learner, batch)
    assert not torch.equal(batch["obs"], before["obs"])
    for key in ("state", "avail_actions", "reward", "terminated", "filled"):
        assert torch.equal(batch[key], before[key])


def test_faults_have_random_numbers_of_their_own(host: Host) -> None:
    """Those of acting and learning are as they are without."""
    learner = make_learner(host, faults={"collect": True, "replay": 0.5, "dropout": 0.5})
    batch = make_batch(host, learner)
    torch.manual_seed(7)
    learner.mac._go_wrong(learner.agent.faults, batch, 0)
    learner._replayed(batch)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(3))
