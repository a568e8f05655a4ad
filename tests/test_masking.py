"""What holds for every masker, and what each one promises of its own."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch

from limask.config import LimConfig, MaskerOptions
from limask.layouts import Layout, flat_layout, smac_layout_of, tokens
from limask.masking import REGISTRY, Masker, MaskView, hidden_tokens

#: Standard errors that a frequency may be off: with fixed seeds a wrong rule is far outside.
N_ERRORS = 4.0

AGENT_MASKERS = [name for name, masker in REGISTRY.items() if masker.hides == "agents"]

#: Maskers whose signal alone decides.
CERTAIN = ("none", *(name for name in AGENT_MASKERS if name != "random_agent"))


def battle_layout(n_agents: int, n_enemies: int) -> Layout:
    """Tokens: move, the enemies, the other agents, own; the first and the last are protected."""
    params: dict[str, Any] = {
        "n_agents": n_agents,
        "n_enemies": n_enemies,
        "a_race": "T",
        "b_race": "T",
        "unit_type_bits": 0,
        "map_type": "marines",
    }
    return smac_layout_of(params, {})


def everything_visible(layout: Layout, n_episodes: int, n_steps: int, n_agents: int) -> torch.Tensor:
    """(B, T, N, K), all True."""
    return torch.ones(n_episodes, n_steps, n_agents, layout.n_tokens, dtype=torch.bool)


def view_of(layout: Layout, is_visible: torch.Tensor) -> MaskView:
    """A view with signals made up from the shape alone."""
    shape, draw = is_visible.shape, torch.Generator().manual_seed(7)
    return MaskView(
        obs=torch.rand((*shape[:3], layout.obs_size), generator=draw),
        is_visible=is_visible,
        is_filled=torch.ones(shape[:2], dtype=torch.bool),
        td_error=torch.rand(shape[:3], generator=draw),
        saliency=torch.rand(shape, generator=draw),
        dependence=torch.rand(shape, generator=draw),
    )


def hide(
    masker: str | type[Masker], layout: Layout, is_visible: torch.Tensor, seed: int = 0, **options: Any
) -> torch.Tensor:
    """The mask of ``masker`` on ``layout``, with a generator of its own."""
    kind = REGISTRY[masker] if isinstance(masker, str) else masker
    generator = torch.Generator().manual_seed(seed)
    view = view_of(layout, is_visible)
    return hidden_tokens(
        kind(LimConfig(masker=MaskerOptions(**options)), layout), view, tokens.hideable(layout), generator
    )


class HideAll(Masker):
    """Proposes to hide every token, so that only the bounds decide."""

    def propose(self, view: MaskView, generator: torch.Generator) -> torch.Tensor:
        """See ``Masker.propose``."""
        return torch.ones_like(view.is_visible)


def close(frequency: float, expected: float, n_draws: int) -> bool:
    """Whether the frequency of a yes among independent draws is what chance allows."""
    error = math.sqrt(expected * (1 - expected) / n_draws)
    return abs(frequency - expected) <= N_ERRORS * error


# --- every masker ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*REGISTRY.values(), HideAll], ids=[*REGISTRY, "hide_all"])
def test_bounds_hold_for_random_shapes(kind: type[Masker]) -> None:
    """Only what is visible and unprotected is hidden, and enough stays in each row that has so much."""
    draw = random.Random(0)
    torch.manual_seed(0)
    for trial in range(60):
        n_agents, n_enemies = draw.randint(1, 6), draw.randint(1, 7)
        layout = battle_layout(n_agents, n_enemies)
        shape = (draw.randint(1, 4), draw.randint(1, 6), n_agents, layout.n_tokens)
        is_visible = torch.rand(shape) < draw.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        keep = draw.randint(1, layout.n_tokens + 1)
        options = {"ratio": draw.choice((0.0, 0.3, 0.9, 0.999)), "keep_at_least": keep}
        before = is_visible.clone()
        is_hidden = hide(kind, layout, is_visible, seed=trial, **options)
        assert torch.equal(is_visible, before)
        assert is_hidden.dtype == torch.bool
        assert is_hidden.shape == is_visible.shape
        assert not (is_hidden & ~is_visible).any()
        assert not (is_hidden & ~tokens.hideable(layout)).any()
        n_kept, n_visible = (is_visible & ~is_hidden).sum(dim=-1), is_visible.sum(dim=-1)
        assert (n_kept >= n_visible.clamp(max=keep)).all()


@pytest.mark.parametrize("name", [name for name in REGISTRY if name not in (*AGENT_MASKERS, "coordination")])
def test_bounds_hold_without_protected_tokens(name: str) -> None:
    """In a flat layout nothing but `keep_at_least` keeps a row from being hidden as a whole."""
    layout = flat_layout(12, 3)
    is_visible = everything_visible(layout, 50, 4, 3)
    for keep in (1, 3, 4, 5):
        is_hidden = hide(name, layout, is_visible, ratio=0.95, keep_at_least=keep)
        assert ((~is_hidden).sum(dim=-1) >= min(keep, 4)).all()


@pytest.mark.parametrize("name", REGISTRY)
def test_randomness_is_the_generators(name: str) -> None:
    """The same seed gives the same mask whatever else draws numbers; another seed gives another mask."""
    layout = battle_layout(5, 6)
    is_visible = torch.rand(8, 5, 5, layout.n_tokens, generator=torch.Generator().manual_seed(1)) < 0.8
    torch.manual_seed(1)
    first = hide(name, layout, is_visible, seed=3)
    torch.manual_seed(2)
    again, other = hide(name, layout, is_visible, seed=3), hide(name, layout, is_visible, seed=4)
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name in CERTAIN)


@pytest.mark.parametrize("name", [name for name in REGISTRY if name not in CERTAIN])
def test_masks_are_drawn_anew_at_every_update(name: str) -> None:
    """One generator serves the whole run."""
    layout = battle_layout(5, 6)
    masker = REGISTRY[name](LimConfig(), layout)
    is_visible = everything_visible(layout, 8, 5, 5)
    generator = torch.Generator().manual_seed(0)
    view = view_of(layout, is_visible)
    masks = [hidden_tokens(masker, view, tokens.hideable(layout), generator) for _ in range(2)]
    assert not torch.equal(*masks)


@pytest.mark.parametrize("name", REGISTRY)
def test_rows_without_a_visible_token(name: str) -> None:
    """The dead see nothing, and padding shows nothing: nothing is hidden there, and others are unaffected."""
    layout = battle_layout(4, 4)
    is_visible = everything_visible(layout, 6, 5, 4)
    is_visible[:, 2:, 1] = False
    is_hidden = hide(name, layout, is_visible, ratio=0.9)
    assert not is_hidden[:, 2:, 1].any()
    assert is_hidden[:, :, 2].any() == (name != "none")
    assert not hide(name, layout, torch.zeros_like(is_visible), ratio=0.9).any()


# --- keep_at_least --------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1, 2, 3, 5, 8])
def test_no_more_is_kept_than_has_to_be(keep: int) -> None:
    """A masker's proposal is cut down by as little as the bound asks for."""
    layout = flat_layout(15, 3)
    is_visible = torch.rand(40, 3, 2, 5, generator=torch.Generator().manual_seed(0)) < 0.6
    is_hidden = hide(HideAll, layout, is_visible, keep_at_least=keep)
    n_kept = (is_visible & ~is_hidden).sum(dim=-1)
    assert torch.equal(n_kept, is_visible.sum(dim=-1).clamp(max=keep))


