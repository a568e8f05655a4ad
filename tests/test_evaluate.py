"""Frozen agents: perturbations by hand, evaluations against the host's own, transfer to another team."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import host_parts
import numpy as np
import pytest
import torch
from run_parts import STOP, save_run

from limask.cli import main
from limask.envs.smax import Observation, SmaxVector, Transition
from limask.envs.vector_runner import TEST_SEEDS
from limask.errors import LimaskError
from limask.experiments import hosted
from limask.experiments.campaign.folder import Outcome
from limask.experiments.campaign.plan import Campaign
from limask.experiments.evaluation import evaluate, evaluate_output, perturb, trained
from limask.experiments.evaluation.evaluate_output import Row
from limask.experiments.evaluation.perturb import PerturbedBattles
from limask.experiments.evaluation.runs import read_run
from limask.experiments.evaluation.units import UNITS, Asked
from limask.experiments.statistics import Interval, wilson_interval
from limask.hosts.base import Host
from limask.layouts import smax_layout, tokens

N_AGENTS, N_ACTIONS = 3, 8  # on 3m
SEED, EPISODES = 10_000, 8
LAYOUT = smax_layout({"map_name": "3m"})
WIDTH, OWN = LAYOUT.groups[0].width, LAYOUT.groups[2].width


def make(name: str, severity: float, n_battles: int = 1, first: int = 0) -> perturb.Perturbation:
    """A perturbation whose battles have started."""
    perturbation = perturb.REGISTRY[name](severity, LAYOUT, N_AGENTS, 9)
    perturbation.start([np.random.default_rng([SEED, first + e]) for e in range(n_battles)])
    return perturbation


def observation(n_battles: int = 1) -> torch.Tensor:
    """All features 0.1, but agent 0 does not see ally 1, and agent 2 is dead."""
    obs = torch.full((n_battles, N_AGENTS, LAYOUT.obs_size), 0.1)
    obs[:, 0, WIDTH : 2 * WIDTH] = 0
    obs[:, 2] = 0
    return obs


# -- perturbations ---------------------------------------------------------------------------------------


def test_noise_has_its_deviation_on_what_is_shown_and_nothing_elsewhere() -> None:
    obs = observation(200)
    noised = make("noise", 0.05, 200).observe(obs)
    is_shown = obs != 0
    assert not noised[~is_shown].any()
    noise = (noised - obs)[is_shown]
    assert noise.std().item() == pytest.approx(0.05, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=0.001)
    wild = make("noise", 50.0, 200).observe(obs)
    assert wild.abs().max() == 1
    assert not wild[~is_shown].any()


def test_dropout_loses_other_units_each_step_anew_and_never_the_agents_own_features() -> None:
    obs = observation(500)
    lost = {}
    for severity in (0.0, 0.3, 0.6, 1.0):
        perturbation = make("dropout", severity, 500)
        first, second = (perturbation.observe(obs) for _ in range(2))
        assert torch.equal(first[..., -OWN:], obs[..., -OWN:])
        lost[severity] = tokens.visibility(obs, LAYOUT) & ~tokens.visibility(first, LAYOUT)
        share = lost[severity].sum() / tokens.visibility(obs, LAYOUT)[..., :-1].sum()
        assert share.item() == pytest.approx(severity, abs=0.02)
        assert torch.equal(first, second) == (severity in (0.0, 1.0))
        kept = first[first != obs]
        assert not kept.any(), "a token is shown whole or not at all"
    assert not (lost[0.3] & ~lost[0.6]).any(), "more severity is more of the same draws"


def test_sight_hides_who_stands_at_the_range_or_farther() -> None:
    obs = observation()
    enemy = slice(2 * WIDTH + 1, 2 * WIDTH + 3)  # position of the first enemy
    obs[:, 0, enemy] = torch.tensor([0.3, 0.4])  # distance 0.5; all others stand at 0.14
    near, at, far = (make("sight", severity).observe(obs) for severity in (0.49, 0.5, 0.9))
    assert torch.equal(near, obs)
    assert tokens.visibility(at, LAYOUT)[0, 0].tolist() == [True, False, False, True, True, True]
    assert tokens.visibility(far, LAYOUT)[0, 0].tolist() == [False] * 5 + [True]


def test_sight_shows_whom_the_game_shows_at_a_smaller_range() -> None:
    full, small = (SmaxVector("3m", range(EPISODES), sight_range=factor).reset() for factor in (1.0, 0.2))
    seen = make("sight", 0.8, EPISODES).observe(torch.from_numpy(full.obs))
    visible = [tokens.visibility(obs, LAYOUT) for obs in (torch.from_numpy(full.obs), seen)]
    assert EPISODES * N_AGENTS < visible[1].sum() < visible[0].sum()
    assert torch.equal(visible[1], tokens.visibility(torch.from_numpy(small.obs), LAYOUT))


def test_dead_teammates_stop_and_the_others_act_as_they_chose() -> None:
    actions = np.full((50, N_AGENTS), 6)
    taken = {severity: make("dead_teammate", severity, 50).act(actions) for severity in (0, 1, 2)}
    for severity, by_battle in taken.items():
        assert ((by_battle == STOP).sum(axis=1) == severity).all()
        assert set(by_battle[by_battle != STOP]) <= {6}
    assert (taken[2][taken[1] == STOP] == STOP).all(), "more severity is more of the same draws"
    assert len(set(np.argmax(taken[1] == STOP, axis=1))) == N_AGENTS, "not always the same agent"
    perturbation = make("dead_teammate", 1, 50)
    assert np.array_equal(perturbation.act(actions), perturbation.act(actions))


@pytest.mark.parametrize("name", ["noise", "dropout"])
def test_a_battles_draws_do_not_depend_on_those_beside_it(name: str) -> None:
    together, alone = make(name, 0.3, 8), make(name, 0.3, 1, first=5)
    for _ in range(3):
        assert torch.equal(together.observe(observation(8))[5:6], alone.observe(observation(1)))


def test_noise_changes_what_is_observed_and_not_the_battle() -> None:
    battles = SmaxVector("3m", [0] * EPISODES)
    perturbed = [
        PerturbedBattles(battles, perturb.REGISTRY["noise"](severity, LAYOUT, N_AGENTS, 200), SEED)
        for severity in (0, 0.2)
    ]
    fights = []
    for env in perturbed:
        seen = env.reset()
        assert seen.avail_actions[..., STOP].all()
        steps = [env.step(np.full((EPISODES, N_AGENTS), 1)) for _ in range(3)]
        fights.append([(seen, np.zeros(EPISODES)), *((step.observation, step.reward) for step in steps)])
    for (plain, reward), (noised, same_reward) in zip(*fights, strict=True):
        assert np.array_equal(plain.state, noised.state)
        assert np.array_equal(plain.avail_actions, noised.avail_actions)
        assert np.array_equal(reward, same_reward)
        assert not np.array_equal(plain.obs, noised.obs)


def test_every_battle_has_a_seed_of_its_own_however_long_those_before_it_lasted() -> None:
    class Battles:
        batch_size = 2

        def __init__(self) -> None:
            self.seeds: list[list[int]] = []

        def seed(self, seeds: list[int]) -> None:
            self.seeds.append(seeds)

        def reset(self) -> Observation:
            return Observation(np.zeros(1), observation(2).numpy(), np.zeros(1))

        def step(self, actions: np.ndarray) -> Transition:
            return Transition(self.reset(), np.zeros(2), np.zeros(2), {})

    shown = []
    for n_steps in (1, 5):
        battles: Any = Battles()
        env = PerturbedBattles(battles, perturb.REGISTRY["noise"](0.1, LAYOUT, N_AGENTS, 200), SEED)
        env.reset()
        for _ in range(n_steps):
            env.step(np.zeros((2, N_AGENTS)))
        shown.append(env.reset().obs)
        assert battles.seeds == [[SEED, SEED + 1], [SEED + 2, SEED + 3]]
    assert np.array_equal(*shown)


def test_what_the_command_names_is_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(UNITS) == list(perturb.REGISTRY)
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert f"--perturb {{{','.join(perturb.REGISTRY)}}}" in told
    assert "nearest: nearest enemies in sight that are never seen" in told


# -- evaluations -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def host() -> Host:
    return hosted.load_host()


@pytest.fixture(scope="module")
def runs(host: Host, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each trunk and one of the host's own agents, as ``limask run`` or a campaign leaves them."""
    root = tmp_path_factory.mktemp("runs")
    save_run(host, root / "run/sacred/qmix_entity/3m/1", "qmix_entity", t_max=1000)
    save_run(host, root / "own/sacred/qmix/3m/1", "qmix", t_max=1000)
    attempt = root / "runs/flat/easy/seed_1/attempt_1"
    save_run(host, attempt / "results/sacred/qmix_fc/3m/1", "qmix_fc", t_max=5000)
    (attempt / "run.json").write_text(json.dumps({"run": "flat/easy/seed_1", "host": "pymarlzooplus"}))
    return {"entity": root / "run", "fc": attempt, "own": root / "own"}


