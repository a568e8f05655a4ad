"""Autoencoder ``team`` (MA²E): what agents infer of each other, and how the autoencoder learns it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import host_parts
import options_parts
import pytest
import torch

from limask.autoencoder import TeamAutoencoder
from limask.autoencoder.team import WIDTH, sinusoids, windows
from limask.config.nested import merged
from limask.errors import LimaskError
from limask.hosts.base import Host
from limask.learning.team_reconstruction import Schedule
from limask.networks.packing import Packing

N, A, SIZE, W, T = 3, 4, 6, 5, 8
D = SIZE + A + N
OBS, ACTIONS = 75, 8  # of SMAX 3m


def make_autoencoder(window: int = W) -> TeamAutoencoder:
    torch.manual_seed(2)
    return TeamAutoencoder(N, A, D, SIZE, window).double()


def random_steps(n_episodes: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (B, T, N, D) and actions (B, T, N, A), with the ids where agents have them."""
    generator = torch.Generator().manual_seed(5)
    shape = (n_episodes, T, N)
    taken = torch.nn.functional.one_hot(torch.randint(A, shape, generator=generator), A).double()
    last = torch.nn.functional.pad(taken, (0, 0, 0, 0, 1, 0))[:, :-1]
    obs = torch.rand(*shape, SIZE, generator=generator, dtype=torch.float64)
    return torch.cat([obs, last, torch.eye(N).double().expand(*shape, N)], dim=-1), taken


def all_steps(n_episodes: int = 2) -> torch.Tensor:
    return torch.arange(n_episodes * T)


# -- the network -------------------------------------------------------------------------------------


def test_windows_by_hand() -> None:
    values = torch.tensor([[0.0, 0.0, 1.0, 2.0, 3.0], [0.0, 0.0, 4.0, 5.0, 6.0]])[:, :, None, None]
    cut = windows(values, torch.tensor([0, 2, 4]), n_steps=3, window=3)
    assert cut.shape == (3, 1, 3, 1)
    assert cut.flatten(1).tolist() == [[0, 0, 1], [1, 2, 3], [0, 4, 5]]


def test_sinusoids_by_hand() -> None:
    code = sinusoids(torch.tensor([0, 1]), 4)
    expected = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.8415, 0.0100, 0.5403, 0.99995]])
    assert torch.allclose(code, expected, atol=1e-4)


def test_every_position_has_a_code_of_its_own() -> None:
    codes = make_autoencoder()._code()
    assert codes.shape == (N, 2 * W - 1, WIDTH)
    distances = torch.cdist(codes.flatten(0, 1), codes.flatten(0, 1))
    distances.fill_diagonal_(1)
    assert distances.min() > 1e-3


@pytest.mark.parametrize("window", [1, 2, W])
def test_acting_is_the_reconstruction_with_all_teammates_hidden(window: int) -> None:
    """What is left out when acting is only what nobody looks at."""
    net, (inputs, taken) = make_autoencoder(window), random_steps()
    tokens = net.tokens(inputs, taken, all_steps())
    obs = inputs.flatten(0, 1)[..., :SIZE]
    inferred = net.infer(tokens, obs)
    assert tokens.shape == (2 * T, N, 2 * window - 1, WIDTH)
    assert inferred.shape == (2 * T, N, N, SIZE)
    for agent in range(N):
        is_hidden = (torch.arange(N) != agent).expand(2 * T, N)
        whole, actions = net.reconstruct(tokens, is_hidden)
        assert whole.shape == (2 * T, N, window, SIZE)
        assert actions.shape == (2 * T, N, window - 1, A)
        for other in range(N):
            truth = obs[:, agent] if other == agent else whole[:, other, -1]
            assert (inferred[:, agent, other] - truth).abs().max() < 1e-9


