"""Frozen agents in environments that their host steps itself: foraging, in pymarlzooplus.

StarCraft II is in ``test_sc2``.
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from host_parts import RecordingLogger

import limask
from limask.cli import main
from limask.experiments import hosted
from limask.experiments.evaluation import evaluate_output
from limask.experiments.evaluation.battles import perturbations
from limask.experiments.evaluation.episode import play, think
from limask.experiments.evaluation.evaluate_output import Row
from limask.experiments.evaluation.perturb import Perturbation, PerturbedSensors
from limask.experiments.evaluation.runs import read_run
from limask.experiments.evaluation.trained import freeze
from limask.experiments.statistics import Interval
from limask.hosts.base import Host
from limask.layouts import tokens

pytest.importorskip("lbforaging")
KEY = "lbforaging:Foraging-2s-5x5-3p-2f-v3"
OTHER = "lbforaging:Foraging-2s-5x5-3p-1f-v3"
LOAD, N_STEPS, SEED, EPISODES = 5, 12, 7, 3


@pytest.fixture(scope="module")
def host() -> Host:
    return hosted.load_host()


@pytest.fixture(scope="module")
def runs(host: Host, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    return {name: save_run(host, root / name, name) for name in ("qmix_lim", "qmix")}


def save_run(host: Host, folder: Path, algorithm: str, **options: Any) -> Path:
    """What the host leaves of a run; its agents pick up food whenever they can, and their weights are random
    otherwise."""
    env_args = {"key": KEY, "time_limit": N_STEPS, "seed": 1}
    task = SimpleNamespace(**vars(hosted.arguments(host, algorithm, hosted.smax_shape("3m"))))
    task.env, task.env_args = "gymma", env_args
    shape = hosted.shape_of(host, task)
    args = hosted.arguments(host, algorithm, shape, t_max=1000, **options)
    torch.manual_seed(1)
    _, mac, learner = hosted.arm(host, args, shape)
    with torch.no_grad():
        getattr(mac.agent.fc2, "linear", mac.agent.fc2).bias[LOAD] = 0.3
    (folder / "models/1000").mkdir(parents=True)
    learner.save_models(str(folder / "models/1000"))
    absent = ("n_agents", "n_actions", "state_shape", "device")
    config = {key: value for key, value in vars(args).items() if key not in absent}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def evaluated(output: Path, *arguments: str) -> list[dict[str, str]]:
    options = ["--episodes", str(EPISODES), "--seed", str(SEED), "--output", str(output)]
    assert main(["evaluate", *arguments, *options]) == 0
    return list(csv.DictReader((output / "evaluate.csv").read_text().splitlines()))


def hosts_own_returns(host: Host, run: Path) -> dict[str, float]:
    """What the host logs of a test of the run's agents, without anything of limask's evaluation."""
    frozen = freeze(
        host, read_run(run), None, batch_size_run=1, test_nepisode=EPISODES, env_args={"seed": SEED}
    )
    runner = hosted.runner(host, "episode", frozen.args, frozen.shape, frozen.mac)
    runner.logger, runner.log_train_stats_t = RecordingLogger(float, np.floating), 0
    for _ in range(EPISODES):
        runner.run(test_mode=True)
    return {key: values[0] for key, values in runner.logger.stats.items()}


def test_severity_zero_is_the_hosts_own_test(host: Host, runs: dict[str, Path], tmp_path: Path) -> None:
    folders = [str(run) for run in runs.values()]
    plain = evaluated(tmp_path / "plain", *folders)
    for run, row in zip(runs.values(), plain, strict=True):
        own = hosts_own_returns(host, run)
        assert float(row["return"]) == pytest.approx(own["test_return_mean"], rel=1e-5)
        assert float(row["return_error"]) == pytest.approx(own["test_return_std"] / EPISODES**0.5, rel=1e-5)
        assert (row["environment"], row["map"], row["win_rate"], row["win_rate_high"]) == (KEY, KEY, "", "")
    assert {float(row["return"]) for row in plain} != {0.0}, "who picks nothing up shows little"
    for name in ("dropout", "noise", "stale"):
        rows = evaluated(tmp_path / name, *folders, "--perturb", name, "--severity", "0")
        assert [row | {"perturbation": "none"} for row in rows] == plain
    assert (tmp_path / "noise/evaluate.png").is_file()


def test_each_severity_begins_with_the_same_episodes(runs: dict[str, Path], tmp_path: Path) -> None:
    severities = ["--perturb", "dropout", "--severity", "0.9", "0"]
    rows = evaluated(tmp_path / "both", str(runs["qmix_lim"]), *severities)
    (alone,) = evaluated(tmp_path / "alone", str(runs["qmix_lim"]), "--perturb", "dropout", "--severity", "0")
    assert rows[1] == alone


def test_agents_get_and_remember_what_is_left_of_their_observations(
    host: Host, runs: dict[str, Path]
) -> None:
    run = read_run(runs["qmix_lim"])
    frozen = freeze(host, run, None, batch_size_run=1, test_nepisode=1, env_args={"seed": SEED})
    (nothing,), (all_lost,) = (perturbations(*how, frozen) for how in ((None, ()), ("dropout", (1.0,))))
    shown, hidden = (next(play(host, frozen, how, 1)) for how in (nothing, all_lost))
    others = tokens.hideable(frozen.layout)
    first = [tokens.visibility(episode.batch["obs"], frozen.layout) for episode in (shown, hidden)]
    assert first[0][..., others].any()
    assert not first[1][..., others].any()
    # Themselves they see as before, in the same field.
    own = tokens.features_of(~others, frozen.layout, torch.float32) > 0
    assert torch.equal(shown.batch["obs"][0, 0][:, own], hidden.batch["obs"][0, 0][:, own])
    assert shown.result.startswith("return ")
    values = think(frozen, hidden.batch).values
    best = values.masked_fill(hidden.batch["avail_actions"][0] == 0, -math.inf).argmax(dim=-1)
    assert np.array_equal(best.numpy(), hidden.taken), "they act on what they got"


class Recorder(Perturbation):
    """Keeps the first draw of each episode."""

    def __init__(self) -> None:
        self.drawn: list[float] = []

    def start(self, generators: Any) -> None:
        self.drawn += [float(generator.random()) for generator in generators]


def test_an_episodes_draws_are_of_its_seed_and_number() -> None:
    recorder = Recorder()
    mac: Any = SimpleNamespace(select_actions=lambda batch, t_ep, **options: t_ep, n_agents=3)
    sensors = PerturbedSensors(mac, recorder, SEED)
    batch: Any = SimpleNamespace(data=SimpleNamespace(transition_data={"obs": torch.zeros(1, 4, 3, 2)}))
    assert [sensors.select_actions(batch, t_ep=t, test_mode=True) for t in (0, 1, 2, 0, 1)] == [0, 1, 2, 0, 1]
    assert recorder.drawn == [np.random.default_rng([SEED, e]).random() for e in (0, 1)]
    assert sensors.n_agents == 3


def test_entity_agents_change_to_another_field(
    host: Host, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = evaluated(
        tmp_path / "out", str(save_run(host, tmp_path / "entity", "qmix_entity")), "--map", OTHER
    )
    assert (row["environment"], row["map"]) == (KEY, OTHER)
    belief = save_run(host, tmp_path / "belief", "qmix_lim", lim={"autoencoder": {"name": "belief"}})
    assert main(["evaluate", str(belief), "--map", OTHER, "--output", str(tmp_path / "no")]) == 2
    assert "train with lim.autoencoder.name=entity_belief" in capsys.readouterr().err


def test_noise_is_in_the_observations_own_unit(host: Host, runs: dict[str, Path]) -> None:
    """A field's rows and columns are no shares of anything: nothing may be clipped to [-1, 1]."""
    frozen = freeze(
        host, read_run(runs["qmix"]), None, batch_size_run=1, test_nepisode=1, env_args={"seed": 1}
    )
    (noise,) = perturbations("noise", (0.5,), frozen)
    noise.start([np.random.default_rng(e) for e in range(200)])
    obs = torch.full((200, 3, frozen.shape.obs_size), 4.0)
    noised = noise.observe(obs) - obs
    assert noised.std().item() == pytest.approx(0.5, rel=0.02)
    assert noised.mean().item() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--perturb nearest --severity 1", "--perturb nearest: layout 'lbf' does not say how far away"),
        ("--credit", "--credit: qmix_lim/lbforaging"),
        ("--tactics", "was trained in env=gymma, and battles can be looked into and branched on env=smax"),
        ("--perturb dead_teammate --severity 1", "--perturb dead_teammate: layout 'lbf' knows no action"),
        ("--perturb dropout --severity 2", "--perturb dropout --severity 2: expected a probability"),
        (
            "--map lbforaging:Foraging-9x9-9p-99f-v9",
            "--map lbforaging:Foraging-9x9-9p-99f-v9: env=gymma with",
        ),
    ],
)
def test_what_does_not_go_there(
    options: str, words: str, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(["evaluate", str(runs["qmix_lim"]), *options.split(), "--output", str(output)]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("limask: error: ") and words in told
    assert not output.exists()


def test_inspect_watch_and_load(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(runs["qmix_lim"]), "--output", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "battle of seed 10000, return " in told
    assert "food: " in told and "player: " in told
    assert main(["watch", str(runs["qmix_lim"]), "--output", str(tmp_path / "film")]) == 0
    assert "battle of seed 10000, return " in capsys.readouterr().out
    assert (tmp_path / "film/battle_10000.gif").read_bytes().startswith(b"GIF")
    team = limask.load(runs["qmix_lim"])
    shape = team.shape
    assert (shape.name, shape.n_agents, shape.limit) == (KEY, 3, N_STEPS)
    team.reset(2)
    observed = np.zeros((2, 3, shape.obs_size), np.float32)
    actions = team.act(observed, np.ones((2, 3, shape.n_actions)))
    assert actions.shape == (2, 3)
    assert set(team.beliefs()) == {"food", "player"}
    row = team.evaluate(episodes=2)
    assert not row.has_wins and row.episodes == 2


def test_curves_are_of_returns_where_an_environment_knows_no_wins() -> None:
    def row(run: str, won: float, returned: float) -> Row:
        interval = Interval(won, won, won)
        return Row(run, "a", "3m", 1, 10, "3m", "noise", 0.0, 8, interval, returned, 0.5)

    (point,) = evaluate_output.curves([row("one", math.nan, 2.0)])["a"]
    assert point == pytest.approx((0.0, 2.0, 2.0 - 0.98, 2.0 + 0.98))
    (point,) = evaluate_output.curves([row("one", math.nan, 2.0), row("two", 0.5, 4.0)])["a"]
    assert point == pytest.approx((0.0, 3.0, 2.0, 4.0))
    (point,) = evaluate_output.curves([row("one", 0.25, 2.0), row("two", 0.5, 4.0)])["a"]
    assert point == pytest.approx((0.0, 0.375, 0.25, 0.5))