def run_evaluate(runs: list[Path], output: Path | None, **options: Any) -> list[Row]:
    """``evaluate`` with eight battles."""
    asked = [Asked(options.pop("perturb", None), options.pop("severities", ()))]
    defaults: dict[str, Any] = {"map_name": None, "episodes": EPISODES, "seed": SEED, "output": output}
    return evaluate.evaluate(runs, options.pop("asked", asked), **{**defaults, **options})


class HostsLogger(host_parts.RecordingLogger):
    """Also stands for the parts of the host's logger that only its own loop calls."""

    def log_stat(self, key: str, value: float, t: int, to_sacred: bool = True) -> None:
        super().log_stat(key, float(value), t)

    def print_recent_stats(self) -> None:
        pass


def hosts_own_evaluation(host: Host, run: Path) -> dict[str, float]:
    """What the host logs of its first test when it loads the checkpoint itself, as ``evaluate=True`` does."""
    (config,) = run.glob("**/config.json")
    options = json.loads(config.read_text()) | {
        "evaluate": True,
        "checkpoint_path": str(config.parent / "models"),
    }
    options |= {"batch_size_run": EPISODES, "test_nepisode": EPISODES, "buffer_size": 8, "batch_size": 8}
    options["runner"] = "vector"
    options["env_args"]["seed"] = SEED - TEST_SEEDS  # its tests play the battles of seeds so far above
    logger = HostsLogger()
    args = SimpleNamespace(**options, device="cpu", results_path="", unique_token="")
    host.module("run").run_sequential(args, logger)
    return {key: values[0] for key, values in logger.stats.items()}