def test_protected_tokens_count_as_kept() -> None:
    """`move` and `own` are visible tokens that stay: of 2 that must stay, none is left to choose."""
    layout = battle_layout(3, 3)
    is_visible = everything_visible(layout, 10, 2, 3)
    assert hide(HideAll, layout, is_visible, keep_at_least=2).sum(dim=-1).eq(5).all()
    assert hide(HideAll, layout, is_visible, keep_at_least=3).sum(dim=-1).eq(4).all()


def test_what_is_kept_is_drawn_evenly() -> None:
    """Were it always the first token, the decoder would never learn that one."""
    layout = flat_layout(12, 3)
    is_hidden = hide(HideAll, layout, everything_visible(layout, 1000, 2, 2), keep_at_least=1)
    kept = (~is_hidden).float().mean(dim=(0, 1, 2))
    assert all(close(share, 1 / 4, 4000) for share in kept.tolist())


def test_what_is_proposed_and_possible_is_not_touched() -> None:
    """Rows that keep enough are left as the masker wanted them, even beside rows that do not."""
    layout = flat_layout(12, 3)
    proposal = torch.tensor([[True, True, True, True], [True, False, True, False]]).view(1, 1, 2, 4)

    class Fixed(Masker):
        def propose(self, view: MaskView, generator: torch.Generator) -> torch.Tensor:
            return proposal

    is_hidden = hide(Fixed, layout, everything_visible(layout, 1, 1, 2), keep_at_least=2)
    assert is_hidden[0, 0].sum(dim=-1).tolist() == [2, 2]
    assert is_hidden[0, 0, 1].tolist() == [True, False, True, False]


