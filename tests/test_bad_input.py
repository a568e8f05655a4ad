"""Input on the edge, for every masker and every way to reconstruct: exact numbers or an error, never NaN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import host_parts
import options_parts
import pytest
import torch

from limask import layouts, masking
from limask.autoencoder import options
from limask.config.nested import flat, merged
from limask.errors import LimaskError
from limask.hosts.base import Host
from limask.layouts import Layout, TokenGroup, flat_layout, tokens
from limask.masking import REGISTRY, MaskView, hidden_tokens
from limask.networks.packing import Packing

N, OBS, ACTIONS, STATE = 3, 75, 8, 72  # of SMAX 3m
LATE = 10**6  # environment steps after which informed masks have taken over
TEAM = {
    "trunk": "fc",
    "autoencoder": {"name": "team"},
    "masker": {"ratio": 0.0},
    "team": {"joint": True, "pretrain_updates": 1},
}

MASKERS = list(REGISTRY)
AGENT_MASKERS = [name for name, masker in REGISTRY.items() if masker.hides == "agents"]

#: Every masker with the autoencoder ``entity``, and the other ways to reconstruct.
ARMS: dict[str, dict[str, Any]] = {
    **{masker: {"masker": {"name": masker}} for masker in MASKERS},
    "team targets": {"autoencoder": {"targets": "team"}},
    "state targets": {"autoencoder": {"targets": "state"}},
    "latent": {"autoencoder": {"latent": True, "targets": "team"}},
    "inference": {"autoencoder": {"use_inference": True}},
    "belief": {"autoencoder": {"name": "belief", "targets": "team"}},
    **{f"team {masker}": merged(TEAM, {"masker": {"name": masker}}) for masker in AGENT_MASKERS},
}


@pytest.fixture(scope="module")
def host() -> Host:
    return host_parts.load_host("pymarlzooplus")


def make_learner(
    host: Host, algorithm: str = "qmix_entity_lim", lim: dict[str, Any] | None = None, **args: Any
) -> Any:
    """A learner on the sizes of SMAX 3m; every call starts from the same weights."""
    torch.manual_seed(0)
    where = {"env_args": {"map_name": "3m"}, "n_actions": ACTIONS, "n_agents": N, "state_shape": STATE} | args
    return host_parts.make_learner(
        host, host_parts.make_args(host, algorithm, env="smax", lim=lim or {}, **where), OBS
    )


def nothing_seen(learner: Any, batch: Any) -> None:
    """All that could be hidden is out of sight; agents know of themselves alone."""
    layout = learner.agent.layout
    is_hideable = tokens.hideable(layout).expand(*batch["obs"].shape[:-1], -1)
    batch["obs"].copy_(tokens.hide(batch["obs"], is_hideable, layout))


def all_dead(learner: Any, batch: Any) -> None:
    """The dead see nothing, not even themselves."""
    batch["obs"].zero_()
    batch["state"].zero_()


def one_step(learner: Any, batch: Any) -> None:
    """Episodes of one transition."""
    batch["filled"][:, 2:] = 0


def dead_after_one_step(learner: Any, batch: Any) -> None:
    """Both, in episodes of different lengths."""
    batch["filled"][:2, 2:] = 0
    batch["obs"][:, 1:] = 0


EDGES = [nothing_seen, all_dead, one_step, dead_after_one_step]


@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: edge.__name__)
@pytest.mark.parametrize("arm", ARMS)
def test_no_nan_on_the_edge(host: Host, arm: str, edge: Any) -> None:
    learner = make_learner(host, lim=ARMS[arm])
    batch = host_parts.make_batch(host, learner.args, 8, 0, OBS)
    edge(learner, batch)
    for call in range(2):
        learner.train(batch, LATE + call, 200)
    stats = learner.logger.stats
    assert len(stats["loss"]) == 2
    assert all(torch.tensor(values).isfinite().all() for values in stats.values())
    own = learner.reconstruction.autoencoder.parameters()
    assert all(parameter.isfinite().all() for parameter in [*learner.params, *own])
    if edge is all_dead and not arm.startswith("team "):
        # Nothing to hide, nothing to reconstruct, and nothing learned from it.
        assert stats["mask_rate"] == stats["rec_loss"] == stats["rec_grad_norm"] == [0.0, 0.0]


@pytest.mark.parametrize("arm", ["inference", "belief", "team random_agent"])
@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: edge.__name__)
def test_acting_is_finite_on_the_edge(host: Host, arm: str, edge: Any) -> None:
    learner = make_learner(host, lim=ARMS[arm])
    batch = host_parts.make_batch(host, learner.args, 8, 0, OBS)
    edge(learner, batch)
    learner.mac.init_hidden(8)
    with torch.no_grad():
        assert all(learner.mac.forward(batch, t).isfinite().all() for t in range(3))
        packing = Packing(batch["filled"].squeeze(-1).bool())
        assert learner.mac.sequence_inputs(batch, packing).isfinite().all()


# -- ratio -------------------------------------------------------------------------------------------


def masks(name: str, ratio: float) -> torch.Tensor:
    """What the masker hides of 20 episodes in which everything is visible, once informed masks take part."""
    layout = Layout(
        "units",
        (
            TokenGroup("ally", 2, ("x", "y")),
            TokenGroup("enemy", 4, ("x", "y", "z")),
            TokenGroup("own", 1, ("x",), is_hideable=False),
        ),
    )
    shape = (20, 6, N, layout.n_tokens)
    draw = torch.Generator().manual_seed(3)
    signals = [torch.rand(size, generator=draw) for size in (shape[:3], shape, shape)]
    obs, ones = torch.rand((*shape[:3], layout.obs_size), generator=draw), torch.ones(shape, dtype=torch.bool)
    view = MaskView(obs, ones, ones[..., 0, 0], LATE, *signals)
    masker = masking.build(options_parts.config({"masker": {"name": name, "ratio": ratio}}), layout)
    return hidden_tokens(masker, view, tokens.hideable(layout), torch.Generator().manual_seed(0))


TOKEN_MASKERS = [name for name in REGISTRY if name not in (*AGENT_MASKERS, "none")]


@pytest.mark.parametrize("name", TOKEN_MASKERS)
def test_ratio_0_hides_nothing_and_nearly_1_nearly_all(name: str) -> None:
    assert not masks(name, 0.0).any()
    assert masks(name, 0.999)[..., :6].float().mean() > 0.97


@pytest.mark.parametrize("name", MASKERS)
def test_ratio_1_is_an_error(name: str) -> None:
    """Nothing would be left to infer from."""
    with pytest.raises(LimaskError, match=r"lim\.masker\.ratio=1\.0 .*below 1\.0"):
        options.read_options({"masker": {"name": name, "ratio": 1.0}})


# -- a team of one, and layouts that do not serve ----------------------------------------------------


@pytest.mark.parametrize("name", AGENT_MASKERS)
def test_a_team_of_one_has_nobody_to_hide(host: Host, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It learns as without masks: nothing is hidden, the reconstruction loss is 0."""
    unit, own = tuple("abcdefghijklm"), tuple("abcdefghij")
    groups = (
        TokenGroup("ally", 0, unit),
        TokenGroup("enemy", 3, unit, first_action=5),
        TokenGroup("own", 1, own, is_hideable=False),
    )
    alone = Layout("smax", groups)
    monkeypatch.setitem(layouts.REGISTRY, "smax", lambda env_args: alone)
    args = host_parts.make_args(
        host, "qmix_entity_lim", env="smax", n_actions=8, n_agents=1, lim={"masker": {"name": name}}
    )
    learner = host_parts.make_learner(host, args, alone.obs_size)
    learner.train(host_parts.make_batch(host, args, 8, 0, alone.obs_size), LATE, 0)
    stats = learner.logger.stats
    assert stats["mask_rate"] == stats["rec_loss"] == [0.0]
    assert all(torch.tensor(values).isfinite().all() for values in stats.values())


