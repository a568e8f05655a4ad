"""Agent, trunks, GRU and packing: same numbers as step by step, and the symmetries that are promised."""

from __future__ import annotations

import dataclasses
import math

import options_parts
import pytest
import torch
from torch import nn

from limask.acting.agent import LimAgent
from limask.layouts import Layout, TokenGroup, flat_layout, smac_layout_of
from limask.learning.targets import lambda_returns
from limask.networks import gru
from limask.networks.gru import packed_gru
from limask.networks.packing import Packing
from limask.networks.spec import AgentSpec

N_AGENTS, N_ENEMIES, FIRST_ATTACK = 3, 4, 2
UNITS = Layout(
    "smax",
    (
        TokenGroup("ally", N_AGENTS - 1, ("health", "x", "y")),
        TokenGroup("enemy", N_ENEMIES, ("health", "x", "y", "type"), first_action=FIRST_ATTACK),
        TokenGroup("own", 1, ("health", "x"), is_hideable=False),
    ),
)
MMM = smac_layout_of(
    {"n_agents": 4, "n_enemies": 6, "a_race": "T", "b_race": "T", "unit_type_bits": 3, "map_type": "MMM"}, {}
)


def make_agent(
    layout: Layout = UNITS, trunk: str = "entity", autoencoder: str = "entity", **changes: object
) -> LimAgent:
    torch.manual_seed(4)
    target = layout.group("enemy")
    n_actions = (target.first_action or 0) + target.count if target else 5
    n_allies = layout.group("ally")
    options = {
        "n_agents": n_allies.count + 1 if n_allies else N_AGENTS,
        "n_actions": n_actions,
        "hidden_dim": 8,
        "has_last_action": True,
        "has_agent_id": True,
        "is_recurrent": True,
    }
    config = options_parts.config(
        {"trunk": trunk, "masker": {"name": "none"}, "autoencoder": {"name": autoencoder}}
    )
    return LimAgent(AgentSpec(**(options | changes)), config, layout).double()  # type: ignore[arg-type]


def random_inputs(agent: LimAgent, *axes: int) -> torch.Tensor:
    """[observation | last action | agent id], with some units unseen; rows of agents fastest."""
    spec, layout = agent.spec, agent.layout
    obs = torch.rand(*axes, layout.obs_size, dtype=torch.float64) + 0.1
    unseen = torch.rand(*axes, layout.n_tokens) < 0.3
    from limask.layouts import tokens

    obs = tokens.hide(obs, unseen & tokens.hideable(layout), layout)
    parts = [obs]
    if spec.has_last_action:
        parts.append(nn.functional.one_hot(torch.randint(spec.n_actions, axes), spec.n_actions).double())
    if spec.has_agent_id:
        parts.append(torch.eye(spec.n_agents).double().expand(*axes, -1))
    return torch.cat(parts, dim=-1)


# -- packing and GRU ---------------------------------------------------------------------------------


def test_packing_by_hand() -> None:
    is_filled = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    packing = Packing(is_filled)
    assert packing.counts == [3, 2, 1, 1]
    # Longest first within each time step: episodes 1, 0, 2; then 1, 0; then 1; then 1.
    assert packing.index.tolist() == [4, 0, 8, 5, 1, 6, 7]
    assert packing.starts.tolist() == [0, 1, 3, 5]
    assert packing.ends.tolist() == [3, 4, 5, 6]
    # Of episodes 0 and 1, in the order of a packing of theirs.
    assert packing.rows_of_first(2).tolist() == [0, 1, 3, 4, 5, 6]
    assert packing.index[packing.rows_of_first(2)].tolist() == Packing(is_filled[:2]).index.tolist()


