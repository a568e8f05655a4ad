"""Flat observation ↔ tokens: nothing is lost, moved, or hidden that should not be."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from limask.layouts import Layout, TokenGroup, flat_layout, smac_layout_of, smax_layout, token_starts, tokens

#: 3 agents, 2 enemies: a small map with shields on one side and two unit types.
SMAC_MAP: dict[str, Any] = {
    "n_agents": 3,
    "n_enemies": 2,
    "a_race": "P",
    "b_race": "T",
    "unit_type_bits": 2,
    "map_type": "stalkers_and_zealots",
}

#: Two tokens `a` of 2 features, one protected token `b` of 3, one token `c` of 1.
SMALL = Layout(
    "small",
    (
        TokenGroup("a", 2, ("p", "q")),
        TokenGroup("b", 1, ("p", "q", "r"), is_hideable=False),
        TokenGroup("c", 1, ("p",)),
    ),
)
#: Feature → token of `SMALL`, by hand.
SMALL_TOKEN_OF_FEATURE = (0, 0, 1, 1, 2, 2, 2, 3)


def layout_named(name: str) -> Layout:
    """One layout of each kind; SMAX's sizes are asked of jaxmarl."""
    if name == "smax":
        pytest.importorskip("jaxmarl", reason="needs jaxmarl, which knows SMAX's sizes")
        return smax_layout({"map_name": "3s_vs_4z"})
    if name == "smac":
        return smac_layout_of(SMAC_MAP, {"obs_last_action": True})
    return {"small": SMALL, "flat": flat_layout(10, 3)}[name]


LAYOUTS = ("small", "flat", "smac", "smax")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# --- split and join -------------------------------------------------------------------


def test_split_by_hand() -> None:
    """Groups lie one after the other, and within a group token by token."""
    parts = tokens.split(torch.arange(8.0).unsqueeze(0), SMALL)
    assert list(parts) == ["a", "b", "c"]
    assert parts["a"].tolist() == [[[0.0, 1.0], [2.0, 3.0]]]
    assert parts["b"].tolist() == [[[4.0, 5.0, 6.0]]]
    assert parts["c"].tolist() == [[[7.0]]]


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("axes", [(), (5,), (2, 4, 3)], ids=["none", "rows", "batch"])
def test_join_undoes_split(name: str, axes: tuple[int, ...]) -> None:
    """Whatever axes stand before the features."""
    layout = layout_named(name)
    obs = torch.randn(*axes, layout.obs_size)
    parts = tokens.split(obs, layout)
    assert {kind: tuple(part.shape) for kind, part in parts.items()} == {
        group.kind: (*axes, group.count, group.width) for group in layout.groups
    }
    assert torch.equal(tokens.join(parts, layout), obs)


def test_split_is_a_view() -> None:
    """Replay batches are large: their observations are not copied."""
    obs = torch.zeros(1, 8)
    tokens.split(obs, SMALL)["a"][0, 1, 0] = 5.0
    assert obs[0].tolist() == [0, 0, 5.0, 0, 0, 0, 0, 0]


def test_join_goes_by_kind_and_not_by_the_order_of_the_dict() -> None:
    """A decoder may fill its dict in any order."""
    obs = torch.arange(8.0)
    parts = tokens.split(obs, SMALL)
    assert torch.equal(tokens.join(dict(reversed(parts.items())), SMALL), obs)


def test_token_starts() -> None:
    """Tokens are numbered through all groups."""
    assert token_starts(SMALL) == (0, 2, 3)
    assert token_starts(flat_layout(10, 3)) == (0, 1, 2, 3)


# --- hide -----------------------------------------------------------------------------


@pytest.mark.parametrize("token", range(4))
def test_hide_zeroes_one_token_by_hand(token: int) -> None:
    """Exactly the features of that token."""
    obs = torch.arange(1.0, 9.0)
    is_hidden = torch.zeros(4, dtype=torch.bool)
    is_hidden[token] = True
    expected = [0.0 if SMALL_TOKEN_OF_FEATURE[i] == token else i + 1.0 for i in range(8)]
    assert tokens.hide(obs, is_hidden, SMALL).tolist() == expected


def test_features_of_tokens_by_hand() -> None:
    flags = torch.tensor([[True, False, False, True], [False, True, True, False]])
    expected = [[1, 1, 0, 0, 0, 0, 0, 1], [0, 0, 1, 1, 1, 1, 1, 0]]
    assert tokens.features_of(flags, SMALL, torch.float64).tolist() == expected
    assert tokens.features_of(flags, SMALL, torch.float64).dtype == torch.float64
    values = torch.arange(8.0)
    assert tokens.hideable_features(values, SMALL).tolist() == [0, 1, 2, 3, 7]


def test_what_was_first_seen_while_acting_can_be_learned_from() -> None:
    """Agents act in inference mode, whose tensors no gradient may go through."""
    tokens.by_token.cache_clear()
    with torch.inference_mode():
        tokens.visibility(torch.rand(8), SMALL)
    values = torch.rand(8, requires_grad=True)
    (values @ tokens.by_token(SMALL, values.device, values.dtype)).sum().backward()
    assert values.grad is not None and values.grad.tolist() == [1.0] * 8