@pytest.mark.parametrize("name", AGENT_MASKERS)
def test_a_team_of_one_is_refused_by_autoencoder_team(host: Host, name: str) -> None:
    args = host_parts.make_args(
        host, "qmix_li_ma2e", n_agents=1, lim={"masker": {"name": name}, "layout": "flat"}
    )
    with pytest.raises(LimaskError, match="with a team of 1 agent: there is nobody to infer"):
        host_parts.make_learner(host, args, OBS)


@pytest.mark.parametrize("name", [*AGENT_MASKERS, "coordination"])
def test_maskers_of_teammates_need_to_know_teammates(name: str) -> None:
    config = options.read_options({"masker": {"name": name}})
    with pytest.raises(
        LimaskError, match=rf"lim\.masker\.name='{name}' on layout 'flat'.*set lim\.masker\.name='random'"
    ):
        options.resolve(config, "gymma", {}, flat_layout(12, 3).obs_size)


@pytest.mark.parametrize("name", [name for name in MASKERS if name not in AGENT_MASKERS])
def test_maskers_of_tokens_are_refused_by_autoencoder_team(name: str) -> None:
    with pytest.raises(LimaskError, match=rf"lim\.masker\.name='{name}' with lim\.autoencoder\.name='team'"):
        options.read_options(merged(TEAM, {"masker": {"name": name}}))