def test_permuting_agents_permutes_the_output() -> None:
    """Whole agents: with their id among the features and the code of their slot."""
    net, (inputs, taken) = make_autoencoder(), random_steps()
    order = torch.tensor([2, 0, 1])
    tokens = net.tokens(inputs, taken, all_steps())
    obs = inputs.flatten(0, 1)[..., :SIZE]
    is_hidden = torch.tensor([[True, False, False]]).expand(2 * T, N)
    before, whole = net.infer(tokens, obs), net.reconstruct(tokens, is_hidden)[0]
    net.agent_code = net.agent_code[order]
    tokens = net.tokens(inputs[:, :, order], taken[:, :, order], all_steps())
    after = net.infer(tokens, obs[:, order])
    assert torch.allclose(after, before[:, order][:, :, order])
    assert torch.allclose(net.reconstruct(tokens, is_hidden[:, order])[0], whole[:, order])
    assert not torch.allclose(after, before)


def test_hidden_agents_are_not_looked_at() -> None:
    """Their embeddings are zeros and what they then carry reaches nobody; visible ones reach everybody."""
    net, (inputs, taken) = make_autoencoder(), random_steps()
    is_hidden = torch.tensor([[True, False, True]]).expand(2 * T, N)
    before = net.reconstruct(net.tokens(inputs, taken, all_steps()), is_hidden)
    for agent in range(N):
        changed = inputs.clone()
        changed[:, :, agent, :SIZE] += 1.0
        after = net.reconstruct(net.tokens(changed, taken, all_steps()), is_hidden)
        for ours, theirs in zip(before, after, strict=True):
            assert torch.equal(ours, theirs) == bool(is_hidden[0, agent])


def test_window_reaches_back_just_so_far_and_no_further_than_the_episode() -> None:
    net, (inputs, taken) = make_autoencoder(), random_steps()
    index = torch.tensor([6])
    before = net.infer(net.tokens(inputs, taken, index), inputs[0, 6:7, :, :SIZE])
    for t in range(T):
        changed, acted = inputs.clone(), taken.clone()
        changed[0, t, :, :SIZE] += 1.0
        after = net.infer(net.tokens(changed, taken, index), inputs[0, 6:7, :, :SIZE])
        assert torch.equal(after, before) == (not 2 <= t <= 6)
        acted[0, t] = acted[0, t].roll(1, dims=-1)
        after = net.infer(net.tokens(inputs, acted, index), inputs[0, 6:7, :, :SIZE])
        assert torch.equal(after, before) == (not 2 <= t <= 5), "the last step's action is not taken yet"
    # The second episode's first window holds zeros, not the end of the first episode.
    cut = net.tokens(inputs, taken, torch.tensor([T]))
    alone = net.tokens(inputs[1:], taken[1:], torch.tensor([0]))
    assert torch.equal(cut, alone)
    blank = net.tokens(torch.zeros_like(inputs), taken, torch.tensor([T]))
    assert torch.equal(cut[:, :, : W - 1], blank[:, :, : W - 1])


def test_loss_by_hand_and_zero_masks() -> None:
    net, (inputs, taken) = make_autoencoder(window=1), random_steps()
    index = torch.tensor([3])
    with torch.no_grad():
        net.to_obs.weight.zero_()
        net.to_obs.bias.fill_(0.5)
    none, first = torch.zeros(1, N, dtype=torch.bool), torch.tensor([[True, False, False]])
    by_agent = (inputs[0, 3, :, :SIZE] - 0.5).square().sum(dim=-1)
    everybody = net.loss(inputs, taken, index, none, ~none)
    assert torch.isclose(everybody, by_agent.mean())
    assert torch.isclose(net.loss(inputs, taken, index, first, first), by_agent[0])
    nothing = net.loss(inputs, taken, index, none, none)
    assert nothing == 0
    nothing.backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_all_agents_dead_gives_finite_numbers() -> None:
    net, (inputs, taken) = make_autoencoder(), random_steps()
    inputs, taken = torch.zeros_like(inputs), torch.zeros_like(taken)
    tokens = net.tokens(inputs, taken, all_steps())
    assert torch.isfinite(net.infer(tokens, inputs.flatten(0, 1)[..., :SIZE])).all()
    hidden = torch.tensor([[True, True, False]]).expand(2 * T, N)
    assert torch.isfinite(net.loss(inputs, taken, all_steps(), hidden, hidden))


