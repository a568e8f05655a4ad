"""The reconstruction loss against numbers worked out by hand, and who gets a gradient from it."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from limask.autoencoder import EntityAutoencoder, Truth
from limask.autoencoder.belief import BeliefDecoder
from limask.autoencoder.losses import Standardiser, mean_squared
from limask.layouts import Layout, TokenGroup, token_starts, tokens

#: Added to a variance before its root is taken.
FLOOR = 1e-4

#: Two kinds of different width, and a token that is never scored.
LAYOUT = Layout(
    "small",
    (
        TokenGroup("enemy", 2, ("p", "q", "r")),
        TokenGroup("ally", 3, ("p", "q")),
        TokenGroup("own", 1, ("p",), is_hideable=False),
    ),
)


MODELS = {
    "entity": lambda: EntityAutoencoder(LAYOUT, hidden_dim=5, decoder_dim=4),
    "belief": lambda: BeliefDecoder(LAYOUT, 5),
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# --- Standardiser ---------------------------------------------------------------------


def test_standardiser_by_hand() -> None:
    """1, 3 and 5 have mean 3 and variance 8/3; the second feature never varies."""
    standardise = Standardiser(2)
    standardise.update(torch.tensor([[1.0, 7.0], [3.0, 7.0]]))
    assert standardise.mean.tolist() == [2.0, 7.0]
    assert standardise.variance.tolist() == [1.0, 0.0]
    standardise.update(torch.tensor([[5.0, 7.0]]))
    assert standardise.mean.tolist() == pytest.approx([3.0, 7.0])
    assert standardise.variance.tolist() == pytest.approx([8 / 3, 0.0], abs=1e-6)
    assert standardise.count.tolist() == [3, 3]
    assert standardise(torch.tensor([5.0, 7.0])).tolist() == pytest.approx(
        [2 / math.sqrt(8 / 3 + FLOOR), 0.0]
    )


def test_standardiser_agrees_with_numpy_over_batches() -> None:
    """However the values are divided, mean and variance are those of all of them together."""
    rng = np.random.default_rng(0)
    batches = [rng.normal(3.0, [0.1, 5.0, 1.0], size=(size, 3)) for size in (1, 40, 7, 1, 200)]
    standardise = Standardiser(3)
    for i, batch in enumerate(batches):
        standardise.update(torch.tensor(batch, dtype=torch.float32))
        seen = np.concatenate(batches[: i + 1])
        assert standardise.mean.numpy() == pytest.approx(seen.mean(axis=0), rel=1e-4)
        assert standardise.variance.numpy() == pytest.approx(seen.var(axis=0), rel=1e-3, abs=1e-5)
    assert standardise.count.tolist() == [249] * 3
    shown = standardise(torch.tensor(np.concatenate(batches), dtype=torch.float32)).numpy()
    assert shown.mean(axis=0) == pytest.approx([0.0] * 3, abs=1e-3)
    # The floor counts where the variance is small: here 0.01 in the first feature.
    assert shown.std(axis=0) == pytest.approx([math.sqrt(0.01 / (0.01 + FLOOR)), 1.0, 1.0], rel=2e-3)


def test_standardiser_without_values_stays_as_it_is() -> None:
    """A batch in which no token of a kind is scored must not turn its statistics into NaN."""
    standardise = Standardiser(2)
    standardise.update(torch.empty(0, 2))
    assert standardise.mean.tolist() == [0.0, 0.0]
    assert standardise.count.tolist() == [0, 0]
    standardise.update(torch.tensor([[1.0, 2.0], [5.0, 2.0]]))
    before = copy.deepcopy(standardise.state_dict())
    standardise.update(torch.empty(0, 2))
    assert all(torch.equal(before[key], value) for key, value in standardise.state_dict().items())


def test_standardiser_counts_what_is_known_of_each_feature() -> None:
    """A feature that nobody knows keeps its statistics, and what stands there spoils none."""
    standardise, alone = Standardiser(2), Standardiser(1)
    known = torch.tensor([[True, False], [True, True], [False, True]])
    standardise.update(torch.tensor([[1.0, 99.0], [3.0, 4.0], [99.0, 8.0]]), known)
    assert standardise.mean.tolist() == [2.0, 6.0]
    assert standardise.variance.tolist() == [1.0, 4.0]
    assert standardise.count.tolist() == [2, 2]
    standardise.update(torch.tensor([[5.0, 99.0]]), torch.tensor([[True, False]]))
    alone.update(torch.tensor([[1.0], [3.0], [5.0]]))
    assert standardise.count.tolist() == [3, 2]
    assert standardise.mean.tolist() == pytest.approx([alone.mean.item(), 6.0])
    assert standardise.variance.tolist() == pytest.approx([alone.variance.item(), 4.0])


def test_standardiser_forgets_beyond_its_horizon() -> None:
    """Of a target that drifts, 0 for long and then 1, the mean follows; without a horizon it is 0.09."""
    drifting, steady = Standardiser(1, horizon=10), Standardiser(1)
    for standardise in (drifting, steady):
        standardise.update(torch.zeros(1000, 1))
        for _ in range(10):
            standardise.update(torch.ones(10, 1))
    assert drifting.count.item() == 10
    assert drifting.mean.item() == pytest.approx(1 - 0.5**10)
    assert steady.mean.item() == pytest.approx(100 / 1100)


def test_standardiser_reads_checkpoints_with_one_count() -> None:
    """As they were written before features could be unknown."""
    standardise, older = Standardiser(2), Standardiser(2)
    standardise.update(torch.rand(5, 2))
    older.load_state_dict(standardise.state_dict() | {"count": torch.tensor(5.0)})
    assert older.count.tolist() == [5, 5]


def test_standardiser_of_a_constant_feature_is_finite() -> None:
    """A feature that never varies becomes 0, and rounding is not blown up to the size of a signal."""
    standardise = Standardiser(1)
    standardise.update(torch.full((100, 1), 0.3))
    assert standardise(torch.full((4, 1), 0.3)).abs().max() < 1e-4
    assert standardise(torch.tensor([[0.3 + 1e-5]])).abs().item() < 1e-2


def test_standardiser_is_kept_in_checkpoints() -> None:
    """A run that goes on must score against the same statistics."""
    standardise, restored = Standardiser(2), Standardiser(2)
    standardise.update(torch.rand(5, 2))
    restored.load_state_dict(standardise.state_dict())
    for one in (standardise, restored):
        one.update(torch.ones(3, 2))
    assert torch.equal(standardise(torch.zeros(1, 2)), restored(torch.zeros(1, 2)))


def test_standardiser_gets_no_gradient() -> None:
    """Statistics are no parameters, and targets are no predictions."""
    standardise = Standardiser(2)
    standardise.update(torch.rand(5, 2, requires_grad=True))
    assert list(standardise.parameters()) == []
    assert not standardise.mean.requires_grad
    assert not standardise.variance.requires_grad


# --- mean_squared ---------------------------------------------------------------------


def test_mean_squared_by_hand() -> None:
    """(1 + 4 + 9 + 16 + 25 + 0) / 6: every entry weighs the same, whatever the kind and its width."""
    errors = [torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0], [-4.0], [5.0], [0.0]])]
    assert mean_squared(errors).item() == pytest.approx(55 / 6)


def test_mean_squared_passes_over_empty_kinds() -> None:
    """A kind without a scored token takes no part in the mean."""
    assert mean_squared([torch.empty(0, 7), torch.tensor([[3.0]])]).item() == 9.0


def test_mean_squared_of_nothing_is_0_with_a_gradient_of_0() -> None:
    """A batch may hold nothing to score: the update then changes nothing."""
    weight = torch.ones(3, requires_grad=True)
    loss = mean_squared([torch.empty(0, 3) * weight, torch.empty(0, 3) + weight])
    assert loss.item() == 0.0
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [0.0, 0.0, 0.0]


def test_mean_squared_gradient_by_hand() -> None:
    """d/dx of (x² + y²) / 2 is x."""
    error = torch.tensor([[3.0, -4.0]], requires_grad=True)
    mean_squared([error]).backward()
    assert error.grad is not None
    assert error.grad.tolist() == [[3.0, -4.0]]


# --- EntityAutoencoder: numbers -------------------------------------------------------


def filled(parameter: torch.Tensor, values: list[float] | list[list[float]]) -> None:
    """Set a parameter."""
    with torch.no_grad():
        parameter.copy_(torch.tensor(values))


def test_loss_by_hand() -> None:
    """One token of one feature; the decoder predicts 2 · relu(h + query) − 1.

    Targets 1 and 3 have mean 2 and variance 1, so that standardised they are −s and s. With the query 0.5 the
    hidden state 1 predicts 2 and the hidden state −1, cut off by the relu, predicts −1.
    """
    layout = Layout("one", (TokenGroup("enemy", 1, ("p",)),))
    model = EntityAutoencoder(layout, hidden_dim=1, decoder_dim=1)
    filled(model.from_hidden.weight, [[1.0]])
    filled(model.from_hidden.bias, [0.0])
    filled(model.queries, [[0.5]])
    filled(model.to_features["enemy"].weight, [[2.0]])
    filled(model.to_features["enemy"].bias, [-1.0])
    s = 1 / math.sqrt(1 + FLOOR)
    loss = model.loss(
        torch.tensor([[1.0], [-1.0]]),
        Truth(torch.tensor([[1.0], [3.0]]), torch.tensor([[True], [True]])),
    ).loss
    assert loss.item() == pytest.approx(((2 + s) ** 2 + (-1 - s) ** 2) / 2, rel=1e-5)


def slow_loss(
    model: EntityAutoencoder | BeliefDecoder, hidden: torch.Tensor, obs: torch.Tensor, scored: torch.Tensor
) -> float:
    """The loss token by token in numpy; the statistics are those of this batch alone."""
    arrays = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    base = hidden.detach().numpy() @ arrays["from_hidden.weight"].T + arrays["from_hidden.bias"]
    everything = None
    if isinstance(model, BeliefDecoder):
        everything = np.maximum(base, 0) @ arrays["to_features.weight"].T + arrays["to_features.bias"]
    squares: list[float] = []
    feature = 0
    for group, first in zip(model.layout.groups, token_starts(model.layout), strict=True):
        targets, predictions = [], []
        for k in range(group.count):
            for row in range(len(obs)):
                if scored[row, first + k]:
                    start = feature + k * group.width
                    targets.append(obs[row, start : start + group.width].numpy())
                    if everything is not None:
                        predictions.append(everything[row, start : start + group.width])
                        continue
                    decoded = np.maximum(base[row] + arrays["queries"][first + k], 0)
                    weight = arrays[f"to_features.{group.kind}.weight"]
                    predictions.append(weight @ decoded + arrays[f"to_features.{group.kind}.bias"])
        feature += group.size
        if targets:
            target = np.stack(targets)
            target = (target - target.mean(axis=0)) / np.sqrt(target.var(axis=0) + FLOOR)
            squares.extend(np.square(np.stack(predictions) - target).ravel())
    return float(np.mean(squares))


@pytest.mark.parametrize("axes", [(12,), (2, 3, 2)], ids=["rows", "batch"])
def test_loss_agrees_with_a_slow_reading_of_the_formula(axes: tuple[int, ...]) -> None:
    """Each token is decoded with its own query from its own row, and scored on its own features."""
    model = EntityAutoencoder(LAYOUT, hidden_dim=5, decoder_dim=4)
    torch.nn.init.normal_(model.queries)
    hidden, obs = torch.randn(*axes, 5), torch.randn(*axes, LAYOUT.obs_size)
    is_scored = torch.rand(*axes, LAYOUT.n_tokens) < 0.5
    expected = slow_loss(model, hidden.view(12, 5), obs.view(12, -1), is_scored.view(12, -1))
    assert model.loss(hidden, Truth(obs, is_scored)).loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("axes", [(12,), (2, 3, 2)], ids=["rows", "batch"])
def test_loss_of_a_belief_agrees_with_a_slow_reading_of_the_formula(axes: tuple[int, ...]) -> None:
    """Each token has outputs of its own; tokens that no masker may hide have none, and never count."""
    model = BeliefDecoder(LAYOUT, 5)
    hidden, obs = torch.randn(*axes, 5), torch.randn(*axes, LAYOUT.obs_size)
    is_scored = (torch.rand(*axes, LAYOUT.n_tokens) < 0.5) & tokens.hideable(LAYOUT)
    expected = slow_loss(model, hidden.view(12, 5), obs.view(12, -1), is_scored.view(12, -1))
    twin = copy.deepcopy(model)
    scored = model.loss(hidden, Truth(obs, is_scored))
    assert scored.loss.item() == pytest.approx(expected, rel=1e-4)
    assert ((scored.error > 0) == is_scored).all()
    n_features = torch.tensor([3, 3, 2, 2, 2, 0])
    by_token = (scored.error * n_features).sum() / (is_scored * n_features).sum()
    assert scored.loss.item() == pytest.approx(by_token.item(), rel=1e-5)
    is_scored[..., 5] = True
    assert torch.equal(twin.loss(hidden, Truth(obs, is_scored)).loss, scored.loss)


def test_weights_of_a_belief_by_hand() -> None:
    """Mean of the squares of all features, each with its token's weight."""
    model = BeliefDecoder(LAYOUT, 5)
    twin = copy.deepcopy(model)
    hidden, obs = torch.randn(12, 5), torch.randn(12, LAYOUT.obs_size)
    is_scored = torch.ones(12, LAYOUT.n_tokens, dtype=torch.bool)
    weights = torch.rand(12, LAYOUT.n_tokens)
    scored = model.loss(hidden, Truth(obs, is_scored, weights=weights))
    of_features = (weights * torch.tensor([3, 3, 2, 2, 2, 0])).sum()
    expected = (scored.error * weights * torch.tensor([3, 3, 2, 2, 2, 0])).sum() / of_features
    assert scored.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.equal(scored.error, twin.loss(hidden, Truth(obs, is_scored)).error)


