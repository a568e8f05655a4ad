"""What an agent remembers of each entity."""

from __future__ import annotations

import pytest
import torch
from test_agent import UNITS

from limask.autoencoder.entity_belief import EntityBeliefAutoencoder
from limask.autoencoder.sightings import FADING, Sightings
from limask.config import LimConfig
from limask.layouts import Layout, TokenGroup, tokens
from limask.networks.packing import Packing
from limask.networks.spec import AgentSpec

#: Two features for each of two enemies, and one of the agent itself.
SMALL = Layout(
    "small",
    (TokenGroup("enemy", 2, ("x", "y"), first_action=1), TokenGroup("own", 1, ("x",), is_hideable=False)),
)


def test_sightings_by_hand() -> None:
    """Enemy 1 is seen at once and then lost for two steps, enemy 2 only at the third."""
    obs = torch.tensor([[1.0, 2.0, 0.0, 0.0, 5.0], [0.0, 0.0, 0.0, 0.0, 6.0], [0.0, 0.0, 3.0, 4.0, 7.0]])
    expected = torch.tensor(
        [
            [1.0, 2.0, 5.0, 1.0, 0.0, 0.0, 0.0, 0.0],
            [1.0, 2.0, 5.0, FADING, 0.0, 0.0, 0.0, 0.0],
            [1.0, 2.0, 5.0, FADING**2, 3.0, 4.0, 7.0, 1.0],
        ]
    )
    sightings, is_visible = Sightings(SMALL), tokens.visibility(obs, SMALL)
    assert (sightings.size, sightings.own_size, sightings.width("enemy")) == (8, 1, 4)
    torch.testing.assert_close(sightings.sequence(obs, is_visible, [1, 1, 1]), expected)
    is_wanted = torch.tensor([[0, 1, 1], [0, 0, 1], [1, 0, 1]]) > 0  # the last token is the agent itself
    (chosen,) = sightings.chosen(obs, is_visible, [1, 1, 1], is_wanted).values()
    assert (chosen.rows.tolist(), chosen.slots.tolist()) == ([0, 2], [1, 0])
    torch.testing.assert_close(chosen.sightings, torch.stack([expected[0, 4:], expected[2, :4]]))
    remembered = torch.zeros(1, 8)
    for row, now in zip(expected, obs, strict=True):
        remembered = sightings.after(now[None], tokens.visibility(now[None], SMALL), remembered)
        torch.testing.assert_close(remembered, row.unsqueeze(0))


def random_obs(layout: Layout, n_agents: int, n_episodes: int, n_steps: int) -> torch.Tensor:
    """(B, T, N, O) in which four tokens of ten are out of sight."""
    generator = torch.Generator().manual_seed(0)
    shape = (n_episodes, n_steps, n_agents)
    obs = torch.rand((*shape, layout.obs_size), generator=generator) + 0.1
    is_lost = torch.rand((*shape, layout.n_tokens), generator=generator) < 0.4
    return tokens.hide(obs, is_lost & tokens.hideable(layout), layout)


@pytest.mark.parametrize("layout", [SMALL, UNITS], ids=["small", "units"])
def test_whole_episodes_are_remembered_as_step_by_step(layout: Layout) -> None:
    lengths, n_agents = torch.tensor([[3], [6], [1], [6]]), 2
    obs = random_obs(layout, n_agents, len(lengths), 6)
    packing, sightings = Packing(torch.arange(6) < lengths), Sightings(layout)
    counts = [count * n_agents for count in packing.counts]
    packed = packing.pack(obs).flatten(0, 1)
    whole = sightings.sequence(packed, tokens.visibility(packed, layout), counts)
    remembered, steps = torch.zeros(obs[:, 0].flatten(0, 1).shape[0], sightings.size), []
    for t in range(6):
        now = obs[:, t].flatten(0, 1)
        remembered = sightings.after(now, tokens.visibility(now, layout), remembered)
        steps.append(remembered.unflatten(0, (-1, n_agents)))
    expected = packing.pack(torch.stack(steps, dim=1)).flatten(0, 1)
    torch.testing.assert_close(whole, expected)
    fresh = torch.cat([part[..., -1] for part in sightings.split(expected).values()], dim=1)
    assert 0 < (fresh == 1).float().mean() < 1, "some are seen, and some are not"
    assert ((fresh > 0) & (fresh < 1)).any()


def test_agents_get_the_sighting_beside_what_is_decoded_from_it() -> None:
    """Of the two enemies the second is out of sight, two steps after it was seen."""
    spec = AgentSpec(
        n_agents=1, n_actions=3, hidden_dim=8, has_last_action=False, has_agent_id=False, is_recurrent=True
    )
    torch.manual_seed(0)
    config = LimConfig.from_block({"autoencoder": {"name": "entity_belief", "width": 6, "sightings": True}})
    belief = EntityBeliefAutoencoder.build(spec, SMALL, config)
    assert belief.inferred_widths(SMALL, config) == {"enemy": 2 + 2 + 1 + 1}
    obs = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.0, 0.0, 0.0, 6.0], [1.0, 2.0, 0.0, 0.0, 7.0]])
    states = torch.zeros(1, belief.state_size)
    for now in obs.unsqueeze(1):
        inferred, states = belief.infer_step(now, states)
    decoded = belief.decoder.infer(states, tokens.is_out_of_sight(obs[2:], SMALL))
    expected = torch.cat([decoded[0, 2:], torch.tensor([3.0, 4.0, 5.0, FADING**2])])
    assert decoded[0, 2:].all()
    torch.testing.assert_close(inferred, torch.cat([torch.zeros(6), expected]).unsqueeze(0))
    whole = belief.infer_episodes(obs.unsqueeze(1), [1, 1, 1])
    torch.testing.assert_close(whole[2:], inferred)


def test_permuting_enemies_permutes_what_is_inferred_of_them() -> None:
    """As long as no slot has been told from the others."""
    spec = AgentSpec(
        n_agents=2, n_actions=4, hidden_dim=8, has_last_action=False, has_agent_id=False, is_recurrent=True
    )
    torch.manual_seed(0)
    belief = EntityBeliefAutoencoder(spec, UNITS, 6)
    obs = random_obs(UNITS, 2, 3, 5)
    count, order = UNITS.group("enemy").count, torch.randperm(UNITS.group("enemy").count)
    assert order.tolist() != list(range(count))
    parts = tokens.split(obs, UNITS)
    permuted = tokens.join(parts | {"enemy": parts["enemy"][..., order, :]}, UNITS)
    packing = Packing(torch.ones(3, 5, dtype=torch.bool))
    inferred = [belief.infer_episodes(packing.pack(values), packing.counts) for values in (obs, permuted)]
    sizes = [group.size for group in UNITS.groups if group.is_hideable]
    kinds = [group.kind for group in UNITS.groups if group.is_hideable]
    plain, other = (dict(zip(kinds, values.split(sizes, dim=1), strict=True)) for values in inferred)
    assert plain["enemy"].any()
    by_enemy = plain["enemy"].unflatten(1, (count, -1))[:, order].flatten(1)
    torch.testing.assert_close(other["enemy"], by_enemy)
    for kind in kinds:
        if kind != "enemy":
            torch.testing.assert_close(other[kind], plain[kind])
