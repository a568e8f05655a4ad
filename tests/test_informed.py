"""Maskers that signals drive: each rule by hand on a team of three, and how random masks are mixed in."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from limask import masking
from limask.config import LimConfig, MaskerOptions
from limask.layouts import Layout, TokenGroup, tokens
from limask.masking import REGISTRY, MaskView, hidden_tokens
from limask.masking.mixture import random_share
from limask.masking.scored import draw

#: Tokens: two teammates, three enemies, the agent itself.
LAYOUT = Layout(
    "three",
    (
        TokenGroup("ally", 2, ("x", "y")),
        TokenGroup("enemy", 3, ("x", "y", "z"), first_action=1),
        TokenGroup("own", 1, ("x",), is_hideable=False),
    ),
)
B, T, N, K = 2, 4, 3, 6


def view(**signals: Any) -> MaskView:
    """Two episodes, of four steps and of three, in which everything is visible."""
    is_filled = torch.tensor([[True] * 4, [True, True, True, False]])
    is_visible = is_filled.view(B, T, 1, 1).expand(B, T, N, K)
    obs = torch.ones(B, T, N, LAYOUT.obs_size) * is_filled.view(B, T, 1, 1)
    return MaskView(obs, is_visible, is_filled, **signals)


def errors(*steps: tuple[float, float, float]) -> torch.Tensor:
    """TD errors (B, T, N): these in the first episode, and the first two of them in the second."""
    td_error = torch.zeros(B, T, N)
    td_error[0, :3] = torch.tensor(steps)
    td_error[1, :2] = torch.tensor(steps[:2])
    return td_error


def hidden_agents(masker: masking.Masker, at: MaskView, seed: int = 0) -> set[int]:
    """The agents that the masker hides; that everybody's view agrees on them is checked."""
    is_hidden = hidden_tokens(masker, at, tokens.hideable(LAYOUT), torch.Generator().manual_seed(seed))
    shown = tokens.teammate_slots(N)
    found = {
        j for j in range(N) for i in range(N) for k in range(2) if shown[i, k] == j and is_hidden[0, 0, i, k]
    }
    for i in range(N):
        for k in range(2):
            assert bool(is_hidden[0, 0, i, k]) == (int(shown[i, k]) in found)
    assert not is_hidden[..., 2:].any()
    assert not is_hidden[1, 3].any()
    return found


def build(name: str, **options: Any) -> masking.Masker:
    """The masker by itself, without random masks."""
    return masking.REGISTRY[name](LimConfig(masker=MaskerOptions(name=name, **options)), LAYOUT)


# --- whole agents, by TD error ----------------------------------------------------------------------


def test_td_threshold_by_hand() -> None:
    # Means over the five transitions: (1+1+1+1+1)/5 = 1, (0+2+4+0+2)/5 = 1.6, 0.6; their mean is 1.07.
    td_error = errors((1, 0, 0.6), (1, 2, 0.6), (1, 4, 0.6))
    assert hidden_agents(build("td_threshold"), view(td_error=td_error)) == {1}


def test_td_threshold_falls_back_on_the_top_two() -> None:
    """Equal errors: none is above the mean. Two are hidden, not always the same ones, and never all."""
    at = view(td_error=errors(*[(1, 1, 1)] * 3))
    masks = [hidden_agents(build("td_threshold"), at, seed) for seed in range(30)]
    assert all(len(agents) == 2 for agents in masks)
    assert len({frozenset(agents) for agents in masks}) == 3


def test_td_variance_by_hand() -> None:
    # Episode 1: variances 0, 8/3, 0; episode 2: 0, 1, 0. Agent 2 has the largest mean and no variance.
    td_error = errors((1, 0, 9), (1, 2, 9), (1, 4, 9))
    assert hidden_agents(build("td_variance"), view(td_error=td_error)) == {1}
    assert hidden_agents(build("td_threshold"), view(td_error=td_error)) == {2}