@pytest.mark.parametrize("name", [name for name in MASKERS if name != "none"])
def test_no_masker_goes_without_an_autoencoder(name: str) -> None:
    with pytest.raises(LimaskError, match=rf"lim\.masker\.name='{name}' with lim\.autoencoder\.name='none'"):
        options.read_options({"masker": {"name": name}, "autoencoder": {"name": "none", "weight": 0}})


@pytest.mark.parametrize(
    "lim",
    [
        {"autoencoder": {"targets": "team"}},
        {"autoencoder": {"name": "belief"}},
        {"autoencoder": {"use_inference": True}},
        {"autoencoder": {"latent": True}},
    ],
    ids=lambda lim: next(iter(flat(lim))),
)
def test_layouts_without_entities_are_refused_by_name(lim: dict[str, Any]) -> None:
    ((key, value),) = flat(lim).items()
    with pytest.raises(LimaskError, match=rf"lim\.{key}={value!r} on layout 'flat'.*set lim\.{key}="):
        options.resolve(options.read_options(merged(options_parts.PLAIN, lim)), "gymma", {}, 12)


# -- checkpoints of other runs -----------------------------------------------------------------------


@pytest.mark.parametrize("name", MASKERS)
def test_checkpoint_of_another_masker_is_refused(host: Host, name: str, tmp_path: Path) -> None:
    """And its own is taken."""
    make_learner(host, lim={"masker": {"name": name}}).save_models(str(tmp_path))
    make_learner(host, lim={"masker": {"name": name}}).load_models(str(tmp_path))
    other = "random" if name != "random" else "adversarial"
    learner = make_learner(host, lim={"masker": {"name": other}})
    assert_refused(learner, tmp_path, f"lim.masker.name={name!r}, and this run has lim.masker.name={other!r}")


@pytest.mark.parametrize(
    ("written", "read", "words"),
    [
        ({"trunk": "fc"}, {}, "the agent's fc1.embed.ally.weight"),
        ({}, {"trunk": "fc"}, "lim.trunk='fc'"),
        (
            {"autoencoder": {"use_inference": True}},
            {},
            "lim.autoencoder.use_inference=True, and this run has lim.autoencoder.use_inference=False",
        ),
        (
            {},
            {"autoencoder": {"use_inference": True}},
            "lim.autoencoder.use_inference=False, and this run has lim.autoencoder.use_inference=True",
        ),
        (
            {"autoencoder": {"latent": True}},
            {},
            "lim.autoencoder.latent=True, and this run has lim.autoencoder.latent=False",
        ),
        (
            {"autoencoder": {"name": "belief"}},
            {},
            "lim.autoencoder.name='belief', and this run has lim.autoencoder.name='entity'",
        ),
        (
            {},
            {"autoencoder": {"name": "belief"}},
            "lim.autoencoder.name='entity', and this run has lim.autoencoder.name='belief'",
        ),
        (
            {"autoencoder": {"name": "belief"}},
            {"autoencoder": {"name": "belief"}, "trunk": "fc"},
            "lim.trunk='fc'",
        ),
    ],
)
def test_checkpoint_of_another_agent_is_refused(
    host: Host, written: dict[str, Any], read: dict[str, Any], words: str, tmp_path: Path
) -> None:
    make_learner(host, lim=written).save_models(str(tmp_path))
    assert_refused(make_learner(host, lim=read), tmp_path, words)


