"""What is kept of a run, put back into objects built anew: they go on as if nothing had happened."""

from __future__ import annotations

import io
import random
from collections import defaultdict, deque
from typing import Any, NamedTuple

import numpy as np
import pytest
import test_faulty_training as parts
import torch
from torch import nn

from limask.errors import LimaskError
from limask.hosts.base import Host
from limask.hosts.snapshot import Snapshot, random_state, set_random_state

host = parts.host


def written(state: Any) -> Any:
    """As it is read from a file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


class Fixed(NamedTuple):
    number: int


class Part:
    """One of everything, counted from ``n`` on."""

    def __init__(self, n: int) -> None:
        self.number, self.real, self.text, self.nothing = n, n / 3, f"{n}", None if n else 0
        self.tensor, self.array = torch.full((2,), float(n)), np.full((2, 1), n, dtype=np.uint32)
        self.later = torch.ones(n) if n else None
        self.numbers, self.pair, self.known, self.last = [n] * (n + 1), (n, [n]), {n}, deque([n], maxlen=2)
        self.table = defaultdict(list, {n: [n], "both": [n]})
        self.layer = nn.Linear(1, 1)
        self.optimiser = torch.optim.Adam(self.layer.parameters())
        self.weights = list(self.layer.parameters())
        self.generator = torch.Generator().manual_seed(n)
        self.numpys = np.random.default_rng(n)
        self.fixed, self.code = Fixed(n), print
        self.whole = self  # a circle
        for _ in range(n):
            self.optimiser.zero_grad()
            self.layer(torch.ones(1)).sum().backward()
            self.optimiser.step()


def is_part(kind: type) -> bool:
    return kind is Part


def test_everything_is_put_back_in_place() -> None:
    torch.manual_seed(0)
    old, new = Part(3), Part(0)
    same = {name: getattr(new, name) for name in ("tensor", "numbers", "table", "last", "weights")}
    node = written(Snapshot(is_part).capture(old))
    draws = torch.rand(2, generator=old.generator), old.numpys.random(2)
    assert Snapshot(is_part).restore(new, node) is new
    for name in ("number", "real", "text", "nothing", "numbers", "pair", "known", "last", "table"):
        assert getattr(new, name) == getattr(old, name), name
    assert torch.equal(new.tensor, old.tensor) and new.later is not None and torch.equal(new.later, old.later)
    assert new.array.dtype == np.uint32 and np.array_equal(new.array, old.array)
    assert torch.equal(new.layer.weight, old.layer.weight)
    assert torch.equal(
        new.optimiser.state[new.layer.weight]["exp_avg"], old.optimiser.state[old.layer.weight]["exp_avg"]
    )
    assert torch.equal(torch.rand(2, generator=new.generator), draws[0])
    assert np.array_equal(new.numpys.random(2), draws[1])
    # What others hold is the same thing as before; what is made once is as it was made.
    assert all(getattr(new, name) is value for name, value in same.items())
    assert new.weights[0] is new.layer.weight and new.last.maxlen == 2 and new.fixed == Fixed(0)


def test_what_is_kept_does_not_change_later() -> None:
    part = Part(1)
    node = Snapshot(is_part).capture(part)
    part.tensor += 1
    part.numbers.append(9)
    with torch.no_grad():
        part.layer.weight += 1
    new = Part(0)
    Snapshot(is_part).restore(new, node)
    assert new.tensor.tolist() == [1.0, 1.0] and new.numbers == [1, 1]
    assert not torch.equal(new.layer.weight, part.layer.weight)


def test_other_builds_are_refused() -> None:
    node = Snapshot(is_part).capture(Part(1))
    wider, longer = Part(0), Part(0)
    wider.layer = nn.Linear(2, 1)
    with pytest.raises(LimaskError, match="Linear is of another build"):
        Snapshot(is_part).restore(wider, node)
    longer.weights = [*longer.weights, *longer.weights]
    with pytest.raises(LimaskError, match="a list of 2 objects was kept"):
        Snapshot(is_part).restore(longer, node)


def test_global_random_numbers() -> None:
    def draw() -> tuple[Any, ...]:
        return random.random(), np.random.random(), torch.rand(1).item()

    state = written(random_state())
    first = draw()
    assert draw() != first
    set_random_state(state)
    assert draw() == first


#: What a learner's memory is made of: each masker with a state, each autoencoder, faults in both places.
ARMS: list[tuple[str, dict[str, Any]]] = [
    ("qmix_fc", {}),
    ("qmix_lim", {}),
    ("qmix_lim", {"masker": {"replay": 0.5, "ratio": [0.0, 0.8], "span": 3}, "view": {"weight": 0.1}}),
    ("qmix_lim", {"faults": {"replay": 0.5, "dropout": [0.1, 0.5]}}),
    *(
        ("qmix_lim", {"masker": {"name": name, "random_until": 0, "random_anneal": 0, "random_finish": 0.25}})
        for name in ("td_ema", "value_saliency", "learning_progress", "coordination", "adversarial")
    ),
    ("qmix_entity_lim", {}),
    ("qmix_ma2e", {"team": {"pretrain_episodes": 8, "pretrain_updates": 2}}),
]


@pytest.mark.parametrize(("algorithm", "lim"), ARMS, ids=lambda part: str(part))
def test_a_learner_goes_on_digit_by_digit(host: Host, algorithm: str, lim: dict[str, Any]) -> None:
    def snapshot() -> Snapshot:
        return Snapshot(host.has, [old.logger, new.logger])

    def go_on(learner: Any) -> dict[str, Any]:
        learner.logger.stats.clear()
        learner.mac.latest = batch  # what a team's autoencoder is pretrained on
        for step in (3, 4, 5):
            learner.train(batch, 60_000 + step, 104 + step)
        return {**learner.logger.stats, **learner.agent.state_dict()}

    old = parts.make_learner(host, algorithm, **lim)
    batch = parts.make_batch(host, old)
    go_on(old)
    new = parts.make_learner(host, algorithm, **lim)
    with torch.no_grad():
        for weight in new.params:
            weight += torch.rand_like(weight)
    node, stream = written(snapshot().capture(old)), random_state()
    expected = go_on(old)
    snapshot().restore(new, node)
    set_random_state(stream)
    found = go_on(new)
    assert found.keys() == expected.keys() and len(expected) > 5
    for name, value in expected.items():
        is_same = torch.equal(value, found[name]) if torch.is_tensor(value) else value == found[name]
        assert is_same, name