def test_td_recent_looks_at_the_last_transitions_only() -> None:
    is_filled = torch.ones(1, 8, dtype=torch.bool)
    visible = torch.ones(1, 8, N, K, dtype=torch.bool)
    td_error = torch.zeros(1, 8, N)
    td_error[0, :2, 0] = 100.0  # the first two of seven transitions: not among the last five
    td_error[0, 6, 1] = 1.0
    at = MaskView(torch.ones(1, 8, N, LAYOUT.obs_size), visible, is_filled, td_error=td_error)

    def hidden(name: str) -> torch.Tensor:
        return hidden_tokens(build(name), at, tokens.hideable(LAYOUT), torch.Generator())[0, 0, 2, :2]

    assert hidden("td_recent").tolist() == [False, True]
    assert hidden("td_threshold").tolist() == [True, False]


def test_td_observation_weighs_by_what_an_agent_sees() -> None:
    td_error = errors(*[(1.0, 1.0, 1.2)] * 3)
    at = view(td_error=td_error)
    seen = at.is_visible.clone()
    seen[:, :, 2, 2:5] = False  # agent 2 sees three of six tokens: 1.2 · 0.5 = 0.6
    at = at._replace(is_visible=seen)
    assert hidden_agents(build("td_observation"), at) == {0, 1}
    assert hidden_agents(build("td_threshold"), at) == {2}


def test_td_ema_by_hand() -> None:
    masker = build("td_ema")
    assert hidden_agents(masker, view(td_error=errors(*[(4, 1, 1)] * 3))) == {0}
    # 0.9 · 4 + 0.1 · 0 = 3.6 against 0.9 · 1 + 0.1 · 20 = 2.9: agents 0 and 1 are above the mean of 2.47.
    again = view(td_error=errors(*[(0, 20, 0)] * 3))
    restored = build("td_ema")
    restored.load_state_dict(masker.state_dict())
    assert hidden_agents(masker, again) == hidden_agents(restored, again) == {0, 1}
    assert masker.average.tolist() == pytest.approx([3.6, 2.9, 0.9])  # type: ignore[attr-defined]


def test_a_team_of_one_has_nobody_to_hide() -> None:
    at = MaskView(
        torch.ones(1, 2, 1, 5),
        torch.ones(1, 2, 1, 2, dtype=torch.bool),
        torch.ones(1, 2, dtype=torch.bool),
        td_error=torch.ones(1, 2, 1),
    )
    layout = Layout("one", (TokenGroup("ally", 1, ("x", "y")), TokenGroup("enemy", 1, ("x", "y", "z"))))
    masker = masking.REGISTRY["td_threshold"](LimConfig(masker=MaskerOptions(name="td_threshold")), layout)
    assert not masker.propose(at, torch.Generator()).any()


# --- tokens, by score -------------------------------------------------------------------------------


def test_draw_hides_the_exact_number_and_prefers_high_scores() -> None:
    scores = torch.tensor([8.0, 1.0, 1.0, 0.0]).expand(4000, 1, 1, 4)
    is_candidate = torch.ones(4000, 1, 1, 4, dtype=torch.bool)
    uniform = torch.rand(4000, 1, 1, 5, generator=torch.Generator().manual_seed(0))
    is_hidden = draw(scores, is_candidate, 0.25, uniform)
    assert is_hidden.sum(dim=-1).eq(1).all()
    share = is_hidden.float().mean(dim=(0, 1, 2)).tolist()
    assert share == pytest.approx([0.8, 0.1, 0.1, 0.0], abs=0.02)


def test_draw_rounds_at_random_and_keeps_to_candidates() -> None:
    is_candidate = torch.tensor([True, True, True, False]).expand(4000, 1, 1, 4)
    uniform = torch.rand(4000, 1, 1, 5, generator=torch.Generator().manual_seed(0))
    is_hidden = draw(torch.zeros(4000, 1, 1, 4), is_candidate, 0.5, uniform)
    counts = is_hidden.sum(dim=-1).float()
    assert counts.unique().tolist() == [1, 2] and counts.mean().item() == pytest.approx(1.5, abs=0.03)
    assert is_hidden.float().mean(dim=(0, 1, 2)).tolist() == pytest.approx([0.5, 0.5, 0.5, 0], abs=0.03)


