"""The ε-greedy selector makes the choice that the host's own makes, with the same probabilities."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import host_parts
import pytest
import torch


@pytest.fixture(scope="module")
def selector() -> Any:
    host = host_parts.load_host("pymarlzooplus")
    options = {"epsilon_start": 0.8, "epsilon_finish": 0.2, "epsilon_anneal_time": 100}
    args = SimpleNamespace(**options, evaluation_epsilon=0.0, action_selector_strategy="epsilon_greedy")
    return host.module("components.action_selectors").REGISTRY["lim_epsilon_greedy"](args)


def test_tests_are_greedy_among_available_actions(selector: Any) -> None:
    q_values = torch.tensor([[[3.0, 2.0, 1.0], [-5.0, -7.0, 9.0]]])
    avail = torch.tensor([[[0, 1, 1], [1, 1, 0]]])
    assert selector.select_action(q_values, avail, 0, test_mode=True).tolist() == [[1, 0]]
    assert selector.epsilon == 0.0


def test_epsilon_follows_the_hosts_schedule(selector: Any) -> None:
    q_values, avail = torch.zeros(1, 1, 2), torch.ones(1, 1, 2, dtype=torch.int)
    for t_env, epsilon in ((0, 0.8), (50, 0.5), (100, 0.2), (1000, 0.2)):
        selector.select_action(q_values, avail, t_env)
        assert selector.epsilon == pytest.approx(epsilon)


def test_frequencies_are_those_of_epsilon_greedy(selector: Any) -> None:
    torch.manual_seed(0)
    n = 40000
    q_values = torch.tensor([9.0, 1.0, 5.0, 0.0]).expand(n, 1, 4)
    avail = torch.tensor([0, 1, 1, 1]).expand(n, 1, 4)
    actions = selector.select_action(q_values, avail, 50).flatten()
    frequencies = torch.bincount(actions, minlength=4) / n
    # ε = 0.5: a third of it for each of three available actions, and the rest for the best of them.
    assert frequencies.tolist() == pytest.approx([0.0, 1 / 6, 2 / 3, 1 / 6], abs=0.01)