@pytest.mark.parametrize("trailing", [(), (1,), (3, 2)])
def test_packing_takes_parts_of_longer_episodes_as_they_are(
    trailing: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As hosts cut a sample to its longest episode; also parts that begin later, or lie otherwise."""
    is_filled = torch.arange(4) < torch.tensor([[2], [4], [1]])
    packing = Packing(is_filled)
    longer = torch.arange(3.0 * 7 * 6).view(3, 7, 6)[..., : math.prod(trailing)].contiguous()
    longer = longer.view(3, 7, *trailing)
    doubled = torch.stack([longer, -longer], dim=2)
    same = longer[:1, :4].expand(3, 4, *trailing)
    for values in (longer[:, :4], longer[:, 2:6], longer[:, ::2], doubled[:, :4, 1], same):
        assert torch.equal(packing.pack(values), packing.pack(values.contiguous()))
        assert torch.equal(packing.unpack(packing.pack(values))[is_filled], values[is_filled])
        wider = torch.zeros(7, *trailing, 2)
        packing.pack(values, out=wider[..., 0])
        assert torch.equal(wider[..., 0], packing.pack(values)) and not wider[..., 1].any()
    monkeypatch.setattr(torch.Tensor, "flatten", None)  # which would copy them
    packing.pack(longer[:, :4])


def test_packing_round_trip_and_transitions_over_random_lengths() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        lengths = torch.randint(1, 8, (5,), generator=generator)
        is_filled = torch.arange(8) < lengths.unsqueeze(1)
        packing = Packing(is_filled)
        values = torch.rand(5, 8, 2, generator=generator)
        assert torch.equal(packing.unpack(packing.pack(values)), values * is_filled.unsqueeze(-1))
        start, end = packing.index[packing.starts], packing.index[packing.ends]
        assert torch.equal(end, start + 1)
        assert len(start) == int((lengths - 1).sum())


@pytest.mark.parametrize(
    "rows, n_blocks", [(1, 4), (10, 3), (17, 1)], ids=["a step each", "some steps", "everything"]
)
def test_packed_gru_equals_torchs_cell_in_values_and_gradients(
    rows: int, n_blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However its work is divided, and without a backward pass as well."""
    monkeypatch.setattr(gru, "BLOCK", rows * 3 * 7)
    assert len(gru._blocks([6, 6, 4, 1], 7)) == n_blocks
    torch.manual_seed(0)
    cell = nn.GRUCell(5, 7).double()
    counts = [6, 6, 4, 1]
    inputs = torch.randn(17, 5).double().requires_grad_()
    expected, hidden, first = [], torch.zeros(6, 7).double(), 0
    for count in counts:
        hidden = cell(inputs[first : first + count], hidden[:count])
        expected.append(hidden)
        first += count
    weights = torch.randn(17, 7).double()
    leaves = [inputs, *cell.parameters()]
    ours = packed_gru(cell, inputs, counts)
    torch.testing.assert_close(ours, torch.cat(expected), rtol=0, atol=1e-12)
    with torch.no_grad():
        assert torch.equal(packed_gru(cell, inputs, counts), ours)
    for mine, theirs in zip(
        torch.autograd.grad((ours * weights).sum(), leaves),
        torch.autograd.grad((torch.cat(expected) * weights).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_lambda_returns_by_hand() -> None:
    rewards = torch.tensor([[[1.0], [2.0], [3.0]], [[1.0], [2.0], [0.0]]])
    terminated = torch.tensor([[[0.0], [0.0], [1.0]], [[0.0], [0.0], [0.0]]])
    q_next = torch.tensor([[[10.0], [20.0], [30.0]], [[10.0], [20.0], [99.0]]])
    is_step = torch.tensor([[[1.0], [1.0], [1.0]], [[1.0], [1.0], [0.0]]])
    targets = lambda_returns(rewards, terminated, q_next, is_step, 0.5, 0.5)
    # Ended: G2 = 3; G1 = 2 + .5 (.5·20 + .5·3) = 7.75; G0 = 1 + .5 (.5·10 + .5·7.75) = 5.4375.
    assert targets[0, :, 0].tolist() == [5.4375, 7.75, 3.0]
    # Cut after two steps: G1 bootstraps, 2 + .5·20 = 12; G0 = 1 + .5 (.5·10 + .5·12) = 6.5.
    assert targets[1, :2, 0].tolist() == [6.5, 12.0]
    one_step = lambda_returns(rewards, terminated, q_next, is_step, 0.5, 0.0)
    assert one_step[0, :, 0].tolist() == [6.0, 12.0, 3.0]


# -- agent -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "trunk", "is_recurrent"),
    [
        (UNITS, "fc", True),
        (UNITS, "fc", False),
        (UNITS, "entity", True),
        (MMM, "entity", True),
        (flat_layout(7, 3), "entity", True),
    ],
)
def test_sequence_equals_step_by_step(layout: Layout, trunk: str, is_recurrent: bool) -> None:
    agent = make_agent(layout, trunk, is_recurrent=is_recurrent)
    n_agents, n_steps = agent.spec.n_agents, 5
    lengths = torch.tensor([3, 5, 1])
    packing = Packing(torch.arange(n_steps) < lengths.unsqueeze(1))
    inputs = random_inputs(agent, 3, n_steps, n_agents)
    packed = packing.pack(inputs)
    q_values, hidden = agent.sequence(packed, packing.counts)
    again = agent.sequence(packed, packing.counts, agent.gather(packed, packing.counts))
    assert torch.equal(q_values, again[0]) and torch.equal(hidden, again[1])
    state = agent.init_hidden().expand(3 * n_agents, -1)
    steps = []
    for t in range(n_steps):
        q_step, state = agent(inputs[:, t].flatten(0, 1), state)
        steps.append((q_step.view(3, n_agents, -1), state.view(3, n_agents, -1)))
    for packed, dense in zip((q_values, hidden), zip(*steps, strict=True), strict=True):
        torch.testing.assert_close(packed, packing.pack(torch.stack(dense, dim=1)), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("layout", "trunk", "autoencoder"),
    [
        (UNITS, "fc", "none"),
        (UNITS, "entity", "none"),
        (MMM, "entity", "none"),
        (UNITS, "entity", "belief"),
        (UNITS, "fc", "belief"),
        (UNITS, "entity", "entity_belief"),
        (UNITS, "entity", "sightings"),
        (UNITS, "fc", "sightings"),
    ],
)
def test_leaving_out_what_shows_nothing_changes_nothing(
    layout: Layout, trunk: str, autoencoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same values and gradients, and as many rows encoded as show anything."""
    monkeypatch.setattr("limask.networks.trunks.WIDE", 1)
    agent = make_agent(layout, trunk, autoencoder)
    for name, parameter in agent.named_parameters():
        if "inferred" in name:
            nn.init.normal_(parameter)
    inputs = random_inputs(agent, 4, 5, agent.spec.n_agents)
    is_dead = torch.rand(inputs.shape[:-1], generator=torch.Generator().manual_seed(0)) < 0.5
    inputs[..., : layout.obs_size] *= ~is_dead.unsqueeze(-1)
    packing = Packing(torch.arange(5) < torch.tensor([[3], [5], [1], [5]]))
    packed = packing.pack(inputs)
    found = []
    for few in (0.9, 0.0):
        monkeypatch.setattr("limask.acting.agent.FEW", few)
        rows = agent._rows_to_encode(packed)
        assert (rows is None) == (few == 0)
        if rows is not None:
            assert len(rows) == (~packing.pack(is_dead)).sum()
        q_values, _ = agent.sequence(packed, packing.counts)
        trained = agent.q_parameters()
        gradients = torch.autograd.grad(
            (q_values * torch.arange(q_values.numel()).view_as(q_values)).sum(), trained
        )
        found.append((q_values, *gradients))
    for ours, dense in zip(*found, strict=True):
        torch.testing.assert_close(ours, dense, rtol=1e-10, atol=1e-10)


def test_fc_trunk_loads_a_hosts_rnn_agent() -> None:
    class HostAgent(nn.Module):
        """Linear, ReLU, GRU, Linear, under the names that the hosts give them."""

        def __init__(self, n_inputs: int) -> None:
            super().__init__()
            self.fc1, self.rnn, self.fc2 = nn.Linear(n_inputs, 8), nn.GRUCell(8, 8), nn.Linear(8, 6)

    agent = make_agent(trunk="fc")
    host = HostAgent(agent.spec.input_size(UNITS.obs_size)).double()
    agent.load_state_dict(host.state_dict())
    inputs = random_inputs(agent, N_AGENTS)
    q_values, hidden = agent(inputs, agent.init_hidden().expand(N_AGENTS, -1))
    expected = host.rnn(torch.relu(host.fc1(inputs)), torch.zeros(N_AGENTS, 8).double())
    torch.testing.assert_close(hidden, expected)
    torch.testing.assert_close(q_values, host.fc2(expected))


def permute(agent: LimAgent, inputs: torch.Tensor, kind: str, order: torch.Tensor) -> torch.Tensor:
    """Inputs with the tokens of one kind, and last actions at enemies, in another order."""
    from limask.layouts import tokens

    layout, size = agent.layout, agent.layout.obs_size
    parts = dict(tokens.split(inputs[..., :size], layout))
    parts[kind] = parts[kind][..., order, :]
    rest = inputs[..., size:].clone()
    if kind == "enemy":
        rest[..., FIRST_ATTACK : agent.spec.n_actions] = rest[..., FIRST_ATTACK + order]
    return torch.cat([tokens.join(parts, layout), rest], dim=-1)


def test_permuting_enemies_permutes_attacks_and_changes_nothing_else() -> None:
    agent = make_agent()
    inputs = random_inputs(agent, 4, N_AGENTS).flatten(0, 1)
    order = torch.tensor([2, 0, 3, 1])
    start = torch.randn(12, 8).double()
    q_before, hidden_before = agent(inputs, start)
    q_after, hidden_after = agent(permute(agent, inputs, "enemy", order), start)
    torch.testing.assert_close(hidden_after, hidden_before)
    torch.testing.assert_close(q_after[:, :FIRST_ATTACK], q_before[:, :FIRST_ATTACK])
    torch.testing.assert_close(q_after[:, FIRST_ATTACK:], q_before[:, FIRST_ATTACK + order])
    assert not torch.allclose(q_after[:, FIRST_ATTACK:], q_before[:, FIRST_ATTACK:])


def test_permuting_allies_changes_nothing() -> None:
    agent = make_agent()
    inputs = random_inputs(agent, 4, N_AGENTS).flatten(0, 1)
    start = torch.zeros(12, 8).double()
    q_before, _ = agent(inputs, start)
    q_after, _ = agent(permute(agent, inputs, "ally", torch.tensor([1, 0])), start)
    torch.testing.assert_close(q_after, q_before)


def test_last_action_at_an_unseen_enemy_adds_nothing() -> None:
    agent = make_agent()
    inputs = torch.zeros(N_AGENTS, agent.spec.input_size(UNITS.obs_size)).double()
    aimed = inputs.clone()
    aimed[:, UNITS.obs_size + FIRST_ATTACK] = 1
    start = torch.zeros(N_AGENTS, 8).double()
    torch.testing.assert_close(agent(inputs, start)[0], agent(aimed, start)[0])


def test_attack_value_depends_on_its_own_entity_beyond_the_pooled_state() -> None:
    agent = make_agent()
    inputs = random_inputs(agent, N_AGENTS)
    inputs[:, :18] += 0.5
    encoded = agent.fc1(inputs)
    changed = {"ally": encoded.entities["ally"], "enemy": encoded.entities["enemy"].clone()}
    changed["enemy"][:, 1] += 1
    hidden = torch.randn(N_AGENTS, 8).double()
    difference = (
        (agent.fc2(hidden, encoded._replace(entities=changed)) - agent.fc2(hidden, encoded)).abs().amax(dim=0)
    )
    assert difference[FIRST_ATTACK + 1] > 1e-3
    difference[FIRST_ATTACK + 1] = 0
    assert difference.max() == 0


def test_healers_take_their_target_values_from_allies() -> None:
    agent = make_agent(MMM)
    spec = agent.spec
    assert MMM.healers == (3,)
    inputs = random_inputs(agent, spec.n_agents)
    encoded = agent.fc1(inputs)
    hidden = torch.randn(spec.n_agents, 8).double()
    before = agent.fc2(hidden, encoded)
    entities = encoded.entities | {"ally": encoded.entities["ally"] + 1.0}
    after = agent.fc2(hidden, encoded._replace(entities=entities))
    moved = (after - before).abs() > 1e-9
    # Three allies of the healer (agent 3) are behind actions 6, 7 and 8; nobody else looks at allies here.
    assert moved.nonzero().tolist() == [[3, 6], [3, 7], [3, 8]]


def test_healer_in_the_middle_of_the_team_is_no_target_of_its_own() -> None:
    """Target action k names agent k, and ally tokens leave the healer out: as SMAClite's MMM has it."""
    layout = dataclasses.replace(MMM, healers=(1,))
    agent = make_agent(layout)
    spec = agent.spec
    encoded = agent.fc1(random_inputs(agent, spec.n_agents))
    hidden = torch.randn(spec.n_agents, 8).double()
    before = agent.fc2(hidden, encoded)
    for token, named in enumerate((0, 2, 3)):
        allies = encoded.entities["ally"].clone()
        allies[:, token] += 1.0
        changed = encoded._replace(entities=encoded.entities | {"ally": allies})
        moved = (agent.fc2(hidden, changed) - before).abs() > 1e-9
        assert moved.nonzero().tolist() == [[1, 6 + named]]
        # The trunk marks the token that the healer's last action aimed at.
        inputs = torch.zeros(spec.n_agents, spec.input_size(layout.obs_size)).double()
        inputs[:, : layout.obs_size] = 1.0
        plain = agent.fc1(inputs).entities["ally"]
        inputs[:, layout.obs_size + 6 + named] = 1.0
        marked = (agent.fc1(inputs).entities["ally"] - plain).abs().sum(dim=-1) > 1e-9
        assert marked.nonzero().tolist() == [[1, token]]


def test_parameter_counts_of_the_trunks_are_within_five_per_cent_on_2s3z() -> None:
    unit, own = tuple("abcdefghijklm"), tuple("abcdefghij")
    groups = (
        TokenGroup("ally", 4, unit),
        TokenGroup("enemy", 5, unit, first_action=5),
        TokenGroup("own", 1, own, is_hideable=False),
    )
    sizes = [
        sum(p.numel() for p in make_agent(Layout("smax", groups), trunk, hidden_dim=64).parameters())
        for trunk in ("fc", "entity")
    ]
    assert abs(sizes[1] / sizes[0] - 1) < 0.05