def test_value_saliency_hides_what_matters() -> None:
    saliency = torch.zeros(B, T, N, K)
    saliency[..., 3] = 1.0
    saliency[..., 5] = 5.0  # protected
    masker = build("value_saliency", ratio=0.2)
    at = view(saliency=saliency)
    is_hidden = hidden_tokens(masker, at, tokens.hideable(LAYOUT), torch.Generator().manual_seed(0))
    assert torch.equal(is_hidden[0], (torch.arange(K) == 3).expand(T, N, K))


def test_coordination_scores_teammates_only() -> None:
    dependence = torch.zeros(B, T, N, K)
    dependence[..., 1], dependence[..., 4] = 1.0, 100.0
    masker = build("coordination", ratio=0.5)
    at = view(dependence=dependence)
    shares = torch.stack(
        [
            hidden_tokens(masker, at, tokens.hideable(LAYOUT), torch.Generator().manual_seed(seed))[0].float()
            for seed in range(200)
        ]
    ).mean(dim=(0, 1, 2))
    assert shares[:2].tolist() == [0.0, 1.0]
    assert shares[2:5].tolist() == pytest.approx([0.5] * 3, abs=0.06)


def test_learning_progress_by_hand() -> None:
    masker = build("learning_progress", ratio=0.2)
    at = view()
    is_hidden = torch.ones(B, T, N, K, dtype=torch.bool)
    error = torch.ones(B, T, N, K)
    masker.learn(is_hidden, error)
    assert masker.scores(at).unique().tolist() == pytest.approx([0.05])  # type: ignore[attr-defined]
    error[..., :2] = 0.5  # teammates' tokens: fast 0.95, slow 0.995; the others stand still
    masker.learn(is_hidden, error)
    scores = masker.scores(at)  # type: ignore[attr-defined]
    assert scores[0, :2].tolist() == pytest.approx([1.05, 1.05])
    assert scores[0, 2:].tolist() == pytest.approx([0.05] * 4)
    assert masker.fast[0].tolist() == pytest.approx([0.95, 1, 1])  # type: ignore[attr-defined]
    assert masker.slow[0].tolist() == pytest.approx([0.995, 1, 1])  # type: ignore[attr-defined]
    restored = build("learning_progress")
    restored.load_state_dict(masker.state_dict())
    assert torch.equal(restored.scores(at), scores)  # type: ignore[attr-defined]


def test_learning_progress_of_what_was_never_hidden_is_no_nan() -> None:
    masker = build("learning_progress")
    masker.learn(torch.zeros(B, T, N, K, dtype=torch.bool), torch.zeros(B, T, N, K))
    assert masker.scores(view()).isfinite().all()  # type: ignore[attr-defined]


def test_adversarial_comes_to_hide_what_is_hard_and_keeps_the_ratio() -> None:
    masker = build("adversarial", ratio=0.4)
    at = view()
    obs = at.obs.clone()
    obs[..., 4:7] = -1.0  # the first enemy looks different from the others, and is hard
    at = at._replace(obs=obs)
    hard = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    generator = torch.Generator().manual_seed(0)
    first = masker.propose(at, generator)[0].float().mean(dim=(0, 1))
    for _ in range(300):
        is_hidden = hidden_tokens(masker, at, tokens.hideable(LAYOUT), generator)
        masker.learn(is_hidden, hard * is_hidden)
    chances = masker.propose(at, generator)
    masks = torch.stack([masker.propose(at, generator)[0] for _ in range(50)]).float().mean(dim=(0, 1, 2))
    assert masks[2] > 0.8 > first.max() + 0.1
    assert masks[:5].mean().item() == pytest.approx(0.4, abs=0.1)
    restored = build("adversarial", ratio=0.4)
    restored.load_state_dict(masker.state_dict())
    assert torch.equal(restored.propose(at, torch.Generator()), masker.propose(at, torch.Generator()))
    assert chances.dtype == torch.bool