# --- none -----------------------------------------------------------------------------


def test_none_hides_nothing() -> None:
    """Whatever the ratio says."""
    layout = battle_layout(4, 4)
    assert not hide("none", layout, everything_visible(layout, 5, 6, 4), ratio=0.9).any()


# --- random ---------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("p_visible", [1.0, 0.5])
def test_random_hides_its_ratio_of_what_can_be_hidden(ratio: float, p_visible: float) -> None:
    """Of the visible unprotected tokens, so that the ratio means the same on every map and at any sight."""
    layout = battle_layout(5, 6)
    hideable = tokens.hideable(layout)
    is_visible = (
        torch.rand(20, 20, 5, layout.n_tokens, generator=torch.Generator().manual_seed(5)) < p_visible
    )
    is_visible |= ~hideable
    is_hidden = hide("random", layout, is_visible, ratio=ratio)
    candidates = is_visible & hideable
    n_candidates = int(candidates.sum())
    assert close(int(is_hidden.sum()) / n_candidates, ratio, n_candidates)
    per_token = (is_hidden.sum(dim=(0, 1, 2)) / candidates.sum(dim=(0, 1, 2)).clamp(min=1))[hideable]
    assert all(close(share, ratio, int(2000 * p_visible) - 150) for share in per_token.tolist())


def test_random_draws_every_token_by_itself() -> None:
    """Neighbours in time, among the agents and among the tokens agree as often as strangers."""
    layout = flat_layout(30, 3)
    is_hidden = hide("random", layout, everything_visible(layout, 8, 20, 5), ratio=0.5)
    for dim in range(4):
        agree = (is_hidden == is_hidden.roll(1, dims=dim)).float()
        assert close(agree.mean().item(), 0.5, agree.numel())


@pytest.mark.parametrize("name", ["random", "value_saliency", "coordination", "adversarial"])
def test_each_episode_draws_its_ratio_of_a_range(name: str) -> None:
    layout = battle_layout(3, 4)
    is_visible = everything_visible(layout, 400, 30, 3)
    is_hideable = tokens.hideable(layout)
    shares = hide(name, layout, is_visible, ratio=[0.2, 0.6])[..., is_hideable].float().mean(dim=(1, 2, 3))
    # 540 tokens an episode: a share is within 0.09 of its ratio, and the ratios are uniform in the range.
    assert shares.min() > 0.11 and shares.max() < 0.69
    assert (shares < 0.3).sum() > 60 and (shares > 0.5).sum() > 60
    assert shares.mean().item() == pytest.approx(0.4, abs=0.03)


def test_random_of_ratio_0_hides_nothing() -> None:
    """Strictly: an arm of ratio 0 is the control."""
    layout = battle_layout(4, 4)
    assert not hide("random", layout, everything_visible(layout, 20, 20, 4), ratio=0.0).any()


