"""What docs/method.md says of masks that reach the values, on examples small enough to be solved.

A battle of two steps. A hidden bit is drawn. First an agent stops, for 0.6, or goes on; then it names the
bit, for 1 if it is right. Who sees the bit should go on, and who does not should stop.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import pytest
import torch
from test_informed import LAYOUT, K, N
from test_sightings import SMALL

from limask import masking
from limask.autoencoder import Truth
from limask.autoencoder.belief import BeliefAutoencoder
from limask.autoencoder.entity_belief import EntityBeliefAutoencoder
from limask.config import LimConfig, MaskerOptions
from limask.layouts import tokens
from limask.learning.distillation import distillation_loss
from limask.masking import MaskView, hidden_tokens
from limask.networks.spec import AgentSpec

STOP, GO = "stop", "go"


class Transition(NamedTuple):
    """With what the agent saw, and how often it happens."""

    seen: Hashable
    action: Hashable
    reward: float
    then: Hashable | None
    weight: float


def battle(p_right: float, see: Callable[[int], Hashable], p_go: float = 0.5) -> list[Transition]:
    """Every transition of agents that name the right bit with ``p_right``, as an agent sees it to whom the
    bit looks like ``see``."""
    found = []
    for bit in (0, 1):
        first, second = ("first", see(bit)), ("second", see(bit))
        found.append(Transition(first, STOP, 0.6, None, 0.5 * (1 - p_go)))
        found.append(Transition(first, GO, 0.0, second, 0.5 * p_go))
        for named in (0, 1):
            chance = p_right if named == bit else 1 - p_right
            found.append(Transition(second, named, float(named == bit), None, 0.5 * p_go * chance))
    return found


def fixed_point(transitions: list[Transition]) -> dict[Hashable, dict[Hashable, float]]:
    """Values to which Q-learning comes that replays these transitions as often as their weights say."""
    values: dict[Hashable, dict[Hashable, float]] = defaultdict(lambda: defaultdict(float))
    for _ in range(5):  # the battle is over after two
        sums: dict[tuple[Hashable, Hashable], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for seen, action, reward, then, weight in transitions:
            following = 0.0 if then is None else max(values[then].values(), default=0.0)
            total = sums[seen, action]
            total[0] += weight * (reward + following)
            total[1] += weight
        for (seen, action), (total, weight) in sums.items():
            values[seen][action] = total / weight
    return values


def sees(bit: int) -> Hashable:
    return bit


def sees_nothing(bit: int) -> Hashable:
    return None


def test_masked_replay_values_what_an_agent_with_worse_sensors_gets() -> None:
    """From actions that do not hang on what is hidden: without the bit, naming it pays 1/2, so one stops."""
    values = fixed_point(battle(0.5, sees_nothing))
    assert values["second", None] == pytest.approx({0: 0.5, 1: 0.5})
    assert values["first", None] == pytest.approx({STOP: 0.6, GO: 0.5})
    full = fixed_point(battle(0.5, sees))
    assert full["first", 0] == pytest.approx({STOP: 0.6, GO: 1.0})


@pytest.mark.parametrize("epsilon", [0.05, 0.2, 0.5])
def test_actions_that_were_chosen_with_good_sensors_look_too_good(epsilon: float) -> None:
    values = fixed_point(battle(1 - epsilon, sees_nothing))
    assert values["second", None] == pytest.approx({0: 1 - epsilon, 1: 1 - epsilon})
    # It goes on where it should stop, unless exploration was wide.
    assert (values["first", None][GO] > values["first", None][STOP]) == (epsilon < 0.4)
    # Who saw nothing when playing, as with collect, names the bit right half of the time: no bias.
    assert fixed_point(battle(0.5, sees_nothing))["first", None][GO] == pytest.approx(0.5)


def distilled(views: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Values (V, A) at each of V hidden views that minimise the view loss to the ``teacher``'s (M, 1, A) of
    full views that look like ``views`` (M,)."""
    values = torch.zeros(int(views.max()) + 1, teacher.shape[-1], requires_grad=True)
    optimiser = torch.optim.SGD([values], lr=0.5)
    for _ in range(2000):
        optimiser.zero_grad()
        is_available, credit = torch.ones_like(teacher) > 0, torch.ones(teacher.shape[:2])
        loss = distillation_loss(values[views].unsqueeze(1), teacher, is_available, credit)
        loss.backward()
        optimiser.step()
    return values.detach()


TEACHER = torch.tensor([[[1.0, 0.0, 0.6]], [[0.0, 1.0, 0.6]], [[0.2, 0.4, 0.0]]])


def test_the_view_loss_is_the_teacher_where_the_history_tells_and_else_its_mean() -> None:
    told = distilled(torch.tensor([0, 1, 2]), TEACHER)
    torch.testing.assert_close(told, TEACHER.squeeze(1), atol=1e-3, rtol=0)
    aliased = distilled(torch.tensor([0, 0, 1]), TEACHER)
    torch.testing.assert_close(aliased[0], torch.tensor([0.5, 0.5, 0.6]), atol=1e-3, rtol=0)
    assert aliased[0].argmax() == 2, "what is best on average, though nowhere best"


