"""Agents that begin with what others have learned, in teams of other sizes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import host_parts
import pytest
import torch
from run_parts import save_run

from limask import resources
from limask.config import LimConfig
from limask.errors import LimaskError
from limask.experiments import hosted
from limask.hosts.base import Host
from limask.learning.checkpoints import forgetting_note
from limask.networks.transfer import Team, fitted
from limask.protocols import State

BELIEF = {"autoencoder": {"name": "entity_belief"}}


@pytest.fixture(scope="module")
def host() -> Host:
    return host_parts.load_host("pymarlzooplus")


@pytest.fixture(scope="module")
def runs(host: Host, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Trained on 3m."""
    root = tmp_path_factory.mktemp("runs")
    return {
        "entity": save_run(host, root / "entity", "qmix_entity"),
        "belief": save_run(host, root / "belief", "qmix_lim", lim=BELIEF),
        "fc": save_run(host, root / "fc", "qmix_fc"),
    }


def agent_on(host: Host, map_name: str, algorithm: str, **lim: Any) -> Any:
    shape = hosted.smax_shape(map_name)
    return hosted.arm(host, hosted.arguments(host, algorithm, shape, lim=lim), shape).mac.agent


def weights_of(run: Path) -> State:
    return dict(torch.load(run / "models/1000/agent.th"))


def test_of_four_times_as_many_the_sum_is_halved(host: Host) -> None:
    """Nothing else is: 2 enemies become 8 of them, and 28 allies become 7."""
    small, large = (agent_on(host, name, "qmix_entity") for name in ("3m", "8m"))
    team = Team(2, {"own": 1, "ally": 28, "enemy": 2})
    before = dict(small.state_dict())
    after = fitted(before, large, team)
    mixes = before["fc1.mix.weight"], after["fc1.mix.weight"]
    width = small.fc1.embed["enemy"].out_features
    enemies, allies = slice(-width, None), slice(-2 * width, -width)
    torch.testing.assert_close(mixes[1][:, enemies], mixes[0][:, enemies] * 0.5)
    torch.testing.assert_close(mixes[1][:, allies], mixes[0][:, allies] * 2)
    assert {name for name in after if after[name] is not before[name]} == {"fc1.mix.weight"}


def test_a_run_starts_from_agents_of_a_smaller_team(host: Host, runs: dict[str, Path]) -> None:
    before = weights_of(runs["belief"])
    agent = agent_on(host, "8m", "qmix_lim", **BELIEF, start_from=str(runs["belief"] / "models"))
    after = agent.state_dict()
    of_team = {"fc1.mix.weight", "autoencoder.trunk.mix.weight"}
    of_slots = {f"autoencoder.decoder.slots.{kind}" for kind in ("ally", "enemy")}
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed - of_slots == of_team
    for name in of_slots:
        assert torch.equal(after[name], before[name].mean(dim=0).expand_as(after[name]))
    inputs = torch.rand(8, agent.spec.input_size(agent.layout.obs_size))
    assert agent(inputs, agent.init_hidden().expand(8, -1))[0].shape == (8, 13)


def test_on_the_same_map_the_weights_are_those_of_the_checkpoint(host: Host, runs: dict[str, Path]) -> None:
    agent = agent_on(host, "3m", "qmix_lim", **BELIEF, start_from=str(runs["belief"] / "models/1000"))
    before, after = weights_of(runs["belief"]), agent.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in after)


def test_target_networks_start_there_too(host: Host, runs: dict[str, Path]) -> None:
    shape = hosted.smax_shape("8m")
    lim = {"start_from": str(runs["entity"] / "models/1000")}
    learner = hosted.arm(host, hosted.arguments(host, "qmix_entity", shape, lim=lim), shape).learner
    own, target = learner.mac.agent.state_dict(), learner.target_mac.agent.state_dict()
    assert torch.equal(own["fc1.embed.enemy.weight"], weights_of(runs["entity"])["fc1.embed.enemy.weight"])
    assert all(torch.equal(own[name], target[name]) for name in own)


def test_agents_that_limask_brings_are_a_start(host: Host) -> None:
    agent = agent_on(host, "8m", "qmix_lim_robust", start_from="qmix_lim_robust/3m")
    folder = resources.models_dir() / "qmix_lim_robust/3m/models/150035"
    weights = torch.load(folder / "agent.th", weights_only=True)
    assert torch.equal(agent.state_dict()["rnn.weight_hh"], weights["rnn.weight_hh"])


@pytest.mark.parametrize(
    ("start", "options", "is_told"),
    [
        ("qmix_lim_robust/3m", {"epsilon_start": 1.0}, True),
        ("qmix_lim_robust/3m", {"epsilon_start": 0.1}, False),
        ("qmix_lim_robust/3m", {}, False),  # policies do not act at random
        ("", {"epsilon_start": 1.0}, False),
    ],
)
def test_agents_that_would_forget_are_told_of(start: str, options: dict[str, float], is_told: bool) -> None:
    config = LimConfig.from_block({"start_from": start})
    said = forgetting_note(config, SimpleNamespace(**options))  # type: ignore[arg-type]
    assert said.startswith("lim.start_from with epsilon_start=1.0: ") == bool(said) == is_told


def test_what_nothing_can_start_from(host: Host, runs: dict[str, Path], tmp_path: Path) -> None:
    def fails(start_from: Path, words: str, **lim: Any) -> None:
        with pytest.raises(LimaskError, match=words):
            agent_on(host, "8m", "qmix_lim", start_from=str(start_from), **lim)

    own = {"autoencoder": {"name": "belief"}}
    fails(tmp_path / "nowhere", "nowhere': no file .*agent.th; expected a checkpoint")
    fails(runs["entity"], "no file .*agent.th; expected a checkpoint")
    fails(
        runs["entity"] / "models", "nothing for the agent's fc1.embed_inferred.*autoencoder, sizes", **BELIEF
    )
    fails(runs["fc"] / "models", "for the agent's fc1.*give it the checkpoint's trunk")
    fails(
        runs["belief"] / "models",
        "nothing for the agent.s autoencoder.fc1.*autoencoder, sizes and map",
        **own,
    )
    copy = tmp_path / "models/1000"
    copy.mkdir(parents=True)
    for name, text in (("agent.th", "x"), ("team.json", json.dumps({"n_agents": 3, "size": 4}))):
        (copy / name).write_text(text)
    fails(copy, "team.json is damaged")
    (copy / "team.json").write_text(json.dumps({"n_agents": 3, "counts": {}}))
    fails(copy, "agent.th is damaged")