def test_there_is_no_dropout_even_where_a_host_asks_for_training_mode() -> None:
    net = make_autoencoder().train()
    assert not any(module.training for module in net.modules())
    assert all(module.p == 0 for module in net.modules() if isinstance(module, torch.nn.Dropout))


def test_a_team_of_one_is_refused_by_name() -> None:
    with pytest.raises(LimaskError, match=r"lim\.autoencoder\.name='team' with a team of 1 agent"):
        TeamAutoencoder(1, A, D, SIZE, W)


# -- in a host ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def host() -> Host:
    return host_parts.load_host("pymarlzooplus")


def make_learner(host: Host, algorithm: str = "qmix_ma2e", n_agents: int = N, **lim: Any) -> Any:
    """A learner on the sizes of SMAX 3m; every call starts from the same weights."""
    torch.manual_seed(0)
    options = merged({"team": {"pretrain_updates": 3, "finetune_calls": 2}}, lim)
    where = {"env_args": {"map_name": "3m"}, "n_actions": ACTIONS, "n_agents": n_agents}
    args = host_parts.make_args(host, algorithm, env="smax", lim=options, **where)
    return host_parts.make_learner(host, args, OBS)


def make_batch(host: Host, learner: Any, n_episodes: int = 32, seed: int = 0) -> Any:
    return host_parts.make_batch(host, learner.args, n_episodes, seed, OBS)


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def is_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_step_by_step_and_whole_episodes_agree(host: Host) -> None:
    """Inputs with all inferences, and Q-values, at every filled step of episodes of many lengths."""
    learner = make_learner(host)
    batch = make_batch(host, learner)
    packing = Packing(batch["filled"].squeeze(-1).bool())
    with torch.no_grad():
        inputs = learner.mac.sequence_inputs(batch, packing)
        q_values, _ = learner.agent.sequence(inputs, packing.counts)
        learner.mac.init_hidden(32)
        whole, inputs = packing.unpack(q_values), packing.unpack(inputs)
        for t in range(host_parts.LIMIT + 1):
            is_filled = batch["filled"][:, t, 0].bool()
            now = learner.mac._build_inputs(batch, t).unflatten(0, (32, N))
            assert (now - inputs[:, t])[is_filled].abs().max() < 1e-5
            q_now = learner.mac.forward(batch, t)
            assert (q_now - whole[:, t])[is_filled].abs().max() < 1e-5
    assert inputs[0, 4, 0, -2 * OBS :].abs().max() > 1e-3, "nothing was inferred: nothing was compared"


@pytest.mark.parametrize("other", range(N))
def test_an_agent_acts_on_its_own_window_and_on_nobody_elses(host: Host, other: int) -> None:
    """A published implementation had this right for agent 0 alone."""
    learner = make_learner(host)
    batch = make_batch(host, learner)
    t = 6
    before = learner.mac._build_inputs(batch, t).unflatten(0, (32, N))
    for step in range(t - W + 1, t + 1):
        changed = copy.deepcopy(batch)
        changed["obs"][:, step, other] += 1.0
        after = learner.mac._build_inputs(changed, t).unflatten(0, (32, N))
        # An agent's input behind its own observation: what it infers of all.
        differs = (after != before)[..., OBS + ACTIONS + N :].flatten(2).any(dim=2)
        for agent in range(N):
            assert bool(differs[:, agent].all()) == (agent == other)
            assert agent == other or torch.equal(after[:, agent], before[:, agent])


