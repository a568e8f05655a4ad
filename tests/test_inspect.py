"""Inspections of runs: the numbers by hand, what is hidden by which masker, the files and mistakes."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from run_parts import save_run

from limask import masking
from limask.cli import main
from limask.config import RENAMED
from limask.config.nested import flat, merged
from limask.experiments import hosted
from limask.experiments.evaluation import look
from limask.experiments.evaluation.inspection import inspect
from limask.experiments.evaluation.inspection_output import Inspection
from limask.experiments.evaluation.look import DRAWS
from limask.hosts.base import Host
from limask.layouts import tokens

N_AGENTS = 3  # on 3m
ENV_ARGS = {"map_name": "3m", "seed": 1, "sight_range": 0.6}
INFORMED: dict[str, Any] = {"masker": {"random_until": 0, "random_anneal": 0, "random_finish": 0.0}}
NAMES = [
    ["ally 2", "ally 3", "enemy 1", "enemy 2", "enemy 3"],
    ["ally 1", "ally 3", "enemy 1", "enemy 2", "enemy 3"],
    ["ally 1", "ally 2", "enemy 1", "enemy 2", "enemy 3"],
]


@pytest.fixture(scope="module")
def host() -> Host:
    return hosted.load_host()


@pytest.fixture(scope="module")
def run(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with random masks."""
    folder = tmp_path_factory.mktemp("random") / "sacred/qmix_entity_lim/3m/1"
    save_run(host, folder, "qmix_entity_lim", t_max=1000, env_args=ENV_ARGS)
    return folder.parents[3]


def looked_at(host: Host, folder: Path, masker: str, options: dict[str, Any]) -> Inspection:
    """An inspection of a run with ``masker``."""
    run = save_run(
        host,
        folder / "run",
        "qmix_entity_lim",
        env_args=ENV_ARGS,
        lim=merged({"masker": {"name": masker}}, options),
    )
    return inspect(run, seed=3, output=folder / "out")


@pytest.mark.parametrize("masker", masking.REGISTRY)
def test_every_maskers_rates_and_errors_are_where_they_can_be(
    host: Host, tmp_path: Path, masker: str
) -> None:
    seen = looked_at(host, tmp_path, masker, INFORMED)
    n_steps = len(seen.is_alive)
    assert seen.is_visible.shape == seen.mask_rate.shape == seen.error.shape == (n_steps, N_AGENTS, 5)
    assert seen.names == NAMES
    assert seen.is_visible.any() and not seen.is_visible.all()
    assert not seen.is_alive.all(), "somebody should have died"
    assert not seen.is_visible[~seen.is_alive].any()
    assert not seen.mask_rate[~seen.is_visible].any()
    assert (seen.mask_rate * DRAWS).round().div(DRAWS).equal(seen.mask_rate)
    is_scored = seen.is_visible if masker == "none" else seen.mask_rate > 0
    assert torch.equal(~seen.error.isnan(), is_scored)
    assert (seen.error[is_scored] > 0).all()
    rates = seen.mask_rate[seen.is_visible]
    if masker == "none":
        assert not rates.any()
    elif masker in ("random", "value_saliency", "learning_progress", "coordination"):
        # The share masker.ratio = 0.5 is hidden; scores decide of which tokens.
        assert rates.mean().item() == pytest.approx(0.5, abs=0.06)
        assert (rates.std() > 0.12) == (masker in ("value_saliency", "coordination"))


@pytest.mark.parametrize(
    "options",
    [
        {"autoencoder": {"targets": "team", "use_inference": True}},
        {"autoencoder": {"targets": "team", "latent": True}},
    ],
)
def test_errors_are_those_of_hidden_tokens_whatever_a_run_reconstructs(
    host: Host, tmp_path: Path, options: dict[str, Any]
) -> None:
    """What only teammates see is not in the picture."""
    seen = looked_at(host, tmp_path, "random", options)
    assert torch.equal(~seen.error.isnan(), seen.mask_rate > 0)
    assert seen.error[seen.mask_rate > 0].isfinite().all()


def test_belief_reconstructs_what_is_hidden_and_what_is_not(host: Host, tmp_path: Path) -> None:
    run = save_run(host, tmp_path / "run", "qmix_lim", env_args=ENV_ARGS)
    seen = inspect(run, seed=3, output=tmp_path / "out")
    assert seen.mask_rate[seen.is_visible].mean().item() == pytest.approx(0.5, abs=0.06)
    assert torch.equal(~seen.error.isnan(), seen.is_visible)
    assert (seen.error[seen.is_visible] > 0).all()


def test_td_errors_hide_the_same_teammates_from_everybody_in_every_draw(host: Host, tmp_path: Path) -> None:
    seen = looked_at(host, tmp_path, "td_threshold", INFORMED)
    hidden: dict[str, set[float]] = {}
    for agent, names in enumerate(seen.names):
        for k, name in enumerate(names):
            rates = seen.mask_rate[:, agent, k][seen.is_visible[:, agent, k]]
            hidden.setdefault(name, set()).update(rates.tolist())
    assert all(hidden[f"enemy {i}"] == {0.0} for i in (1, 2, 3))
    by_ally = [hidden[f"ally {i}"] for i in (1, 2, 3)]
    assert sorted(by_ally, key=str) in ([{0.0}, {0.0}, {1.0}], [{0.0}, {1.0}, {1.0}])


def test_masks_are_random_before_the_informed_ones_begin(host: Host, tmp_path: Path) -> None:
    """The checkpoint is of step 1,000."""
    seen = looked_at(host, tmp_path, "td_threshold", {"masker": {"random_until": 1000}})
    rates = seen.mask_rate[..., :2][seen.is_visible[..., :2]]
    assert 0.1 < rates.min() <= rates.max() < 0.9