def test_severity_zero_is_the_hosts_own_evaluation(host: Host, runs: dict[str, Path], tmp_path: Path) -> None:
    plain = run_evaluate(list(runs.values()), tmp_path / "plain")
    for run, row in zip(runs.values(), plain, strict=True):
        own = hosts_own_evaluation(host, run)
        assert row.win_rate.value == own["test_battle_won_mean"]
        assert row.mean_return == own["test_return_mean"] > 1
        assert row.return_error == pytest.approx(own["test_return_std"] / EPISODES**0.5)
        assert row.return_error > 0, "battles that all go the same way would show little"
    for name in perturb.REGISTRY:
        rows = run_evaluate(list(runs.values()), tmp_path / name, perturb=name, severities=(0,))
        assert [row._replace(perturbation="none") for row in rows] == plain


def test_several_perturbations_in_one_call(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each has the numbers that it has by itself; a campaign's folder stands for its runs that have ended."""
    root = tmp_path / "campaign"
    ended = root / "runs/flat/3m/seed_1/attempt_1"
    shutil.copytree(runs["fc"], ended)
    campaign = {
        "host": "pymarlzooplus", "t_max": 5000, "test_interval": 1000, "thresholds": [0.5], "seeds": [1, 2],
        "arms": {"flat": {"config": "qmix_fc"}},
        "environments": {"3m": {"env_config": "smax", "env_args": {"map_name": "3m"}}},
    }  # fmt: skip
    (root / "campaign.json").write_text(json.dumps(Campaign.from_block(campaign).to_block()))
    asked = [Asked("dropout", (0.0, 0.9)), Asked("nearest", (1.0,))]
    with pytest.raises(LimaskError, match="no run of this campaign has ended and left a checkpoint"):
        run_evaluate([root], tmp_path / "none")
    (ended / "DONE").write_text(json.dumps(Outcome("finished", 1.0)._asdict()))
    other = root / "runs/flat/3m/seed_2/attempt_1"
    shutil.copytree(ended, other)
    for models in other.rglob("models"):
        shutil.rmtree(models)
    together = run_evaluate([root], None, asked=asked)
    printed, told = capsys.readouterr()
    assert f"left out: {other} has no checkpoint" in told
    assert "goes wrong" in printed and "dropout 0.9" in printed and "nearest 1" in printed
    alone = [row for each in asked for row in run_evaluate([ended], tmp_path / each.perturb, asked=[each])]
    assert together == alone
    assert len({row.win_rate.value for row in together}) > 1 or len({r.mean_return for r in together}) > 1
    assert (root / "evaluation/evaluate.png").read_bytes()[:4] == b"\x89PNG"
    assert evaluate_output.read_csv(root / "evaluation/evaluate.csv")[0].arm == "flat"


def test_curves_of_two_arms_from_the_command(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "evaluate",
        str(runs["entity"]),
        str(runs["fc"]),
        "--perturb",
        "dropout",
        "--severity",
        "0",
        "1",
    ]
    command += ["--episodes", str(EPISODES)]
    texts = []
    for output in (tmp_path / "one", tmp_path / "two"):
        assert main([*command, "--output", str(output)]) == 0
        texts.append((output / "evaluate.csv").read_text())
    assert texts[0] == texts[1], "the same command gives the same numbers"
    told = capsys.readouterr()
    assert "flat/easy/seed_1: its last checkpoint is of step 1,000, and its t_max is 5,000" in told.err
    rows = list(csv.DictReader(texts[0].splitlines()))
    assert [(row["arm"], row["environment"], row["severity"], row["steps"]) for row in rows] == [
        ("qmix_entity", "3m", "0", "1000"),
        ("qmix_entity", "3m", "1", "1000"),
        ("flat", "easy", "0", "1000"),
        ("flat", "easy", "1", "1000"),
    ]
    assert rows[0]["return"] != rows[1]["return"]
    assert rows[2]["return"] != rows[3]["return"]
    picture = (tmp_path / "one/evaluate.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert [int.from_bytes(picture[i : i + 4], "big") for i in (16, 20)] == [800, 500]
    (tmp_path / "one/evaluate.csv").write_text("old")
    assert main([*command, "--output", str(tmp_path / "one")]) == 2
    assert "evaluate.csv is there already" in capsys.readouterr().err
    assert (tmp_path / "one/evaluate.csv").read_text() == "old"
    assert main([*command, "--output", str(tmp_path / "one"), "--force"]) == 0
    assert (tmp_path / "one/evaluate.csv").read_text() == texts[0]


def test_a_curve_is_the_mean_of_an_arms_runs_and_its_band_their_range() -> None:
    def row(arm: str, run: str, severity: float, win_rate: float, environment: str = "3m") -> Row:
        interval = Interval(win_rate, win_rate - 0.1, win_rate + 0.1)
        return Row(run, arm, environment, 1, 10, "3m", "noise", severity, 8, interval, 0.0, 0.0)

    rows = [
        row("a", "a1", 0.5, 0.2),
        row("a", "a1", 0.0, 0.8),
        row("a", "a2", 0.0, 0.6),
        row("b", "b1", 0.0, 0.5),
    ]
    curves = evaluate_output.curves(rows)
    assert list(curves) == ["a", "b"]
    assert [point.severity for point in curves["a"]] == [0.0, 0.5]
    assert curves["a"][0] == pytest.approx((0.0, 0.7, 0.6, 0.8))
    assert curves["a"][1] == pytest.approx((0.5, 0.2, 0.1, 0.3))
    assert curves["b"] == [(0.0, 0.5, 0.4, 0.6)]
    apart = evaluate_output.curves([*rows, row("a", "a3", 0.0, 0.1, "5m")])
    assert list(apart) == ["a, trained on 3m", "b, trained on 3m", "a, trained on 5m"]


def test_wilson_interval() -> None:
    # None of ten: z² / (n + z²). Half of ten: 1/2 ± z / (2 · sqrt(n + z²)).
    assert wilson_interval(0.0, 10) == pytest.approx((0.0, 0.0, 3.8415 / 13.8415), abs=1e-4)
    assert wilson_interval(0.5, 10) == pytest.approx((0.5, 0.5 - 0.26341, 0.5 + 0.26341), abs=1e-4)
    assert wilson_interval(1.0, 10) == pytest.approx((1.0, 10 / 13.8415, 1.0), abs=1e-4)


def test_nothing_is_compiled_for_an_evaluation(host: Host, runs: dict[str, Path]) -> None:
    """It would take longer than most evaluations do; of the host's own agents nothing of it is asked."""
    run = read_run(runs["entity"])
    compiling = run._replace(config={**run.config, "lim": {**run.config["lim"], "compile": True}})
    assert trained.freeze(host, compiling, None, env_args={"seed": SEED}).mac.agent.compiled is None
    own = trained.freeze(host, read_run(runs["own"]), None, env_args={"seed": SEED})
    assert not hasattr(own.args, "lim")


def test_the_same_goes_wrong_for_agents_of_all_layouts(host: Host, tmp_path: Path) -> None:
    """A run that was told to read its observations as flat features loses the same sightings as others."""
    flat = {"layout": "flat", "autoencoder": {"name": "none"}, "masker": {"name": "none"}}
    run = save_run(host, tmp_path / "run", "qmix_fc", lim=flat)
    frozen = trained.freeze(host, read_run(run), None, env_args={"seed": SEED})
    assert frozen.mac.agent.layout.name == "flat"
    assert frozen.layout == LAYOUT


# -- transfer --------------------------------------------------------------------------------------------


def test_a_larger_team_has_the_trained_weights_and_the_mean_of_the_ids(
    host: Host, runs: dict[str, Path]
) -> None:
    run = read_run(runs["entity"])
    old = torch.load(run.checkpoint / "agent.th")
    frozen = trained.freeze(host, run, "8m", env_args={"seed": SEED})
    agent = frozen.mac.agent
    new = agent.state_dict()
    assert "mean" in frozen.note
    assert {name for name in old if old[name].shape != new[name].shape} == {"fc1.mix.weight"}
    assert all(torch.equal(old[name], new[name]) for name in old if name != "fc1.mix.weight")
    first = OWN + STOP + 1  # own features and actions that aim at nobody come first
    mean = old["fc1.mix.weight"][:, first : first + 3].mean(dim=1)
    # A lone agent that sees nothing: its id is all that the two teams do not share.
    inputs = torch.zeros(8, agent.spec.input_size(frozen.shape.obs_size))
    inputs[:, -8:] = torch.eye(8)
    features = agent.fc1(inputs).features
    assert torch.allclose(features, (old["fc1.mix.bias"] + mean).expand_as(features), atol=1e-6)
    assert agent(inputs, agent.init_hidden().expand(8, -1))[0].shape == (8, 13)


def test_agents_without_numbers_need_no_mean(host: Host, tmp_path: Path) -> None:
    run = save_run(host, tmp_path, "qmix_entity", obs_agent_id=False)
    frozen = trained.freeze(host, read_run(run), "8m", env_args={"seed": SEED})
    assert frozen.note == ""
    assert frozen.shape.n_agents == 8
    old, new = torch.load(run / "models/1000/agent.th"), frozen.mac.agent.state_dict()
    mix = "fc1.mix.weight"
    assert all(torch.equal(old[name], new[name]) for name in new if name != mix)
    allies, enemies = slice(-64, -32), slice(-32, None)  # 2 → 7 and 3 → 8: the sums are scaled by 1/√m
    assert torch.equal(old[mix][:, :-64], new[mix][:, :-64])
    torch.testing.assert_close(new[mix][:, allies], old[mix][:, allies] * (2 / 7) ** 0.5)
    torch.testing.assert_close(new[mix][:, enemies], old[mix][:, enemies] * (3 / 8) ** 0.5)


# -- mistakes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--perturb nois --severity 0.1", "did you mean 'noise'?"),
        ("--perturb noise", "1 times --perturb, and 0 times --severity: they go together"),
        ("--severity 0.1", "0 times --perturb, and 1 times --severity: they go together"),
        ("--perturb noise --severity 0.1 --perturb noise --severity 0.2", "--perturb noise noise: one of"),
        ("--perturb noise --severity -0.1", "--severity -0.1: expected a standard deviation of 0 or more"),
        ("--perturb noise --severity nan", "--severity nan"),
        ("--perturb dropout --severity 0 1.1", "--severity 1.1: expected a probability p in [0, 1]"),
        ("--perturb sight --severity 1", "--severity 1: expected the lost share"),
        (
            "--perturb dead_teammate --severity 3",
            "--severity 3: expected a whole number of teammates that do nothing, at most 2",
        ),
        ("--perturb dead_teammate --severity 0.5", "--severity 0.5: expected a whole number"),
        ("--perturb noise --severity 0.1 0.1", "one of them is there twice"),
        ("--episodes 0", "--episodes=0: expected at least 1"),
        ("--seed -1", "--seed=-1"),
        ("--map 9m", "--map 9m: env_args.map_name='9m' is no SMAX scenario"),
    ],
)
def test_bad_options(
    options: str, words: str, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(["evaluate", str(runs["entity"]), *options.split(), "--output", str(output)]) == 2
    *loading, told = capsys.readouterr().err.splitlines()
    assert told.startswith("limask: error: ") and words in told
    assert not loading or loading == ["Loading pymarlzooplus and its environments: up to half a minute …"]
    assert not output.exists()


@pytest.mark.parametrize("name", ["noise", "sight"])
def test_who_sees_everywhere_has_no_sight_range(host: Host, tmp_path: Path, name: str) -> None:
    env_args = {"map_name": "3m", "seed": 1, "full_observation": True}
    run = save_run(host, tmp_path / "run", "qmix_entity", env_args=env_args)
    with pytest.raises(LimaskError, match=f"--perturb {name}: .*full_observation=True.*choose dropout"):
        run_evaluate([run], tmp_path / "out", perturb=name, severities=(0.1,))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("algorithm", ["qmix_fc", "qmix_lim"])
def test_a_run_of_another_version_is_told_so(host: Host, tmp_path: Path, algorithm: str) -> None:
    """Its own map is not to blame."""
    run = save_run(host, tmp_path / "run", algorithm)
    (file,) = run.glob("models/*/agent.th")
    weights = torch.load(file)
    torch.save(weights | {"fc1.weight2": torch.zeros(3)}, file)
    with pytest.raises(LimaskError, match=r"do not fit 3m in fc1\.weight2; evaluate it with the version of"):
        run_evaluate([run], tmp_path / "out")


@pytest.mark.parametrize(
    "lim", [{"autoencoder": {"name": "belief"}}, {"autoencoder": {"name": "entity", "use_inference": True}}]
)
def test_inferences_cannot_change_the_map(host: Host, tmp_path: Path, lim: dict[str, Any]) -> None:
    run = save_run(host, tmp_path / "run", "qmix_lim", lim=lim)
    with pytest.raises(LimaskError, match=r"infer of the units of their own map, .* cannot change to 8m"):
        run_evaluate([run], tmp_path / "out", map_name="8m")
    assert not (tmp_path / "out").exists()


def test_a_flat_trunk_cannot_change_team_size(host: Host, runs: dict[str, Path]) -> None:
    with pytest.raises(
        LimaskError, match=r"a flat trunk cannot change team size .*64×86.*; train with lim\.trunk"
    ):
        trained.freeze(host, read_run(runs["fc"]), "8m", env_args={"seed": SEED})


def test_folders_that_hold_no_trained_run(host: Host, tmp_path: Path) -> None:
    def fails(folder: Path, words: str) -> None:
        with pytest.raises(LimaskError, match=words):
            read_run(folder)

    fails(tmp_path / "nowhere", "nowhere is no folder")
    run = save_run(host, tmp_path / "results/sacred/qmix_entity/3m/1", "qmix_entity")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"agent_output_type": "pi_logits"}))
    fails(run, "agent_output_type=pi_logits")
    (run / "config.json").write_text("{}")
    fails(run, "has no agent_output_type")
    (run / "config.json").write_text('{"env":')
    fails(run, "is damaged")
    (run / "config.json").write_text(json.dumps(config))
    (tmp_path / "run.json").write_text(json.dumps({"run": "a/b/seed_1", "host": "/a/checkout"}))
    assert read_run(tmp_path).host == "/a/checkout"
    (tmp_path / "run.json").write_text(json.dumps({"run": "a/b/seed_1", "host": "pymarlzooplus"}))
    assert read_run(tmp_path).name == "a/b/seed_1"
    save_run(host, tmp_path / "results/sacred/qmix_entity/3m/2", "qmix_entity", steps=20_000)
    fails(tmp_path, "holds 2 runs")
    weights = torch.load(run / "models/1000/agent.th", weights_only=True)
    spoiled = {name: part * torch.nan if "fc2" in name else part for name, part in weights.items()}
    for written, words in (
        ([1, 2], "agent.th is damaged .it holds no weights by name, but list"),
        ({"fc1": "text"}, "agent.th is damaged"),
        (spoiled, "agent.th: fc2.* is not finite: use an earlier checkpoint"),
        (None, "agent.th is damaged"),
    ):
        if written is None:
            (run / "models/1000/agent.th").write_bytes(b"cut off")
        else:
            torch.save(written, run / "models/1000/agent.th")
        with pytest.raises(LimaskError, match=words):
            trained.freeze(host, read_run(run), None, env_args={"seed": SEED})
    (run / "models/1000/agent.th").unlink()
    fails(run, "no checkpoint, as it was trained with save_model=False: train with save_model=True save_m")


def test_the_last_checkpoint_counts_by_its_number(host: Host, tmp_path: Path) -> None:
    for steps in (900, 20_000, 3_000):
        (tmp_path / "run").mkdir(exist_ok=True)
        save_run(host, tmp_path / "run", "qmix_entity", steps=steps)
    (tmp_path / "run/models/30000").mkdir()  # made, and not written yet
    assert read_run(tmp_path / "run").steps == 20_000


def test_auto_is_the_autoencoder_that_it_was_when_the_run_was_trained(host: Host, tmp_path: Path) -> None:
    run = save_run(host, tmp_path / "run", "qmix_lim", lim={"autoencoder": {"name": "belief"}})
    config = json.loads((run / "config.json").read_text())
    config["lim"]["autoencoder"]["name"] = "auto"
    (run / "config.json").write_text(json.dumps(config))
    frozen = trained.freeze(host, read_run(run), None, env_args={"seed": SEED})
    assert type(frozen.mac.agent.autoencoder).__name__ == "BeliefAutoencoder"