def test_episodes_of_one_step_and_dead_teams_are_learned_from(host: Host) -> None:
    for algorithm in ("qmix_ma2e", "qmix_li_ma2e"):
        learner = make_learner(host, algorithm)
        batch = make_batch(host, learner)
        batch["filled"][:, 2:] = 0
        batch["obs"][:, :, :] = 0
        learner.train(batch[:, :2], 1000, 104)
        stats = learner.logger.stats
        assert all(torch.tensor(values).isfinite().all() for values in stats.values())


def test_q_learning_sends_no_gradient_into_the_autoencoder(host: Host) -> None:
    learner = make_learner(host, team={"pretrain_updates": 0, "finetune_calls": 0})
    before = weights(learner.agent.autoencoder)
    assert not {id(p) for p in learner.params} & {id(p) for p in learner.agent.autoencoder.parameters()}
    trunk = weights(learner.agent.fc1)
    for step in range(3):
        learner.train(make_batch(host, learner, seed=step), 1000 + step, 104)
    assert is_same(before, weights(learner.agent.autoencoder))
    assert all(p.grad is None for p in learner.agent.autoencoder.parameters())
    assert not any(torch.equal(trunk[name], value) for name, value in weights(learner.agent.fc1).items())


def test_phases_of_ma2e(host: Host) -> None:
    """Nothing before so many episodes; then pretraining, fine-tuning, and bit-equal ever after."""
    learner = make_learner(host)
    batch = make_batch(host, learner)
    autoencoder, everything = learner.agent.autoencoder, weights(learner.agent)
    learner.train(batch, 900, 96)
    assert learner.reconstruction.schedule.phase == "pretrain"
    assert is_same(everything, weights(learner.agent))
    seen = []
    for call in range(5):
        before = weights(autoencoder)
        learner.train(batch, 1000 + call, 104)
        seen.append((is_same(before, weights(autoencoder)), learner.reconstruction.schedule.phase))
    assert seen == [
        (False, "finetune"), (False, "finetune"), (False, "frozen"), (True, "frozen"), (True, "frozen"),
    ]  # fmt: skip
    assert len(learner.logger.stats["rec_loss"]) == 3
    assert len(learner.logger.stats["loss"]) == 5


def test_phases_of_li_ma2e(host: Host) -> None:
    """After pretraining the autoencoder learns in every update, with the masks that TD errors choose."""
    learner = make_learner(host, "qmix_li_ma2e")
    batch = make_batch(host, learner)
    asked = []
    choose = learner.reconstruction.masker.informed.agents

    def recording(view: Any, generator: Any) -> torch.Tensor:
        chosen = choose(view, generator)
        is_step = torch.zeros_like(view.is_filled)
        is_step[:, :-1] = view.is_filled[:, 1:]
        scores = (view.td_error * is_step.unsqueeze(-1)).sum(dim=(0, 1))
        asked.append((chosen, scores > scores.mean()))
        return chosen

    learner.reconstruction.masker.informed.agents = recording
    for call in range(3):
        before = weights(learner.agent.autoencoder)
        learner.train(batch, 1000 + call, 104)
        assert not is_same(before, weights(learner.agent.autoencoder))
        assert learner.reconstruction.schedule.phase == "joint"
    assert len(asked) == 3
    for chosen, expected in asked:
        assert 0 < expected.sum() < N
        assert torch.equal(chosen[0], expected)


def test_fine_tuning_is_on_the_latest_episodes_and_tests_are_not_among_them(host: Host) -> None:
    learner = make_learner(host)
    latest, test = make_batch(host, learner, 8, seed=3), make_batch(host, learner, 8, seed=4)
    learner.mac.init_hidden(8)
    learner.mac.select_actions(latest, t_ep=0, t_env=0, test_mode=False)
    learner.mac.select_actions(test, t_ep=0, t_env=0, test_mode=True)
    learner.reconstruction.schedule.is_pretrained = True
    assert list(learner.reconstruction._episodes_to_fit(make_batch(host, learner))) == [latest]