def test_errors_by_hand(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain autoencoder sees what the agent sees when it acts, one step after the other."""
    kept: dict[str, Any] = {}
    watch = look.inspected

    def watching(frozen: Any, played: Any) -> Inspection:
        episode = played.batch
        agent, decoder = frozen.mac.agent, frozen.learner.reconstruction.autoencoder
        for group in decoder.layout.groups:  # as if a thousand tokens had been reconstructed
            standardiser = decoder.standardisers[group.kind]
            standardiser.count.fill_(1000.0)
            standardiser.mean.fill_(0.25)
            standardiser.variance.fill_(4.0)
        hidden, errors = agent.init_hidden().expand(N_AGENTS, -1), []
        with torch.no_grad():
            for t in range(episode.max_seq_length):
                _, hidden = agent(frozen.mac._build_inputs(episode, t).view(N_AGENTS, -1), hidden)
                parts = tokens.split(episode["obs"][0, t], decoder.layout)
                # (own - mean) / deviation, against the decoder's two layers
                base, first = decoder.from_hidden(hidden), 0
                for kind, count in (("ally", 2), ("enemy", 3)):
                    queries = decoder.queries[first : first + count]
                    out = decoder.to_features[kind](torch.relu(base.unsqueeze(1) + queries))
                    target = (parts[kind] - 0.25) / (4.0 + 1e-4) ** 0.5
                    errors.append((out - target).square().mean(dim=-1))
                    first += count
        by_step = [torch.cat(errors[i : i + 2], dim=-1) for i in range(0, len(errors), 2)]
        kept["errors"] = torch.stack(by_step)
        return watch(frozen, played)

    monkeypatch.setattr(look, "inspected", watching)
    seen = looked_at(host, tmp_path, "none", {})
    expected = kept["errors"].masked_fill(~seen.is_visible, torch.nan)
    torch.testing.assert_close(seen.error, expected, equal_nan=True, atol=1e-5, rtol=1e-4)


def test_files_of_the_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = {}
    for name, seed in (("one", 5), ("again", 5), ("other", 6)):
        assert main(["inspect", str(run), "--seed", str(seed), "--output", str(tmp_path / name)]) == 0
        texts[name] = (tmp_path / name / "inspect.csv").read_text()
    assert texts["one"] == texts["again"] != texts["other"]
    told = capsys.readouterr().out
    assert "qmix_entity_lim/3m/seed_1, step 1,000: battle of seed 5, " in told
    assert "ally: " in told and "enemy: " in told
    rows = list(csv.DictReader(texts["one"].splitlines()))
    n_steps = int(rows[-1]["time_step"]) + 1
    assert len(rows) == n_steps * N_AGENTS * 5
    assert [row["token"] for row in rows[:15]] == sum(NAMES, [])
    assert {row["agent"] for row in rows} == {"1", "2", "3"}
    for row in rows:
        assert (row["error"] == "") == (row["mask_rate"] == "0")
        assert row["is_visible"] == "1" or row["mask_rate"] == "0"
    picture = (tmp_path / "one/inspect.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    width, height = (int.from_bytes(picture[i : i + 4], "big") for i in (16, 20))
    assert width == 1300 and height > 400
    assert main(["inspect", str(run), "--output", str(tmp_path / "one")]) == 2
    assert "inspect.csv is there already" in capsys.readouterr().err
    assert (tmp_path / "one/inspect.csv").read_text() == texts["one"]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["inspect.csv", "inspect.png"]


def test_runs_that_cannot_be_inspected(
    host: Host, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(folder: Path, words: str, *options: str) -> None:
        assert main(["inspect", str(folder), "--output", str(tmp_path / "out"), *options]) == 2
        _, error, told = capsys.readouterr().err.partition("limask: error: ")
        assert error and words in told and told.count("\n") == 1
        assert not (tmp_path / "out").exists()

    fails(run, "--seed=-1: expected a number", "--seed", "-1")
    fails(tmp_path, "holds no run")
    for algorithm in ("qmix_entity", "qmix"):
        fails(save_run(host, tmp_path / algorithm, algorithm), "was trained with lim.autoencoder.name=none")
    copy = tmp_path / "copy"
    shutil.copytree(run / "sacred/qmix_entity_lim/3m/1", copy)
    autoencoder = copy / "models/1000/autoencoder.th"
    autoencoder.write_bytes(b"cut off")
    fails(copy, "models/1000/autoencoder.th is damaged")
    autoencoder.unlink()
    fails(copy, "has no autoencoder.th")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"env": "gymma"}))
    fails(copy, "env=gymma with env_args map_name='3m'")
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "models/1000/agent.th").unlink()
    fails(copy, "has no checkpoint")


def test_runs_of_before_options_were_grouped_are_read(host: Host, tmp_path: Path) -> None:
    """Their config holds the old names; what is hidden in them is what is hidden in a new one."""
    new = save_run(host, tmp_path / "new", "qmix_lim", env_args=ENV_ARGS)
    old = save_run(host, tmp_path / "old", "qmix_lim", env_args=ENV_ARGS)
    config = json.loads((old / "config.json").read_text())
    options = flat(config["lim"])
    names = {new: old for old, new in RENAMED.items()}
    names |= {"masker.name": "masker", "autoencoder.name": "autoencoder"}
    config["lim"] = {names.get(name, name): value for name, value in options.items()}
    assert "rec_warmup" in config["lim"] and config["lim"]["masker"] == "random"
    (old / "config.json").write_text(json.dumps(config))
    seen = [inspect(run, seed=3, output=tmp_path / f"out_{run.name}") for run in (new, old)]
    assert torch.equal(seen[0].mask_rate, seen[1].mask_rate)
    assert torch.equal(seen[0].error.nan_to_num(), seen[1].error.nan_to_num())
