"""Faults of sensors: each kind by hand, what is drawn for whom, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from limask.errors import LimaskError
from limask.faults import (
    REGISTRY,
    BatchSource,
    EpisodeSource,
    Faults,
    FaultyEpisodes,
    Severity,
    Source,
    read_faults,
)
from limask.faults.kinds import BURST
from limask.layouts import Layout, flat_layout, smax_layout, tokens

LAYOUT = smax_layout({"map_name": "3m"})
N, K, OBS, STEPS = 3, 6, LAYOUT.obs_size, 12
WIDTH = LAYOUT.groups[0].width
ENEMIES = slice(2, 5)  # tokens: two allies, three enemies, the agent itself
WEAK: dict[str, Any] = {"dropout": 0.3, "burst": 0.3, "nearest": 1, "blind": 1, "stale": 2, "noise": 0.1}
WEAK |= {"flipped": 0.3, "sight": 0.4}


def drawn(
    source: Source, name: str, low: float, high: float | None = None, n_steps: int = STEPS
) -> FaultyEpisodes:
    severity = Severity(low, low if high is None else high)
    return Faults([REGISTRY[name](severity, LAYOUT, N)]).draw(source, n_steps)


def source(n_episodes: int, seed: int = 0) -> BatchSource:
    return BatchSource(torch.Generator().manual_seed(seed), n_episodes)


def episodes(n_episodes: int, n_steps: int = STEPS) -> torch.Tensor:
    """Everyone sees everyone within 0.1 to 0.99 of the sight range, but agent 0 not ally 1; agent 2 dies at
    step 6."""
    obs = torch.rand(n_episodes, n_steps, N, OBS, generator=torch.Generator().manual_seed(1)) * 0.6 + 0.1
    obs[:, :, 0, WIDTH : 2 * WIDTH] = 0
    obs[:, 6:, 2] = 0
    return obs


def lost(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    return tokens.visibility(before, LAYOUT) & ~tokens.visibility(after, LAYOUT)


@pytest.mark.parametrize("name", REGISTRY)
def test_nothing_at_severity_zero(name: str) -> None:
    obs = episodes(4)
    assert torch.equal(drawn(source(4), name, 0).observe(obs), obs)


@pytest.mark.parametrize("name", REGISTRY)
def test_step_by_step_is_as_whole_episodes(name: str) -> None:
    """What the agents see when they act is what is learned from, and the dead go on seeing nothing."""
    obs = episodes(5)
    whole = drawn(source(5), name, WEAK[name]).observe(obs)
    by_step = drawn(source(5), name, WEAK[name])
    seen = torch.stack([by_step.observe_next(obs[:, t]) for t in range(STEPS)], dim=1)
    assert torch.equal(seen, whole)
    assert not torch.equal(whole, obs)
    assert not whole[:, 6:, 2].any()


@pytest.mark.parametrize("name", [name for name in REGISTRY if name not in ("noise", "flipped")])
def test_an_agent_always_knows_itself(name: str) -> None:
    obs = episodes(5)
    own = LAYOUT.groups[-1].width
    assert torch.equal(drawn(source(5), name, WEAK[name]).observe(obs)[..., -own:], obs[..., -own:])


def test_dropout_loses_each_sighting_anew() -> None:
    obs = episodes(300)
    gone = {p: lost(obs, drawn(source(300), "dropout", p).observe(obs)) for p in (0.3, 0.6, 1.0)}
    n_seen = (tokens.visibility(obs, LAYOUT) & tokens.hideable(LAYOUT)).sum()
    for p, is_lost in gone.items():
        assert (is_lost.sum() / n_seen).item() == pytest.approx(p, abs=0.01)
    assert not (gone[0.3] & ~gone[0.6]).any(), "more severity is more of the same draws"
    again = (gone[0.3][:, 1:6] & gone[0.3][:, :5]).sum() / gone[0.3][:, :5].sum()
    assert again.item() == pytest.approx(0.3, abs=0.02), "a loss says nothing of the next step"


def test_a_burst_lasts_five_steps_and_begins_with_a_fifth_of_the_probability() -> None:
    obs = torch.rand(2000, 40, N, OBS) * 0.6 + 0.1
    gone = lost(obs, drawn(source(2000), "burst", 0.5, n_steps=40).observe(obs))[..., ENEMIES]
    # Not gone where none of the last five steps began a burst.
    assert gone.float().mean().item() == pytest.approx(1 - 0.9**BURST, abs=0.01)
    assert gone[:, 0].float().mean().item() == pytest.approx(1 - 0.9**BURST, abs=0.02)
    begins = gone[:, 1:31] & ~gone[:, :30]
    lasts = torch.stack([gone[:, 1 + i : 31 + i] for i in range(BURST)]).all(dim=0)
    assert (lasts[begins]).all()
    assert (begins.sum() / (~gone[:, :30]).sum()).item() == pytest.approx(0.1, abs=0.01)


def test_the_nearest_enemies_in_sight_are_never_seen() -> None:
    obs = episodes(1, 1)
    first = 2 * WIDTH
    for enemy, (x, y) in enumerate([(0.3, 0.4), (0.1, 0.0), (-0.2, 0.2)]):  # at 0.5, 0.1 and 0.28
        obs[..., 0, first + enemy * WIDTH + 1 : first + enemy * WIDTH + 3] = torch.tensor([x, y])
    hidden = {
        k: lost(obs, drawn(source(1), "nearest", k).observe(obs))[0, 0, 0, ENEMIES].tolist()
        for k in (1, 2, 3)
    }
    assert hidden == {1: [False, True, False], 2: [False, True, True], 3: [True, True, True]}
    obs[..., 0, first + WIDTH : first + 2 * WIDTH] = 0  # the nearest is out of sight: the next one counts
    gone = lost(obs, drawn(source(1), "nearest", 1).observe(obs))
    assert gone[0, 0, 0].tolist() == [False, False, False, False, True, False]


def test_blind_agents_see_nobody_all_episode() -> None:
    obs = torch.rand(300, STEPS, N, OBS) * 0.6 + 0.1
    for n in (1, 2, 3):
        gone = lost(obs, drawn(source(300), "blind", n).observe(obs))[..., :5]
        is_blind = gone.all(dim=-1)
        assert torch.equal(gone.any(dim=-1), is_blind)
        assert (is_blind[:, 0].sum(dim=1) == n).all()
        assert torch.equal(is_blind, is_blind[:, :1].expand_as(is_blind))
    assert (is_blind.float().mean(dim=(0, 1)) == 1).all()


def test_stale_sightings_are_those_of_k_steps_ago() -> None:
    obs = episodes(2)
    seen = drawn(source(2), "stale", 3).observe(obs)
    others = slice(0, 5 * WIDTH)
    assert torch.equal(seen[:, 3:, 0, others], obs[:, :-3, 0, others])
    assert torch.equal(seen[:, :3, 0, others], obs[:, :1, 0, others].expand(-1, 3, -1))


def test_noise_has_its_deviation_on_what_is_shown() -> None:
    obs = torch.zeros(300, STEPS, N, OBS)
    obs[..., WIDTH:] = 0.1
    noise = drawn(source(300), "noise", 0.05).observe(obs) - obs
    assert not noise[..., :WIDTH].any()
    assert noise[..., WIDTH:].std().item() == pytest.approx(0.05, rel=0.02)
    assert drawn(source(300), "noise", 50).observe(obs).abs().max() == 1


def test_flipped_observations_are_negated_whole() -> None:
    obs = episodes(300)
    seen = drawn(source(300), "flipped", 0.15).observe(obs)
    is_same, is_negated = ((seen == sign * obs).all(dim=-1) for sign in (1, -1))
    assert (is_same | is_negated).all()
    assert is_negated[:, :6].float().mean().item() == pytest.approx(0.15, abs=0.02)


def test_a_shorter_sight_hides_who_stands_at_the_range_or_farther() -> None:
    obs = episodes(1, 1)
    obs[..., 0, 2 * WIDTH + 1 : 2 * WIDTH + 3] = torch.tensor([0.3, 0.4])  # the first enemy, at 0.5
    for severity, is_hidden in ((0.49, False), (0.5, True)):
        gone = lost(obs, drawn(source(1), "sight", severity).observe(obs))
        assert gone[0, 0, 0, 2].item() == is_hidden


# -- what is drawn for whom ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "low", "high"), [("dropout", 0.0, 0.8), ("nearest", 1, 3), ("blind", 0, 2), ("stale", 1, 4)]
)
def test_every_episode_draws_its_own_severity_from_the_range(name: str, low: float, high: float) -> None:
    severity = drawn(source(4000), name, low, high).draws[0].severity
    assert severity.min() >= low and severity.max() <= high
    assert severity.mean().item() == pytest.approx((low + high) / 2, abs=0.05)
    if REGISTRY[name].is_whole:
        values, counts = severity.unique(return_counts=True)
        assert values.tolist() == list(range(int(low), int(high) + 1))
        assert counts.min() > 0.9 * 4000 / len(values)


def test_one_kind_is_chosen_for_each_episode() -> None:
    block = {"dropout": [0.9, 1.0], "blind": 3, "noise": 0.1}
    faults = read_faults(block, LAYOUT, N, "lim.faults.collect")
    assert faults is not None
    episodes_drawn, obs = faults.draw(source(3000), STEPS), torch.rand(3000, STEPS, N, OBS) * 0.6 + 0.1
    assert episodes_drawn.chosen.bincount().min() > 900
    gone = lost(obs, episodes_drawn.observe(obs))[..., :5].float().mean(dim=(1, 2, 3))
    assert (gone[episodes_drawn.chosen == 1] == 1).all() and (gone[episodes_drawn.chosen == 2] == 0).all()
    assert gone[episodes_drawn.chosen == 0].mean().item() == pytest.approx(0.95, abs=0.01)


def test_a_severity_changes_no_other_number() -> None:
    """A kind draws as much whatever it is told, and whichever is chosen."""
    for name, high in (("dropout", 0.9), ("nearest", 3), ("noise", 1.0)):
        first, second = source(8), source(8)
        drawn(first, name, 0)
        drawn(second, name, 0, high)
        assert torch.equal(first.uniform(3), second.uniform(3))


def test_an_episodes_numbers_do_not_depend_on_those_beside_it() -> None:
    def observed(numbers: list[int]) -> torch.Tensor:
        generators = [np.random.default_rng([7, n]) for n in numbers]
        return drawn(EpisodeSource(generators), "burst", 0.5).observe(
            episodes(1).expand(len(numbers), -1, -1, -1)
        )

    assert torch.equal(observed([3, 4, 5])[1:2], observed([4]))


# -- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("dropout", "expected severities by kind"),
        ({"dropuot": 0.1}, "did you mean 'dropout'"),
        ({"dropout": 1.1}, "expected a probability p in [0, 1]"),
        ({"dropout": [0.5]}, "expected a number, or a range [low, high]"),
        ({"dropout": "0.5"}, "expected a number, or a range [low, high]"),
        ({"dropout": True}, "expected a number, or a range [low, high]"),
        ({"dropout": [0.8, 0.2]}, "expected a range from low to high"),
        ({"dropout": float("nan")}, "expected a probability"),
        ({"burst": -0.1}, "expected a probability p"),
        ({"nearest": 1.5}, "expected a whole number k of enemies"),
        ({"nearest": 4}, "expected a whole number k of enemies"),
        ({"blind": 4}, "expected a whole number of agents, at most 2 and one more"),
        ({"noise": -1}, "expected a standard deviation"),
        ({"flipped": 2}, "expected a probability φ"),
        ({"sight": 1.0}, "expected the lost share of the sight range"),
    ],
)
def test_bad_blocks(block: object, words: str) -> None:
    with pytest.raises(LimaskError) as caught:
        read_faults(block, LAYOUT, N, "lim.faults.collect")
    message = str(caught.value)
    assert message.startswith("lim.faults.collect") and words in message and "\n" not in message


@pytest.mark.parametrize(("name", "severity"), [("nearest", 1), ("sight", 0.5)])
def test_kinds_that_a_layout_cannot_serve(name: str, severity: float) -> None:
    flat: Layout = flat_layout(12, 3)
    with pytest.raises(LimaskError, match="layout 'flat' does not say how far away a token's unit is"):
        read_faults({name: severity}, flat, 2, "lim.faults.collect")


def test_what_is_before_any_episode() -> None:
    faults = read_faults({"stale": [0, STEPS]}, LAYOUT, N, "lim.faults")
    assert faults is not None
    faults.check_length(STEPS + 1, "lim.faults")
    with pytest.raises(LimaskError, match=rf"lim.faults.stale={STEPS}: an episode has at most {STEPS} steps"):
        faults.check_length(STEPS, "lim.faults")


def test_an_empty_block_is_none() -> None:
    assert read_faults({}, LAYOUT, N, "lim.faults.collect") is None
