"""Agents that act on last sightings as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import host_parts
import pytest
import torch
from test_inference import OBS, N, assert_steps_agree, is_same, make_batch, make_learner, merged, weights

from limask.autoencoder.sightings import FADING
from limask.errors import LimaskError
from limask.hosts.base import Host
from limask.layouts import tokens

SIGHTINGS: dict[str, Any] = {
    "autoencoder": {"name": "sightings", "weight": 0.0, "warmup": 0}, "masker": {"name": "none"},
}  # fmt: skip
MASKED = merged(SIGHTINGS, {"masker": {"name": "random", "ratio": 0.5, "replay": 1.0}})


@pytest.fixture(scope="module")
def host() -> Host:
    return host_parts.load_host("pymarlzooplus")


@pytest.mark.parametrize("trunk", ["entity", "fc"])
def test_agents_get_what_they_last_saw(host: Host, trunk: str) -> None:
    """An enemy seen once, and lost for two steps: its features, the agent's own of then, and freshness."""
    agent = make_learner(host, **merged(SIGHTINGS, {"trunk": trunk})).agent
    layout, memory = agent.layout, agent.autoencoder
    obs = torch.rand(3, 1, OBS) + 0.1
    is_hidden = torch.zeros(3, 1, layout.n_tokens, dtype=torch.bool)
    is_hidden[1:, 0, 3] = True  # of two allies and three enemies the second enemy
    seen = tokens.hide(obs, is_hidden, layout)
    rest = torch.zeros(3, 1, agent.spec.input_size(OBS) - OBS)
    states, inferred = torch.zeros(1, memory.state_size), []
    for t in range(3):
        now, states = memory.infer_step(torch.cat([seen, rest], dim=-1)[t], states)
        inferred.append(now)
    width = layout.group("enemy").width + layout.group("own").width + 1
    parts = tokens.split(obs[0], layout)
    expected = torch.cat([parts["enemy"][0, 1], parts["own"][0, 0], torch.tensor([1.0])])
    for t, freshness in enumerate((0.0, FADING, FADING**2)):
        expected[-1] = freshness
        torch.testing.assert_close(inferred[t][0, 3 * width : 4 * width], expected * (t > 0))
        inferred[t][0, 3 * width : 4 * width] = 0
        assert not inferred[t].any(), "all others are in sight"
    # What it takes the enemy to be is where it stood.
    believed = memory.believed(states, seen[2])
    torch.testing.assert_close(tokens.split(believed, layout)["enemy"][0, 1], parts["enemy"][0, 1])
    dead = memory.infer_step(torch.zeros(1, agent.spec.input_size(OBS)), states)[0]
    assert not dead.any(), "the dead remember, and act no more"


@pytest.mark.parametrize("trunk", ["entity", "fc"])
def test_step_by_step_and_whole_episodes_agree(host: Host, trunk: str) -> None:
    assert_steps_agree(host, make_learner(host, **merged(SIGHTINGS, {"trunk": trunk})))


def test_only_q_learning_learns(host: Host) -> None:
    """It trains what lets the sightings in, which begins at zero; there is no reconstruction to log."""
    learner = make_learner(host, **MASKED)
    assert not list(learner.reconstruction.autoencoder.parameters())
    entries = [p for name, p in learner.agent.named_parameters() if "inferred" in name]
    assert entries and not any(entry.any() for entry in entries)
    for step in range(3):
        learner.train(make_batch(host, learner, seed=step), step, step)
    assert all(entry.any() for entry in entries)
    assert not any(name.startswith("rec_") for name in learner.logger.stats)


def test_masks_reach_q_learning(host: Host) -> None:
    """With masks in replay the update is another; with nothing to hide it is bit-equal to that without."""
    plain, masked, idle = (
        make_learner(host, **options)
        for options in (SIGHTINGS, MASKED, merged(MASKED, {"masker": {"ratio": 0.0}}))
    )
    for learner in (plain, masked, idle):
        learner.train(make_batch(host, learner), 0, 0)
    assert is_same(weights(plain.agent), weights(idle.agent))
    assert not is_same(weights(plain.agent), weights(masked.agent))


def test_the_view_loss_scores_sightings_as_a_reconstruction(host: Host) -> None:
    """How far tokens are from where they were last seen, in units of their standard deviation."""
    view = {"masker": {"name": "random", "ratio": 0.5}, "view": {"weight": 0.1}}
    learner = make_learner(host, **merged(SIGHTINGS, view))
    for step in range(3):
        learner.train(make_batch(host, learner, seed=step), step, step)
    stats = learner.logger.stats
    assert stats["rec_loss"][-1] > 0 and stats["view_loss"][-1] > 0
    assert stats["rec_grad_norm"] == [0.0] * 3


def test_checkpoints_keep_what_q_learning_has_learned(host: Host, tmp_path: Path) -> None:
    learner, twin = (make_learner(host, **MASKED) for _ in range(2))
    learner.train(make_batch(host, learner), 0, 0)
    learner.save_models(str(tmp_path))
    twin.load_models(str(tmp_path))
    assert is_same(weights(learner.agent), weights(twin.agent))
    with pytest.raises(LimaskError, match=r"was written with lim\.autoencoder\.name='sightings'"):
        make_learner(host, "qmix_entity").load_models(str(tmp_path))


def test_agents_of_a_smaller_team_are_a_beginning(host: Host, tmp_path: Path) -> None:
    """The layers that let sightings in are shared by kind."""
    from test_transfer import agent_on, save_run

    run = save_run(host, tmp_path / "run", "qmix_lim", lim=SIGHTINGS)
    before = torch.load(run / "models/1000/agent.th")
    agent = agent_on(host, "8m", "qmix_lim", **SIGHTINGS, start_from=str(run / "models"))
    for kind in ("ally", "enemy"):
        name = f"fc1.embed_inferred.{kind}.weight"
        assert torch.equal(agent.state_dict()[name], before[name])
    assert agent.spec.n_agents == 8 != N