@pytest.mark.parametrize("kind", MODELS)
def test_unknown_features_do_not_count(kind: str) -> None:
    """Mean over the known features of the scored tokens; what stands in the others is of no consequence."""
    model = MODELS[kind]()
    hidden, obs = torch.randn(12, 5), torch.randn(12, LAYOUT.obs_size)
    is_scored = torch.zeros(12, LAYOUT.n_tokens, dtype=torch.bool)
    is_scored[:, :2] = True  # the enemies, of three features
    is_known = torch.ones(12, LAYOUT.obs_size, dtype=torch.bool)
    is_known[:6, 1] = is_known[3:, 5] = False
    twin, whole, plain = (copy.deepcopy(model) for _ in range(3))
    scored = model.loss(hidden, Truth(obs, is_scored, is_known=is_known))
    changed = obs.masked_fill(~is_known, 77.0)
    again = twin.loss(hidden, Truth(changed, is_scored, is_known=is_known))
    assert torch.equal(scored.loss, again.loss)
    assert torch.equal(scored.error, again.error)
    # By hand, from the mean error of each token: rows of 3 known features, and of 2.
    n_known = is_known[:, :6].view(12, 2, 3).sum(dim=-1)
    expected = (scored.error[:, :2] * n_known).sum() / n_known.sum()
    assert scored.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    everything = whole.loss(hidden, Truth(obs, is_scored, is_known=torch.ones_like(is_known)))
    assert everything.loss.item() == pytest.approx(
        plain.loss(hidden, Truth(obs, is_scored)).loss.item(), rel=1e-5
    )


