"""Reconstructing what teammates see, or embeddings, and acting on what is inferred: who learns from whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import host_parts
import pytest
import torch

from limask.autoencoder import Truth
from limask.config.nested import merged
from limask.errors import LimaskError
from limask.hosts.base import Host
from limask.layouts import tokens
from limask.layouts.teammates import known_from_state, known_from_teammates
from limask.networks.packing import Packing

N, OBS, ACTIONS, STATE = 3, 75, 8, 72  # of SMAX 3m
W = 48  # of a belief
BELIEF = {"autoencoder": {"name": "belief", "targets": "team", "weight": 1.0}}
DENOISING = {"targets": "state", "denoise": True}

#: Ways to reconstruct, by options of qmix_lim.
MODES: dict[str, dict[str, Any]] = {
    "team targets": {"autoencoder": {"targets": "team"}},
    "state targets": {"autoencoder": {"targets": "state"}},
    "latent": {"autoencoder": {"latent": True}},
    "latent team targets": {"autoencoder": {"latent": True, "targets": "team"}},
    "inference": {"autoencoder": {"use_inference": True, "targets": "team"}},
    "inference fc": {"autoencoder": {"use_inference": True}, "trunk": "fc"},
    "belief": BELIEF,
    "belief of entities": merged(BELIEF, {"autoencoder": {"name": "entity_belief"}}),
    "belief and sightings": merged(BELIEF, {"autoencoder": {"name": "entity_belief", "sightings": True}}),
    "belief fc": merged(BELIEF, {"trunk": "fc", "autoencoder": {"targets": "own"}}),
    "belief that denoises": merged(BELIEF, {"autoencoder": DENOISING}),
    "belief of entities that denoises": merged(
        BELIEF, {"autoencoder": {"name": "entity_belief"} | DENOISING}
    ),
}
ACTING = [name for name in MODES if name.startswith(("inference", "belief"))]
BESIDE = [name for name in MODES if not name.startswith("belief")]


@pytest.fixture(scope="module")
def host() -> Host:
    return host_parts.load_host("pymarlzooplus")


def make_learner(host: Host, algorithm: str = "qmix_entity_lim", hard: bool = False, **lim: Any) -> Any:
    """A learner on the sizes of SMAX 3m; every call starts from the same weights."""
    torch.manual_seed(0)
    where: dict[str, Any] = {
        "env_args": {"map_name": "3m", "sight_range": 0.5},
        "n_actions": ACTIONS,
        "n_agents": N,
        "state_shape": STATE,
    }
    where["target_update_interval_or_tau"] = 1.5 if hard else 0.02
    args = host_parts.make_args(host, algorithm, env="smax", lim=lim, **where)
    return host_parts.make_learner(host, args, OBS)


def make_batch(host: Host, learner: Any, n_episodes: int = 8, seed: int = 0) -> Any:
    """Random episodes in which agents are marines that stand somewhere and do not see all units."""
    batch = host_parts.make_batch(host, learner.args, n_episodes, seed, OBS)
    layout = learner.agent.layout
    generator = torch.Generator().manual_seed(seed)
    obs = batch["obs"]
    own = tokens.split(obs, layout)["own"]
    own[..., 1:3] = torch.rand(own[..., 1:3].shape, generator=generator)
    own[..., 4:] = torch.nn.functional.one_hot(torch.tensor(0), own.shape[-1] - 4)
    units = own.flatten(2)  # of the state; each enemy stands where one of the agents does
    batch["state"][..., : 2 * units.shape[-1]] = torch.cat([units, units], dim=-1)
    is_unseen = torch.rand((*obs.shape[:-1], layout.n_tokens), generator=generator) < 0.4
    is_padding = batch["filled"].unsqueeze(-1) == 0
    obs.copy_(tokens.hide(obs, (is_unseen & tokens.hideable(layout)) | is_padding, layout))
    return batch


def packed(learner: Any, batch: Any) -> tuple[Packing, torch.Tensor]:
    packing = Packing(batch["filled"].squeeze(-1).bool())
    return packing, learner.mac.sequence_inputs(batch, packing)


def joining(agent: Any) -> None:
    """Make the layers through which inferences enter the agent carry something."""
    for name, parameter in agent.named_parameters():
        if "inferred" in name:
            torch.nn.init.normal_(parameter)


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def is_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


# -- what holds for every way ------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_reconstruction_error_falls(host: Host, mode: str) -> None:
    learner = make_learner(
        host, **merged(MODES[mode], {"autoencoder": {"lr": 0.01, "weight": 1.0, "share": 1.0}})
    )
    batch = make_batch(host, learner)
    for step in range(30):
        learner.train(batch, step, step)
    stats = learner.logger.stats
    assert all(torch.tensor(values).isfinite().all() for values in stats.values())
    assert sum(stats["rec_loss"][-5:]) < 0.9 * sum(stats["rec_loss"][:5])
    assert ("rec_error_unseen" in stats) == (MODES[mode]["autoencoder"].get("targets", "own") != "own")
    assert min(stats["rec_grad_norm"]) > 0


@pytest.mark.parametrize("mode", MODES)
def test_the_optimiser_steps_by_the_gradients_themselves(host: Host, mode: str) -> None:
    """torch's fused Adam reads gradients by their storage: those that are laid out as transposed gradients
    are would move the wrong weights. Adam's first step is lr · g / (|g| + ε)."""
    learner = make_learner(host, **merged(MODES[mode], {"minibatches": 1}))
    own = learner.reconstruction.own
    before = [parameter.detach().clone() for parameter in own]
    learner.train(make_batch(host, learner), 0, 0)
    lr = learner.config.autoencoder.lr
    assert sum(parameter.grad.ne(0).any() for parameter in own if parameter.grad is not None) > 3
    for parameter, old in zip(own, before, strict=True):
        gradient = torch.zeros_like(old) if parameter.grad is None else parameter.grad
        expected = old - lr * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_td_gradients_are_bit_equal_with_and_without_the_reconstruction(host: Host, mode: str) -> None:
    """As λ_rec goes to 0; from a belief nothing ever reaches what Q-learning trains."""
    small = {} if mode not in BESIDE else {"autoencoder": {"weight": 1e-9}}
    full, plain = (make_learner(host, **merged(MODES[mode], small)) for _ in range(2))
    before = host_parts.record_td_gradients(full)
    plain.reconstruction = None
    for learner in (full, plain):
        learner.train(make_batch(host, learner), 10**6, 0)
    expected = host_parts.gradients(plain)
    assert before and all(torch.equal(a, b) for a, b in zip(before, expected, strict=True))
    after = all(torch.equal(a, b) for a, b in zip(host_parts.gradients(full), expected, strict=True))
    assert after == (mode not in BESIDE)