@pytest.mark.parametrize(
    ("written", "read", "words"),
    [
        ("qmix_fc", "qmix_entity", "lim.trunk='entity'"),
        ("qmix_entity", "qmix_fc", "lim.trunk='fc'"),
        ("qmix_fc_lim", "qmix_entity", "lim.trunk='entity'"),
        (
            "qmix_lim",
            "qmix_entity",
            "lim.autoencoder.name='belief', and this run has lim.autoencoder.name='none'",
        ),
    ],
)
def test_checkpoint_of_another_trunk_is_refused_by_the_plain_learner(
    host: Host, written: str, read: str, words: str, tmp_path: Path
) -> None:
    make_learner(host, written).save_models(str(tmp_path))
    assert_refused(make_learner(host, read), tmp_path, words)


def test_checkpoint_of_another_size_is_refused(host: Host, tmp_path: Path) -> None:
    make_learner(host, hidden_dim=32).save_models(str(tmp_path))
    assert_refused(make_learner(host), tmp_path, "hidden_dim=64")


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({"mixer": "vdn"}, "for the mixer's"),
        ({"mixer": None}, "has no mixer.th: its agents learned without one, and this run has QMixer"),
        ({"mixing_embed_dim": 16}, "(QMixer): give it the checkpoint's mixer and map"),
    ],
)
def test_checkpoint_of_another_mixer_is_refused(
    host: Host, written: dict[str, Any], words: str, tmp_path: Path
) -> None:
    make_learner(host, **written).save_models(str(tmp_path))
    assert_refused(make_learner(host), tmp_path, words)


def test_a_damaged_checkpoint_is_refused_before_any_of_it_is_loaded(host: Host, tmp_path: Path) -> None:
    make_learner(host, "qmix_lim").save_models(str(tmp_path))
    learner = make_learner(host, "qmix_lim")
    files = sorted(tmp_path.glob("*.th"))
    assert [file.name for file in files] == ["agent.th", "autoencoder.th", "mixer.th", "opt.th"]
    for file in files:
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        before = [parameter.clone() for parameter in learner.params]
        with pytest.raises(LimaskError, match=f"{file.name} is damaged .*: use another checkpoint"):
            learner.load_models(str(tmp_path))
        assert all(torch.equal(a, b) for a, b in zip(before, learner.params, strict=True))
        file.write_bytes(whole)
    learner.load_models(str(tmp_path))


def test_a_run_that_is_killed_leaves_no_half_of_a_checkpoint(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of its files; the host has made the folder before. What is tried again takes its place."""
    learner, path, save = make_learner(host, "qmix_lim"), tmp_path / "1000", torch.save
    for n_written in range(4):
        path.mkdir(exist_ok=True)
        left = [n_written]

        def dying(*args: Any, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                Path(args[1]).write_bytes(b"half")
                raise KeyboardInterrupt
            save(*args)

        monkeypatch.setattr(torch, "save", dying)
        with pytest.raises(KeyboardInterrupt):
            learner.save_models(str(path))
        assert not any(path.iterdir()) and learner.checkpoint == "none written"
    monkeypatch.setattr(torch, "save", save)
    for _ in range(2):
        learner.save_models(str(path))
        names = {file.name for file in path.iterdir()}
        assert names == {"agent.th", "autoencoder.th", "mixer.th", "opt.th", "team.json"}
    assert [file.name for file in tmp_path.iterdir()] == ["1000"]
    make_learner(host, "qmix_lim").load_models(str(path))


def assert_refused(learner: Any, path: Path, words: str) -> None:
    """With these words on one line, and nothing has changed."""
    before = [parameter.clone() for parameter in learner.params]
    with pytest.raises(LimaskError) as caught:
        learner.load_models(str(path))
    assert words in str(caught.value)
    assert f"checkpoint {path} " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(before, learner.params, strict=True))