# --- random_agent ---------------------------------------------------------------------


def hidden_agents(is_hidden: torch.Tensor, n_agents: int, first_ally: int) -> torch.Tensor:
    """(B, N) bool: agents that are hidden; fails unless all observers agree at all time steps."""
    n_episodes, n_steps = is_hidden.shape[:2]
    agents = torch.zeros(n_episodes, n_agents, dtype=torch.bool)
    for j in range(n_agents):
        shown = []
        for i in range(n_agents):
            if i != j:
                # Agent i's ally tokens skip i itself.
                slot = first_ally + (j if j < i else j - 1)
                shown.append(is_hidden[:, :, i, slot])
        everybody = torch.stack(shown)
        agents[:, j] = everybody[0, :, 0]
        assert (
            everybody == agents[:, j].view(1, n_episodes, 1).expand(n_agents - 1, n_episodes, n_steps)
        ).all()
    return agents


@pytest.mark.parametrize("n_agents", [2, 3, 5])
def test_random_agent_hides_the_same_teammates_from_everybody(n_agents: int) -> None:
    """For the whole episode, as MA²E does; between 1 and N − 1 agents stay."""
    layout = battle_layout(n_agents, 4)
    is_hidden = hide("random_agent", layout, everything_visible(layout, 300, 3, n_agents))
    n_hidden = hidden_agents(is_hidden, n_agents, first_ally=1 + 4).sum(dim=-1)
    assert set(n_hidden.tolist()) == set(range(1, n_agents))


def test_random_agent_draws_how_many_and_which_evenly() -> None:
    """Of 4 agents 1, 2 or 3 are hidden, each number as often, and each agent as often."""
    layout = battle_layout(4, 2)
    n_episodes = 3000
    is_hidden = hide("random_agent", layout, everything_visible(layout, n_episodes, 1, 4))
    agents = hidden_agents(is_hidden, 4, first_ally=1 + 2)
    n_hidden = agents.sum(dim=-1)
    for number in (1, 2, 3):
        assert close((n_hidden == number).float().mean().item(), 1 / 3, n_episodes)
    for j in range(4):
        assert close(agents[:, j].float().mean().item(), 1 / 2, n_episodes)
    # Which agents are hidden says nothing about each other beyond their number: all 4 pairs alike.
    pairs = agents[n_hidden == 2]
    for j in range(4):
        assert close(pairs[:, j].float().mean().item(), 1 / 2, len(pairs))


def test_random_agent_hides_teammates_only() -> None:
    """Never an enemy, and never what the agent knows of itself."""
    layout = battle_layout(4, 5)
    is_hidden = hide("random_agent", layout, everything_visible(layout, 100, 2, 4))
    is_ally = torch.zeros(layout.n_tokens, dtype=torch.bool)
    is_ally[1 + 5 : 1 + 5 + 3] = True
    assert is_hidden[..., is_ally].any()
    assert not is_hidden[..., ~is_ally].any()


def test_random_agent_leaves_out_who_is_not_seen() -> None:
    """A teammate out of sight of one observer is hidden from the others all the same."""
    layout = battle_layout(3, 1)
    is_visible = everything_visible(layout, 200, 2, 3)
    full = hide("random_agent", layout, is_visible)
    is_visible[:, 1, 0, 2] = False
    assert torch.equal(hide("random_agent", layout, is_visible), full & is_visible)


def test_random_agent_takes_no_notice_of_the_ratio() -> None:
    """How many are hidden is MA²E's rule."""
    layout = battle_layout(4, 4)
    is_visible = everything_visible(layout, 20, 3, 4)
    low = hide("random_agent", layout, is_visible, ratio=0.0)
    assert torch.equal(low, hide("random_agent", layout, is_visible, ratio=0.9))


def test_random_agent_alone_hides_nothing() -> None:
    """One agent has no teammates."""
    layout = battle_layout(1, 3)
    assert not hide("random_agent", layout, everything_visible(layout, 5, 4, 1)).any()