@pytest.mark.parametrize("mode", MODES)
def test_q_learning_sends_no_gradient_into_the_autoencoder(host: Host, mode: str) -> None:
    learner = make_learner(host, **MODES[mode])
    autoencoder = learner.reconstruction.autoencoder
    assert not {id(p) for p in learner.params} & {id(p) for p in autoencoder.parameters()}
    if mode in ACTING:
        joining(learner.agent)
    before = weights(autoencoder)
    learner.reconstruction = None
    for step in range(2):
        learner.train(make_batch(host, learner, seed=step), step, step)
    assert is_same(before, weights(autoencoder))
    assert all(p.grad is None for p in autoencoder.parameters())


@pytest.mark.parametrize("mode", MODES)
def test_same_seed_same_numbers(host: Host, mode: str) -> None:
    runs = []
    for _ in range(2):
        learner = make_learner(host, **MODES[mode])
        for step in range(3):
            learner.train(make_batch(host, learner, seed=step), step, step)
        runs.append(learner.logger.stats)
    assert runs[0] == runs[1]


@pytest.mark.parametrize("mode", MODES)
def test_checkpoint_restores_everything(host: Host, mode: str, tmp_path: Path) -> None:
    learner, twin = (make_learner(host, **MODES[mode]) for _ in range(2))
    for step in range(2):
        learner.train(make_batch(host, learner, seed=step), step, step)
    learner.save_models(str(tmp_path))
    twin.load_models(str(tmp_path))
    batch = make_batch(host, learner, seed=7)
    for each in (learner, twin):
        each.target_mac.load_state(each.mac)  # checkpoints keep no target networks
        each.target_mixer.load_state_dict(each.mixer.state_dict())
        each.logger.stats.clear()
        each.train(batch, 10, 10)
    assert learner.logger.stats == twin.logger.stats
    assert is_same(weights(learner.agent), weights(twin.agent))
    assert is_same(weights(learner.reconstruction.autoencoder), weights(twin.reconstruction.autoencoder))


# -- what teammates see ------------------------------------------------------------------------------