def test_targets_are_standardised_by_what_was_seen_before() -> None:
    """The statistics run on: the same batch a second time is scored alike, one far away is not."""
    model = EntityAutoencoder(LAYOUT, hidden_dim=5, decoder_dim=4)
    hidden, obs = torch.zeros(30, 5), torch.randn(30, LAYOUT.obs_size)
    is_scored = torch.ones(30, LAYOUT.n_tokens, dtype=torch.bool)
    first = model.loss(hidden, Truth(obs, is_scored)).loss
    assert model.loss(hidden, Truth(obs, is_scored)).loss.item() == pytest.approx(first.item(), rel=1e-4)
    assert model.standardisers["ally"].count.tolist() == [2 * 3 * 30] * 2
    # Against what came before, a batch of threes lies 1.2 standard deviations off; alone it would be zeros.
    assert model.loss(hidden, Truth(torch.full_like(obs, 3.0), is_scored)).loss.item() > 1.2


# --- EntityAutoencoder: what is scored ------------------------------------------------


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, observations, and a mask that scores about half of the tokens."""
    torch.manual_seed(1)
    is_scored = torch.rand(20, LAYOUT.n_tokens) < 0.5
    return torch.randn(20, 5), torch.randn(20, LAYOUT.obs_size), is_scored


def features_of(token: int) -> slice:
    """The features of one token of `LAYOUT`, by hand."""
    return (slice(0, 3), slice(3, 6), slice(6, 8), slice(8, 10), slice(10, 12), slice(12, 13))[token]


@pytest.mark.parametrize(
    ("kind", "token"),
    [*(("entity", token) for token in range(6)), *(("belief", token) for token in range(5))],
)
def test_loss_sees_the_scored_targets_only(kind: str, token: int) -> None:
    """What stays visible is no target: changing it changes neither the loss nor the statistics."""
    hidden, obs, is_scored = batch()
    model = MODELS[kind]()
    for row_is_scored in (False, True):
        row = int((is_scored[:, token] == row_is_scored).nonzero()[0])
        changed = obs.clone()
        changed[row, features_of(token)] += 2.0
        # The statistics run on at each call: both start from the same ones.
        one, other = copy.deepcopy(model), copy.deepcopy(model)
        losses = (
            one.loss(hidden, Truth(obs, is_scored)).loss,
            other.loss(hidden, Truth(changed, is_scored)).loss,
        )
        assert torch.equal(*losses) != row_is_scored
        kept = [torch.equal(a, b) for a, b in zip(one.buffers(), other.buffers(), strict=True)]
        assert all(kept) != row_is_scored


@pytest.mark.parametrize("kind", MODELS)
def test_nothing_scored_is_a_loss_of_0_without_nan(kind: str) -> None:
    """Then nobody learns anything, and nobody is spoiled."""
    model = MODELS[kind]()
    hidden = torch.randn(6, 5, requires_grad=True)
    loss = model.loss(hidden, Truth(torch.randn(6, 13), torch.zeros(6, 6, dtype=torch.bool))).loss
    assert loss.item() == 0.0
    gradients = torch.autograd.grad(loss, [hidden, *model.parameters()], allow_unused=True)
    assert all(gradient is None or (gradient == 0).all() for gradient in gradients)
    assert all((buffer == 0).all() for buffer in model.standardisers.buffers())


@pytest.mark.parametrize("kind", MODELS)
def test_one_scored_token_is_enough(kind: str) -> None:
    """A single target has a variance of 0: finite all the same."""
    model = MODELS[kind]()
    hidden = torch.randn(6, 5, requires_grad=True)
    is_scored = torch.zeros(6, 6, dtype=torch.bool)
    is_scored[2, 3] = True
    loss = model.loss(hidden, Truth(torch.randn(6, 13), is_scored)).loss
    loss.backward()
    assert math.isfinite(loss.item())
    assert hidden.grad is not None
    assert torch.isfinite(hidden.grad).all()


# --- EntityAutoencoder: gradients and learning ----------------------------------------


def test_gradient_reaches_the_hidden_states_of_scored_rows_only() -> None:
    """The trunk learns from what it had to infer; the targets get no gradient."""
    model = EntityAutoencoder(LAYOUT, hidden_dim=5, decoder_dim=16)
    hidden = torch.randn(6, 5, requires_grad=True)
    obs = torch.randn(6, 13, requires_grad=True)
    is_scored = torch.zeros(6, 6, dtype=torch.bool)
    is_scored[1, 0] = is_scored[4, 2] = is_scored[4, 5] = True
    (for_hidden,) = torch.autograd.grad(model.loss(hidden, Truth(obs.detach(), is_scored)).loss, [hidden])
    assert (for_hidden != 0).any(dim=1).tolist() == [False, True, False, False, True, False]


def test_decoder_learns_a_fixed_batch() -> None:
    """With the hidden states given, the decoder alone halves the error, which starts near 1."""
    hidden, obs, is_scored = batch()
    # Half of what is to be reconstructed can be read off the hidden state.
    obs[:, :5] = hidden
    model = EntityAutoencoder(LAYOUT, hidden_dim=5, decoder_dim=32)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(150):
        loss = model.loss(hidden, Truth(obs, is_scored)).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert 0.8 < losses[0] < 1.6
    assert losses[-1] < 0.5 * losses[0]


def test_decoder_tells_tokens_apart() -> None:
    """From one and the same hidden state each token has its own content: its query says which is asked."""
    layout = Layout("pair", (TokenGroup("enemy", 2, ("p",)),))
    model = EntityAutoencoder(layout, hidden_dim=3, decoder_dim=16)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    hidden, obs = torch.zeros(8, 3), torch.tensor([[1.0, -1.0]]).repeat(8, 1)
    is_scored = torch.ones(8, 2, dtype=torch.bool)
    for _ in range(150):
        loss = model.loss(hidden, Truth(obs, is_scored)).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    # A decoder without queries could do no better than the mean, an error of 1.
    assert loss.item() < 0.05