def test_reconstruction_error_falls_where_there_is_something_to_learn(host: Host) -> None:
    """Agents that all observe the same: what is hidden can be read off those that are visible."""
    learner = make_learner(host, team={"pretrain_updates": 60}, autoencoder={"lr": 0.05})
    batch = make_batch(host, learner)
    batch["obs"][:] = batch["obs"][:, :, :1] * batch["filled"].unsqueeze(-1)
    checked: list[float] = []
    learner.reconstruction.begin(batch, lambda value: checked.append(float(value.detach())))
    losses = checked[::2]  # each is followed by its gradient's norm
    assert len(losses) == 60
    assert sum(losses[-10:]) / 10 < 0.5 * losses[0]


def test_nan_stops_before_the_autoencoder_changes(host: Host) -> None:
    learner = make_learner(host)
    batch = make_batch(host, learner)
    batch["obs"][:, 0, 0, 0] = float("nan")
    before = weights(learner.agent)
    with pytest.raises(LimaskError, match="reconstruction loss is nan at t_env=1234"):
        learner.train(batch, 1234, 104)
    assert is_same(before, weights(learner.agent))


@pytest.mark.parametrize("algorithm", ["qmix_ma2e", "qmix_li_ma2e"])
def test_checkpoint_restores_everything(host: Host, algorithm: str, tmp_path: Path) -> None:
    learner = make_learner(host, algorithm)
    for call in range(2):
        learner.train(make_batch(host, learner), 1000 + call, 104)
    learner.save_models(str(tmp_path))
    twin = make_learner(host, algorithm)
    assert not is_same(weights(learner.agent), weights(twin.agent))
    twin.load_models(str(tmp_path))
    assert is_same(weights(learner.agent), weights(twin.agent))
    assert twin.reconstruction.schedule.state_dict() == learner.reconstruction.schedule.state_dict() != {}
    # A restart does not wait or pretrain again, and goes on with the same stream of masks.
    batch = make_batch(host, learner, seed=1)
    for each in (learner, twin):
        each.train(batch, 2000, 0)
    assert is_same(weights(learner.agent.autoencoder), weights(twin.agent.autoencoder))


@pytest.mark.parametrize(
    ("written", "read", "words"),
    [
        (
            "qmix_ma2e",
            "qmix_entity_lim",
            "lim.autoencoder.name='team', and this run has lim.autoencoder.name='entity'",
        ),
        (
            "qmix_entity_lim",
            "qmix_ma2e",
            "lim.autoencoder.name='entity', and this run has lim.autoencoder.name='team'",
        ),
        ("qmix_ma2e", "qmix_fc", "lim.autoencoder.name='team', and this run has lim.autoencoder.name='none'"),
        (
            "qmix_ma2e",
            "qmix_li_ma2e",
            "lim.masker.name='random_agent', and this run has lim.masker.name='td_threshold'",
        ),
        ("qmix_fc", "qmix_ma2e", "has no autoencoder.th"),
    ],
)
def test_checkpoint_of_another_autoencoder_is_refused_by_name(
    host: Host, written: str, read: str, words: str, tmp_path: Path
) -> None:
    make_learner(host, written).save_models(str(tmp_path))
    learner = make_learner(host, read)
    before = weights(learner.agent)
    with pytest.raises(LimaskError) as caught:
        learner.load_models(str(tmp_path))
    assert words in str(caught.value)
    assert is_same(before, weights(learner.agent))


def test_odd_hidden_sizes_are_refused(host: Host) -> None:
    args = host_parts.make_args(host, "qmix_ma2e", hidden_dim=63)
    with pytest.raises(LimaskError, match="hidden_dim=63"):
        host_parts.make_learner(host, args)


def test_schedule_without_pretraining_does_not_wait() -> None:
    schedule = Schedule(options_parts.config({"team": {"pretrain_updates": 0, "finetune_calls": 1}}))
    assert not schedule.waits(0)
    assert schedule.phase == "finetune"
    schedule.advance()
    assert schedule.phase == "frozen"