@pytest.mark.parametrize("name", LAYOUTS)
def test_hide_zeroes_the_hidden_tokens_and_nothing_else(name: str) -> None:
    """Seen through `split`, for every layout and many masks at once."""
    layout = layout_named(name)
    obs = torch.rand(4, 3, layout.obs_size) + 0.5
    is_hidden = torch.rand(4, 3, layout.n_tokens) < 0.5
    assert 0 < is_hidden.sum() < is_hidden.numel()
    before, after = tokens.split(obs, layout), tokens.split(tokens.hide(obs, is_hidden, layout), layout)
    for group, first in zip(layout.groups, token_starts(layout), strict=True):
        for k in range(group.count):
            hidden = is_hidden[..., first + k]
            assert (after[group.kind][..., k, :][hidden] == 0).all()
            assert torch.equal(after[group.kind][..., k, :][~hidden], before[group.kind][..., k, :][~hidden])


def test_hide_leaves_its_input_alone() -> None:
    """The observations are still the target of the reconstruction, and belong to the replay buffer."""
    obs = torch.ones(2, 8)
    hidden = tokens.hide(obs, torch.ones(2, 4, dtype=torch.bool), SMALL)
    assert (hidden == 0).all()
    assert (obs == 1).all()


@pytest.mark.parametrize("name", ["small", "smac", "smax"])
def test_hidden_tokens_look_unseen(name: str) -> None:
    """A hidden token is what the environment shows of a unit out of sight."""
    layout = layout_named(name)
    obs = torch.rand(5, layout.obs_size) + 0.5
    is_hidden = torch.rand(5, layout.n_tokens) < 0.5
    assert torch.equal(tokens.visibility(tokens.hide(obs, is_hidden, layout), layout), ~is_hidden)


# --- visibility -----------------------------------------------------------------------


def test_visibility_by_hand() -> None:
    """One feature other than 0, of whatever sign and place, shows that a token is there."""
    obs = torch.tensor(
        [
            [0.0, 0.0, 0.0, -0.1, 0.0, 0.0, 0.0, 1.0],
            [1e-6, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        ]
    )
    is_visible = tokens.visibility(obs, SMALL)
    assert is_visible.dtype == torch.bool
    assert is_visible.tolist() == [
        [False, True, False, True],
        [True, False, True, False],
        [False, False, False, False],
    ]


def test_features_of_opposite_sign_do_not_cancel() -> None:
    """A unit to the lower right has a positive and a negative coordinate."""
    obs = torch.tensor([-1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert tokens.visibility(obs, SMALL).tolist() == [True, False, False, False]


def test_zeros_mean_nothing_in_an_unknown_observation() -> None:
    """In a flat layout a zero is a value like any other."""
    layout = flat_layout(10, 3)
    is_visible = tokens.visibility(torch.zeros(2, 5, 10), layout)
    assert is_visible.shape == (2, 5, 4)
    assert is_visible.all()


# --- what may be hidden, and who is shown ---------------------------------------------


def test_hideable_by_hand() -> None:
    """One flag for each token, in their order."""
    assert tokens.hideable(SMALL).tolist() == [True, True, False, True]
    assert tokens.hideable(flat_layout(10, 3)).tolist() == [True] * 4


def test_only_other_units_are_hideable() -> None:
    """An agent always knows its own state and where it can go."""
    # SMAC: move, 2 enemies, 2 allies, own. SMAX (3 against 4): 2 allies, 4 enemies, own.
    assert tokens.hideable(layout_named("smac")).tolist() == [False, True, True, True, True, False]
    assert tokens.hideable(layout_named("smax")).tolist() == [True] * 6 + [False]


@pytest.mark.parametrize(
    ("n_agents", "slots"),
    [
        (1, [[]]),
        (2, [[1], [0]]),
        (4, [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]),
    ],
)
def test_teammate_slots_by_hand(n_agents: int, slots: list[list[int]]) -> None:
    """Agent i's ally tokens are the other agents in order."""
    assert tokens.teammate_slots(n_agents).tolist() == slots
    assert tokens.teammate_slots(n_agents).shape == (n_agents, n_agents - 1)


def test_to_the_dead_nothing_is_out_of_sight() -> None:
    """They are told by the tokens that the living show of themselves; without such tokens there are none."""
    obs = torch.tensor([[1.0, 0, 0, 0, 0, 2, 0, 0], [0] * 8])
    assert tokens.is_out_of_sight(obs, SMALL).tolist() == [[False, True, False, True], [False] * 4]
    others = Layout("others", (SMALL.groups[0], SMALL.groups[2]))
    obs = torch.tensor([[0.0, 3, 0, 0, 0], [0] * 5])
    assert tokens.is_out_of_sight(obs, others).tolist() == [[False, True, True], [True] * 3]
