"""The compiled acting step: the numbers of the step itself, whatever has happened to the parameters since."""

from __future__ import annotations

import copy
import logging
from typing import Any

import host_parts
import pytest
import torch
from test_agent import MMM, make_agent, random_inputs

from limask.acting.agent import LimAgent
from limask.acting.compiled import CompiledStep


def with_weights(agent: LimAgent) -> LimAgent:
    """Layers through which inferences enter begin at zero: here everything counts."""
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.uniform_(-0.3, 0.3)
    return agent


def levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Of what limask has logged: torch logs what it traces."""
    return [record.levelname for record in caplog.records if record.name == "limask.acting.compiled"]


def assert_same(agent: LimAgent, step: Any, inputs: torch.Tensor, hidden: torch.Tensor) -> None:
    for given, expected in zip(step(inputs, hidden), agent.step(inputs, hidden), strict=True):
        assert given.shape == expected.shape
        torch.testing.assert_close(given, expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_the_compiled_step_has_the_numbers_of_the_step(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With healers, allies, enemies and inferences; after the weights have changed; for other sizes too."""
    agent = with_weights(make_agent(MMM, autoencoder="entity_belief"))
    step = agent.compiled = CompiledStep(agent)
    inputs = random_inputs(agent, 6, agent.spec.n_agents).flatten(0, 1)
    start = agent.init_hidden().unsqueeze(0).expand(6, agent.spec.n_agents, -1)
    with caplog.at_level(logging.INFO, "limask.acting.compiled"):
        assert_same(agent, step, inputs, start)
    assert levels(caplog) == ["INFO"]
    hidden = agent.step(inputs, start)[1]
    assert hidden.abs().max() > 0.01
    n_steps = []
    monkeypatch.setattr(LimAgent, "step", lambda *args, own=LimAgent.step: n_steps.append(1) or own(*args))
    assert_same(agent, step, inputs, hidden)
    assert_same(with_weights(agent), step, inputs, hidden)
    agent.load_state_dict({name: values * 0.5 for name, values in agent.state_dict().items()})
    assert_same(agent, step, inputs, hidden)
    # As from a transposed view: the compiled function must not read it as if it were not.
    assert_same(agent, step, inputs.t().contiguous().t(), hidden)
    assert len(n_steps) == 4  # those that were compared with alone
    fewer = inputs[: agent.spec.n_agents]
    assert_same(agent, step, fewer, hidden[: agent.spec.n_agents])
    assert len(n_steps) == 6
    # A copy, such as a target network, has parameters of its own, and does not act.
    other = with_weights(copy.deepcopy(agent))
    assert other.compiled is not None and not torch.equal(other.rnn.weight_hh, agent.rnn.weight_hh)
    with monkeypatch.context() as patched:
        patched.setattr(torch._inductor, "aoti_compile_and_package", None)
        assert_same(other, other.compiled, inputs, hidden)
    assert_same(agent, step, inputs, hidden)


@torch.no_grad()
def test_where_nothing_compiles_the_step_itself_runs(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where there is no C++ compiler: said once, and the run goes on."""
    agent = make_agent()
    step = CompiledStep(agent)
    tried = []

    def without_compiler(*args: Any, **kwargs: Any) -> str:
        tried.append(args)
        raise RuntimeError("No working C++ compiler found\nfor reasons")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", without_compiler)
    inputs, hidden = random_inputs(agent, 2, 3).flatten(0, 1), torch.rand(6, 8, dtype=torch.float64)
    for _ in range(2):
        assert_same(agent, step, inputs, hidden)
    assert len(tried) == 1
    assert levels(caplog) == ["WARNING"]
    assert "RuntimeError: No working C++ compiler found" in caplog.text and "for reasons" not in caplog.text


def test_only_acting_is_compiled_and_only_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a real host: its controller acts by the compiled step, and a gradient goes through the other."""
    host = host_parts.load_host("pymarlzooplus")
    args = host_parts.make_args(host, "qmix_fc", lim={"compile": True})
    learner = host_parts.make_learner(host, args)
    batch = host_parts.make_batch(host, args, n_episodes=4)
    mac = learner.mac
    agent = mac.agent
    assert learner.target_mac.agent.compiled is not agent.compiled
    plain = host_parts.make_learner(host, host_parts.make_args(host, "qmix_fc")).mac.agent
    assert plain.compiled is None
    calls = []

    def compiled(inputs: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert not torch.is_grad_enabled()
        calls.append(inputs.shape)
        return agent.step(inputs, hidden)

    monkeypatch.setattr(agent, "compiled", compiled)
    mac.init_hidden(4)
    actions = host.actions_of(mac.select_actions(batch, t_ep=0, t_env=0, test_mode=True))
    assert actions.shape == (4, args.n_agents)
    assert calls == [(4 * args.n_agents, agent.spec.input_size(host_parts.OBS_SIZE))]
    mac.init_hidden(4)
    assert mac.forward(batch, 0).requires_grad
    learner.train(batch, 0, 0)
    assert len(calls) == 1