def test_a_teacher_that_followed_would_forget_what_can_be_hidden() -> None:
    """Drawn to each other, the views come to have the same values, whatever the bit is."""
    full, hidden = TEACHER[:2].clone().requires_grad_(), torch.zeros(1, 1, 3, requires_grad=True)
    optimiser = torch.optim.SGD([full, hidden], lr=0.1)
    for _ in range(3000):
        optimiser.zero_grad()
        loss = (full - hidden).square().mean()
        loss.backward()
        optimiser.step()
    assert loss.item() < 1e-4
    assert (full[0] - full[1]).abs().max() < 0.01


def test_masks_weigh_the_histories_that_look_alike() -> None:
    """A bit that is hidden three times as often when it is 0 is valued as if it were 0 with 3/4."""
    transitions = [
        Transition(None, "name 0", reward=1.0, then=None, weight=3.0),
        Transition(None, "name 0", reward=0.0, then=None, weight=1.0),
    ]
    assert fixed_point(transitions)[None]["name 0"] == pytest.approx(0.75)


def test_a_share_of_random_masks_keeps_every_pattern_at_that_share() -> None:
    """Also patterns that an informed masker never hides: here it always hides the same token."""
    share, n_episodes = 0.25, 4000
    options = MaskerOptions("value_saliency", ratio=0.2, random_finish=share, random_until=0, random_anneal=0)
    mixed = masking.build(LimConfig(masker=options), LAYOUT)
    alone = masking.build(LimConfig(masker=MaskerOptions("random", ratio=0.2)), LAYOUT)
    shape = (n_episodes, 1, N, K)
    saliency = torch.full(shape, 1e-9)
    saliency[..., 0] = 1.0
    is_visible = torch.ones(shape, dtype=torch.bool)
    view = MaskView(
        torch.ones(*shape[:3], LAYOUT.obs_size), is_visible, torch.ones(shape[:2]).bool(), 1, None, saliency
    )
    chances = []
    for masker in (mixed, alone):
        generator = torch.Generator().manual_seed(0)
        is_hidden = hidden_tokens(masker, view, tokens.hideable(LAYOUT), generator)[..., :4].flatten(0, 2)
        pattern = (is_hidden * 2 ** torch.arange(4)).sum(dim=-1)
        chances.append(torch.bincount(pattern, minlength=16) / len(pattern))
    # Standard errors are below 0.005; the informed masks alone would leave most patterns at 0.
    assert (chances[0] > share * chances[1] - 0.01).all()
    assert (chances[1] > 0).all() and chances[0][1] > chances[1][1]


@pytest.mark.parametrize(
    ("kind", "errors"),
    [
        (BeliefAutoencoder, [0.15, 0.15, 0.15]),
        # By the last sighting alone the errors would be 0, √(1/6) and √(1/4).
        (EntityBeliefAutoencoder, [0.1, 0.8 * 6**-0.5, 0.8 * 4**-0.5]),
    ],
)
def test_what_is_denoised_is_the_mean_of_what_is_there_given_all_that_was_shown(
    kind: type[Any], errors: list[float]
) -> None:
    """Enemies stand still, at x and y of variance 1, and each is shown with noise of variance 1, anew at each
    step: after t steps the mean of what is there is the sum of what was shown over t + 1. A belief with
    weights for each slot learns that; one of entities keeps of each no more than its last sighting, and of
    what was before only what it has made of all of them together."""
    torch.manual_seed(0)
    n_steps, n_episodes = 3, 512
    belief = kind(AgentSpec(1, 3, 8, False, False, True), SMALL, 16, denoises=True)
    optimiser = torch.optim.Adam(belief.parameters(), lr=0.01)

    def episodes() -> tuple[torch.Tensor, torch.Tensor]:
        there = torch.cat([torch.randn(1, n_episodes, 1, 4), torch.ones(1, n_episodes, 1, 1)], dim=-1)
        noise = torch.randn(n_steps, n_episodes, 1, 5) * torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])
        return there.expand_as(noise), there + noise

    for _ in range(500):
        there, shown = episodes()
        states = belief.states_of(shown.flatten(0, 2), [n_episodes] * n_steps)
        truth = Truth(
            there.flatten(0, 1), torch.tensor([True, True, False]).expand(n_steps * n_episodes, 1, 3)
        )
        optimiser.zero_grad()
        belief.loss(states.unsqueeze(1), truth).loss.backward()
        optimiser.step()
    _, shown = episodes()
    inferred = belief.infer_episodes(shown.flatten(0, 1), [n_episodes] * n_steps)
    sums = shown[..., :4].cumsum(dim=0) / torch.arange(2.0, 5.0).view(-1, 1, 1, 1)
    error = (inferred.view_as(sums) - sums).square().mean(dim=(1, 2, 3)).sqrt()
    assert (error < torch.tensor(errors)).all(), error