# --- spans and mixtures -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["random", "value_saliency", "coordination", "adversarial", "learning_progress"]
)
def test_tokens_stay_hidden_for_a_span(name: str) -> None:
    shape = (50, 12, N, K)
    ones = torch.ones(shape)
    at = MaskView(
        torch.ones(50, 12, N, LAYOUT.obs_size), ones.bool(), ones[..., 0, 0].bool(), 0, None, ones, ones
    )
    masker = build(name, span=4, ratio=0.5)
    is_hidden = hidden_tokens(masker, at, tokens.hideable(LAYOUT), torch.Generator().manual_seed(0))[..., :5]
    changes = (is_hidden[:, 1:] != is_hidden[:, :-1]).any(dim=(2, 3))
    # Changes are four steps apart, and begin at each of the four phases in some episode.
    assert (changes.float().sum(dim=1) <= 3).all()
    first = changes.float().argmax(dim=1)
    assert set(first.tolist()) == {0, 1, 2, 3}
    assert is_hidden.float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_share_of_random_masks_over_the_run() -> None:
    config = LimConfig(masker=MaskerOptions(random_until=100, random_anneal=200, random_finish=0.25))
    shares = [random_share(config, t_env) for t_env in (0, 100, 200, 300, 10_000)]
    assert shares == pytest.approx([1.0, 1.0, 0.625, 0.25, 0.25])
    at_once = LimConfig(masker=MaskerOptions(random_until=100, random_anneal=0, random_finish=0.5))
    assert [random_share(at_once, t_env) for t_env in (100, 101)] == [1.0, 0.5]


@pytest.mark.parametrize("name", [name for name, masker in REGISTRY.items() if masker.is_informed])
def test_informed_masks_begin_as_random_ones(name: str) -> None:
    """Nothing is asked for before the signals mean anything; then whole episodes are masked either way."""
    options = {"random_until": 100, "random_anneal": 0, "random_finish": 0.5}
    masker = masking.build(LimConfig(masker=MaskerOptions(name=name, **options)), LAYOUT)
    assert masker.needs(100) == frozenset()
    assert masker.needs(101) == masking.REGISTRY[name].signals
    early = hidden_tokens(masker, view(t_env=100), tokens.hideable(LAYOUT), torch.Generator().manual_seed(0))
    assert early.any()
    shape = (B, T, N, K)
    signals = {
        "td_error": torch.rand(B, T, N),
        "saliency": torch.rand(shape),
        "dependence": torch.rand(shape),
    }
    at = view(t_env=101, **signals)
    late = hidden_tokens(masker, at, tokens.hideable(LAYOUT), torch.Generator().manual_seed(0))
    masker.learn(late, torch.rand(shape) * late)
    assert late.any() and not late[1, 3].any()


def test_half_of_the_episodes_is_masked_at_random() -> None:
    options = {"random_until": 0, "random_anneal": 0, "random_finish": 0.5, "ratio": 0.0}
    masker = masking.build(LimConfig(masker=MaskerOptions(name="td_threshold", **options)), LAYOUT)
    n_episodes = 2000
    ones = torch.ones(n_episodes, 2, N, K, dtype=torch.bool)
    td_error = torch.tensor([5.0, 0.0, 0.0]).expand(n_episodes, 2, N)
    at = MaskView(torch.ones(n_episodes, 2, N, LAYOUT.obs_size), ones, ones[..., 0, 0], 1, td_error=td_error)
    is_hidden = hidden_tokens(masker, at, tokens.hideable(LAYOUT), torch.Generator().manual_seed(0))
    # Informed: agent 0 alone, in slot 0 of agent 1's view. At random: 1 or 2 of 3 agents, half of the time
    # each: agent 0 alone in 1/6 of those episodes, so it is alone in 1/2 + 1/2 · 1/6 of all.
    alone = is_hidden[:, 0, 1, 0] & ~is_hidden[:, 0, 1, 1] & ~is_hidden[:, 0, 0, 0]
    assert alone.float().mean().item() == pytest.approx(7 / 12, abs=0.04)