def test_team_targets_add_what_teammates_see_and_hide_nothing_more(host: Host) -> None:
    own, team = (
        make_learner(host, autoencoder={"targets": targets}, masker={"ratio": 0.3})
        for targets in ("own", "team")
    )
    _, inputs = packed(team, make_batch(host, team))
    obs, layout = inputs[..., :OBS], team.agent.layout
    is_visible = tokens.visibility(obs, layout)
    is_hidden = is_visible & (torch.rand(is_visible.shape) < 0.3) & tokens.hideable(layout)
    truth = team.reconstruction._truth(obs, is_visible, is_hidden, state=None)
    told = known_from_teammates(obs, layout)
    assert truth.is_unseen.sum() > 50
    assert torch.equal(truth.is_unseen, told.is_token & ~is_visible)
    assert torch.equal(truth.is_scored, is_hidden | truth.is_unseen)
    # What was shown stays as it was, whatever teammates say of it; the rest is what they say.
    assert torch.equal(tokens.hide(truth.obs, ~is_visible, layout), obs)
    assert torch.equal(tokens.hide(truth.obs, is_visible, layout), tokens.hide(told.obs, is_visible, layout))
    # A teammate that only itself sees does not show how it moved last.
    parts = tokens.split(truth.is_known, layout)["ally"][truth.is_unseen[..., :2]]
    assert set(parts.sum(dim=-1).tolist()) == {13, 10}
    assert own.reconstruction._truth(obs, is_visible, is_hidden, state=None) == Truth(obs, is_hidden)
    for learner in (own, team):
        learner.train(make_batch(host, learner), 0, 0)
    for key in ("mask_rate", "mask_rate_ally", "mask_rate_enemy", "mask_entropy", "loss"):
        assert own.logger.stats[key] == team.logger.stats[key]
    assert own.logger.stats["rec_loss"] != team.logger.stats["rec_loss"]


@pytest.mark.parametrize("mode", ["team targets", "belief"])
def test_what_nobody_sees_is_no_target(host: Host, mode: str) -> None:
    """Nothing shown: agents that all stand alone know of each other, and no enemy is reconstructed."""
    learner = make_learner(host, **MODES[mode])
    batch = make_batch(host, learner)
    layout = learner.agent.layout
    is_hideable = tokens.hideable(layout).expand(*batch["obs"].shape[:-1], -1)
    batch["obs"].copy_(tokens.hide(batch["obs"], is_hideable, layout))
    learner.train(batch, 0, 0)
    stats = {key: values[-1] for key, values in learner.logger.stats.items()}
    assert stats["rec_error_enemy"] == 0
    assert stats["rec_error_unseen"] == pytest.approx(stats["rec_error_ally"])
    # Of features that are known, not of those that nobody knows: of the order of a standard deviation.
    assert 0.1 < stats["rec_error_ally"] < 10
    autoencoder = learner.reconstruction.autoencoder
    decoder = autoencoder.decoder if mode == "belief" else autoencoder
    assert decoder.standardisers["enemy"].count.tolist() == [0] * 13


# -- embeddings --------------------------------------------------------------------------------------


def test_latent_targets_are_the_target_networks_embeddings(host: Host) -> None:
    learner = make_learner(host, autoencoder={"latent": True})
    _, inputs = packed(learner, make_batch(host, learner))
    asked: list[dict[str, torch.Tensor]] = []
    decoder = learner.reconstruction.autoencoder
    score = decoder.loss_of_embeddings

    def recording(states: Any, targets: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(targets)
        return score(states, targets, *args, **kwargs)

    decoder.loss_of_embeddings = recording
    with torch.no_grad():
        for weight in learner.agent.fc1.parameters():
            weight += 0.1  # the online trunk has moved on
    batch = make_batch(host, learner)
    learner.train(batch, 0, 0)
    _, inputs = packed(learner, batch[:2])  # the share that is reconstructed
    fresh = make_learner(host, autoencoder={"latent": True}).target_mac.agent.fc1
    expected = fresh(inputs.flatten(0, 1)).entities
    assert asked[0].keys() == expected.keys() == {"ally", "enemy"}
    for kind, embedded in asked[0].items():
        assert not embedded.requires_grad
        torch.testing.assert_close(embedded, expected[kind])
        assert decoder.to_features[kind].out_features == embedded.shape[-1] == 32
    assert all(p.grad is None for p in learner.target_mac.agent.parameters())


# -- acting ------------------------------------------------------------------------------------------


def assert_steps_agree(host: Host, learner: Any) -> None:
    """Values of whole episodes are those of acting step by step."""
    joining(learner.agent)
    batch = make_batch(host, learner)
    with torch.no_grad():
        packing, inputs = packed(learner, batch)
        whole = packing.unpack(learner.agent.sequence(inputs, packing.counts)[0])
        learner.mac.init_hidden(8)
        for t in range(host_parts.LIMIT + 1):
            is_filled = batch["filled"][:, t, 0].bool()
            q_now = learner.mac.forward(batch, t)
            torch.testing.assert_close(q_now[is_filled], whole[:, t][is_filled], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ACTING)
def test_step_by_step_and_whole_episodes_agree(host: Host, mode: str) -> None:
    assert_steps_agree(host, make_learner(host, **MODES[mode]))


@pytest.mark.parametrize("other", range(N))
@pytest.mark.parametrize("mode", MODES)
def test_acting_sees_nobody_elses_observation(host: Host, mode: str, other: int) -> None:
    """Whatever teammates know when learning: Q-values and states come from the agent's own history alone."""
    learner = make_learner(host, **MODES[mode])
    if mode in ACTING:
        joining(learner.agent)
    batch, changed = (make_batch(host, learner) for _ in range(2))
    changed["obs"][:, :, other] += 1.0
    seen = []
    for episodes in (batch, changed):
        learner.mac.init_hidden(8)
        with torch.no_grad():
            values = [learner.mac.forward(episodes, t) for t in range(4)]
        seen.append((torch.stack(values), learner.mac.hidden_states.view(8, N, -1)))
    for agent in range(N):
        for ours, theirs in zip(*seen, strict=True):
            assert torch.equal(ours[..., agent, :], theirs[..., agent, :]) == (agent != other)


@pytest.mark.parametrize("mode", ["inference", "inference fc"])
def test_agents_begin_as_if_nothing_were_inferred(host: Host, mode: str) -> None:
    """The same seed gives the weights and values of the arm that infers nothing."""
    learner = make_learner(host, **MODES[mode])
    plain = make_learner(host, "qmix_entity", trunk=MODES[mode].get("trunk", "entity"))
    batch = make_batch(host, plain)
    values = []
    for each in (learner, plain):
        each.mac.init_hidden(8)
        values.append(torch.stack([each.mac.forward(batch, t) for t in range(3)]))
    assert torch.equal(*values)
    learner.train(batch, 0, 0)
    assert learner.agent.join.from_inferred.weight.abs().max() > 0


@pytest.mark.parametrize("mode", ACTING)
def test_until_the_warm_up_is_over_the_run_is_that_of_an_agent_that_infers_nothing(
    host: Host, mode: str
) -> None:
    """The same seed gives the same weights and updates, while the autoencoder learns; then it is let in."""
    learner = make_learner(host, **merged(MODES[mode], {"autoencoder": {"warmup": 100}}))
    plain = make_learner(host, "qmix_entity", trunk=MODES[mode].get("trunk", "entity"))
    began = weights(learner.reconstruction.autoencoder)
    for t_env in (0, 50, 99):
        for each in (learner, plain):
            each.train(make_batch(host, each, seed=t_env), t_env, t_env)
    assert is_same(weights(plain.agent), weights(learner.agent))
    assert is_same(weights(plain.mixer), weights(learner.mixer))
    assert not is_same(began, weights(learner.reconstruction.autoencoder))
    entries = [p for name, p in learner.agent.named_parameters() if "inferred" in name]
    assert entries and not any(entry.any() for entry in entries)
    learner.train(make_batch(host, learner, seed=7), 100, 100)
    assert all(entry.any() for entry in entries)
    learner.train(make_batch(host, learner, seed=8), 99, 101)  # as when an older checkpoint is gone on from
    assert all(entry.grad is None for entry in entries)


def test_an_inferred_enemy_is_embedded_and_aimed_at_as_an_entity(host: Host) -> None:
    """Permuting what is inferred of enemies permutes the values of attacking them, and nothing else."""
    agent = make_learner(host, **BELIEF).agent
    obs = torch.rand(N, OBS) + 0.1
    layout, order = agent.layout, [2, 0, 1]
    is_hidden = torch.zeros(N, layout.n_tokens, dtype=torch.bool)
    is_hidden[:, 2:5] = True
    rest = torch.zeros(N, agent.spec.input_size(OBS) - OBS)
    enemies = torch.randn(N, 3, layout.group("enemy").width)
    allies = torch.zeros(N, 2 * layout.group("ally").width)

    def values(seen: torch.Tensor, inferred: torch.Tensor) -> torch.Tensor:
        x = torch.cat([seen, rest, allies, inferred.flatten(1)], dim=1)
        with torch.no_grad():
            return agent._step(x, torch.zeros(N, agent.spec.hidden_dim))[0]

    unseen = tokens.hide(obs, is_hidden, layout)
    assert torch.equal(values(unseen, enemies), values(unseen, 0 * enemies)), "it begins as if without"
    joining(agent)
    plain, permuted = values(unseen, enemies), values(unseen, enemies[:, order])
    torch.testing.assert_close(permuted[:, 5:], plain[:, 5:][:, order])
    torch.testing.assert_close(permuted[:, :5], plain[:, :5])
    assert plain[:, 5:].std(dim=1).min() > 1e-3
    assert (values(unseen, 0 * enemies)[:, 5:].std(dim=1) < 1e-6).all(), "unseen enemies are all alike"
    # The same, with each enemy embedded by itself: e_k = V u_k in the pool and under the head's weights.
    x = torch.cat([unseen, rest, allies, enemies.flatten(1)], dim=1)
    with torch.no_grad():
        encoded = agent.fc1(x)
        without = agent.fc1(torch.cat([unseen, rest, allies, 0 * enemies.flatten(1)], dim=1))
        entities = without.entities | {"enemy": enemies @ agent.fc1.embed_inferred["enemy"].weight.t()}
        width = entities["enemy"].shape[-1]
        pooled = agent.fc1.mix.weight[:, -width:] @ entities["enemy"].sum(dim=1).t()
        torch.testing.assert_close(encoded.features, without.features + pooled.t())
        hidden = torch.randn(N, agent.spec.hidden_dim)
        by_hand = agent.fc2(hidden, without._replace(entities=entities, inferred={}))
        torch.testing.assert_close(agent.fc2(hidden, encoded), by_hand)


@pytest.mark.parametrize("mode", ACTING)
def test_what_the_living_do_not_see_is_inferred_and_nothing_else(host: Host, mode: str) -> None:
    learner = make_learner(host, **MODES[mode])
    joining(learner.agent)
    layout, autoencoder = learner.agent.layout, learner.reconstruction.autoencoder
    is_belief = mode.startswith("belief")
    by_kind = mode.startswith(("belief of entities", "belief and sightings"))
    decoder = autoencoder.decoder if is_belief else autoencoder
    obs = torch.rand(5, OBS) + 0.1
    obs[4] = 0  # of one who is dead
    is_hidden = torch.zeros(5, layout.n_tokens, dtype=torch.bool)
    is_hidden[2, 3] = True  # an enemy
    hidden = torch.randn(5, autoencoder.state_size if by_kind else decoder.from_hidden.in_features)
    seen = tokens.hide(obs, is_hidden, layout)
    if is_belief:
        inferred = decoder.infer(hidden, tokens.is_out_of_sight(seen, layout))
    else:
        inferred = decoder.infer_from_hidden(hidden, seen)
    size = layout.group("enemy").width
    if by_kind:
        # Context, own features, and sightings: 2 of allies, then 3 of enemies.
        own, sighting = layout.group("own").width, size + layout.group("own").width + 1
        n_agent = autoencoder.width + own
        of_token = hidden[2, n_agent + 3 * sighting :][:sighting]
        between = decoder.from_agent(hidden[2, :n_agent]) + decoder.from_sighting["enemy"](of_token)
        expected = decoder.to_features["enemy"](torch.relu(between + decoder.slots["enemy"][1]))
    elif is_belief:
        everything = decoder.to_features(torch.relu(decoder.from_hidden(hidden[2])))
        expected = everything[3 * size : 4 * size]
    else:
        decoded = torch.relu(decoder.from_hidden(hidden[2]) + decoder.queries[3])
        expected = decoder.to_features["enemy"](decoded)
    assert inferred.shape == (5, layout.hideable_size) == (5, 5 * size)
    torch.testing.assert_close(inferred[2, 3 * size : 4 * size], expected)
    inferred[2, 3 * size : 4 * size] = 0
    assert not inferred.any()
    assert not inferred.requires_grad


@pytest.mark.parametrize("mode", [mode for mode in ACTING if "belief" in mode])
def test_what_the_living_see_is_inferred_where_it_is_to_be_denoised(host: Host, mode: str) -> None:
    """By the same weights as what they do not see; the dead infer nothing."""
    autoencoder = make_learner(host, **MODES[mode]).reconstruction.autoencoder
    layout, denoises = autoencoder.decoder.layout, "denoises" in mode
    inputs = torch.rand(2 * N, autoencoder.input_size) + 0.1
    inputs[1, :OBS] = 0  # of one who is dead
    is_hidden = torch.zeros(2 * N, layout.n_tokens, dtype=torch.bool)
    is_hidden[2:, 3] = True  # an enemy
    inputs[:, :OBS] = tokens.hide(inputs[:, :OBS], is_hidden, layout)
    inferred, states = autoencoder.infer_step(inputs, torch.randn(2 * N, autoencoder.state_size))
    everything = autoencoder.inferred_in(states, torch.ones_like(is_hidden))
    is_inferred = is_hidden | (torch.arange(2 * N) != 1).unsqueeze(1) & denoises
    assert torch.equal(inferred, autoencoder.inferred_in(states, is_inferred))
    assert inferred.any(dim=1).tolist() == [denoises, False, True, True, True, True]
    assert torch.equal(inferred[0], everything[0]) == denoises


@pytest.mark.parametrize("denoises", [False, True])
def test_what_is_to_be_denoised_is_taken_from_the_state(host: Host, denoises: bool) -> None:
    """Of what is shown wrongly the truth is what the state holds, and as shown what it does not hold."""
    learner = make_learner(host, autoencoder={"name": "belief", "targets": "state", "denoise": denoises})
    batch, layout = make_batch(host, learner), learner.agent.layout
    packing, inputs = packed(learner, batch)
    shown, state = inputs[..., :OBS] + 1.0, packing.pack(batch["state"])
    is_visible = torch.ones(*shown.shape[:2], layout.n_tokens, dtype=torch.bool)
    truth = learner.reconstruction._truth(shown, is_visible, is_visible, state)
    known = known_from_state(state, N, layout)
    expected = torch.where(known.is_feature, known.obs, shown) if denoises else shown
    assert torch.equal(truth.obs, expected)
    assert truth.is_known.all() and not truth.is_unseen.any()
    # An enemy that the state says is alive: its health and place are known, how it moved last is not.
    enemy = tokens.split(known.is_feature, layout)["enemy"]
    assert set(enemy.sum(dim=-1).flatten().tolist()) == {10}


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("mode", ACTING)
def test_target_networks_infer_as_the_agents_do(host: Host, mode: str, hard: bool) -> None:
    """Nothing but the reconstruction loss moves what infers, and target updates leave it alone."""
    learner = make_learner(host, hard=hard, **MODES[mode])
    for step in range(2):
        learner.train(make_batch(host, learner, seed=step), step, step)
    assert learner.target_mac.agent.autoencoder is learner.agent.autoencoder
    agents = weights(learner.agent), weights(learner.target_mac.agent)
    assert is_same(*({k: v for k, v in a.items() if k.startswith("autoencoder.")} for a in agents))
    assert is_same(*agents) == hard


def test_a_belief_has_a_state_of_its_own(host: Host) -> None:
    learner = make_learner(host, **merged(BELIEF, {"autoencoder": {"width": W}}))
    learner.mac.init_hidden(4)
    assert learner.mac.hidden_states.shape == (4, N, 64 + W)
    batch = make_batch(host, learner, 4)
    with torch.no_grad():
        learner.mac.forward(batch, 0)
        _, inputs = packed(learner, batch)
        belief = learner.agent.autoencoder
        inputs = learner.mac._build_inputs(batch, 0)
        _, states = belief.infer_step(inputs, torch.zeros(4 * N, W))
    torch.testing.assert_close(learner.mac.hidden_states[:, 64:], states)


@pytest.mark.parametrize("mode", ACTING)
def test_the_plain_learner_refuses_agents_that_act_on_inferences(
    host: Host, mode: str, tmp_path: Path
) -> None:
    make_learner(host, **MODES[mode]).save_models(str(tmp_path))
    with pytest.raises(
        LimaskError, match=r"was written with lim\.autoencoder\.name='(entity|belief|entity_belief)'"
    ):
        make_learner(host, "qmix_entity").load_models(str(tmp_path))
