"""``limask campaign`` with child commands that write sacred's files without training."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkout_parts import make_checkout, write_masker

from limask import cli, files, masking, resources
from limask.errors import LimaskError
from limask.experiments.campaign import folder as campaign_folder
from limask.experiments.campaign.check import check_campaign
from limask.experiments.campaign.collect import read_tests
from limask.experiments.campaign.folder import CampaignFolder
from limask.experiments.campaign.plan import Campaign, read_campaign
from limask.experiments.launch import jobs
from limask.experiments.launch.run import campaign_status, run_campaign

#: Arguments: the folder for results, the arm, and a folder of notes that outlives the run. An arm does what
#: its name says: learn, crash, crash_once, diverge, untrained, full (disk), silent (no test), slow (until
#: told to end).
CHILD = """
import json, os, sys, time
results, arm, notes = sys.argv[1:]
run = os.path.join(results, "sacred", "name", "map", "1")
os.makedirs(run)
open(os.path.join(notes, "pid"), "a").write(f"{os.getpid()} ")
started = open(os.path.join(notes, "started"), "a")
started.write(results + "\\n")
started.flush()
n = len(open(os.path.join(notes, "started")).readlines())
if arm == "crash" or arm == "crash_once" and n == 1:
    sys.exit("ValueError: loss is nan at t_env=1")
if arm == "full":
    sys.exit("OSError: [Errno 28] No space left on device")
while arm == "slow" and not os.path.exists(os.path.join(notes, "go")):
    time.sleep(0.02)
tests = {"steps": [0, 500, 1000], "values": [0.0, 0.5, 1 / 3]}
returns = {"steps": [0, 500], "values": [1.0, 2.5]}
metrics = {} if arm == "silent" else {"test_battle_won_mean": tests, "test_return_mean": returns}
json.dump(metrics, open(os.path.join(run, "metrics.json"), "w"))
if arm == "untrained":
    open(os.path.join(results, "untrained.txt"), "w").write("made no SGD step: it ended\\n")
if arm == "diverge":
    open(os.path.join(results, "diverged.txt"), "w").write("any words at all about step 512: and more")
    sys.exit(3)
print("threads", os.environ["OMP_NUM_THREADS"])
"""

Given = dict[str, Any]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the children every 20 ms."""
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.02)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """What is looked at in a checkout of EPyMARL's kind."""
    root = tmp_path / "host"
    texts = {
        "main.py": "",
        "run.py": "",
        "learners/__init__.py": "REGISTRY = {}",
        "learners/q_learner.py": "target_update_interval_or_tau",
        "runners/episode_runner.py": "truncated",
        "config/default.yaml": "{env: sc2, env_args: {}, batch_size: 8, lr: 0.1, seed: 1}",
        "config/algs/qmix.yaml": "{name: qmix, lr: 0.2}",
        "config/envs/fake.yaml": "{env: fake, env_args: {map_name: 3m, level: 1}}",
    }
    for name, text in texts.items():
        (root / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "src" / name).write_text(text)
    for name in ("controllers", "modules/agents"):
        (root / "src" / name).mkdir(parents=True)
    return root


@pytest.fixture
def block(host: Path) -> Callable[..., Given]:
    """A campaign file's contents, with other arms and keys where they are given."""

    def build(*arms: str, **changed: Any) -> Given:
        given = {
            "host": str(host),
            "t_max": 1000,
            "test_interval": 500,
            "thresholds": [0.5, 0.8],
            "seeds": [3, 4],
            "arms": {arm: {"config": "qmix", "overrides": {"lr": 0.3}} for arm in arms or ("learn",)},
            "environments": {"easy": {"env_config": "fake", "env_args": {"level": 2}}},
        }
        return {**given, **changed}

    return build


def write(folder: Path, block: Given) -> Path:
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump(block, sort_keys=False))
    return path


def child_command(campaign: Campaign, run: Any, results: Path, resume: Path | None = None) -> list[str]:
    """Stands in for ``Campaign.command``; notes are kept beside the attempts."""
    return [sys.executable, "-c", CHILD, str(results), run.arm.id, str(results.parents[1])]


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Campaign, "command", child_command)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def counts(output: Path) -> dict[str, int]:
    (line,) = campaign_status(output, as_json=True)
    return json.loads(line)


def wait_until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -- the plan -------------------------------------------------------------------------------------------


def test_plan_and_commands(block: Callable[..., Given], host: Path) -> None:
    arms = {
        "a": {"config": "qmix"},
        "b": {"config": "qmix", "overrides": {"lim": {"masker": {"name": "none"}}}},
    }
    overrides = {"lr": 0.3, "label": "5", "mixer": None}
    campaign = Campaign.from_block(block(arms=arms, overrides=overrides))
    ids = ["a/easy/seed_3", "b/easy/seed_3", "a/easy/seed_4", "b/easy/seed_4"]
    assert [run.id for run in campaign.runs()] == ids
    command = campaign.command(campaign.runs()[1], Path("out"))
    head = f"-m limask run --host {host} --results out --config=qmix --env-config=fake with".split()
    options = "t_max=1000 test_interval=500 seed=3 env_args.level=2 lr=0.3".split()
    # Text that sacred would read as a number is quoted.
    assert command == [sys.executable, *head, *options, "label='5'", "mixer=None", "lim.masker.name=none"]
    assert Campaign.from_block(json.loads(json.dumps(campaign.to_block()))) == campaign

    maps = {"easy": {"env_config": "fake"}, "hard": {"env_config": "fake", "t_max": 3000}}
    longer = Campaign.from_block(block(environments=maps))
    assert [longer.options(run)["t_max"] for run in longer.runs()] == [1000, 3000, 1000, 3000]
    assert Campaign.from_block(json.loads(json.dumps(longer.to_block()))) == longer

    logged = Campaign.from_block(block(sinks=["tensorboard"]))
    assert logged.command(logged.runs()[0], Path("out"))[:9] == [*command[:8], "--sink=tensorboard"]
    old = Campaign.from_block(block(compat=True))
    assert old.command(old.runs()[0], Path("out"))[:9] == [*command[:8], "--compat"]


@pytest.mark.parametrize(
    ("name", "n_runs"),
    [
        ("belief", 15),
        ("choices", 18),
        ("claim", 180),
        ("claim_budgets", 6),
        ("claim_published", 18),
        ("claim_sensors", 75),
        ("choosing_2s3z", 65),
        ("choosing_3m", 65),
        ("demo", 3),
        ("faults", 18),
        ("faults_2s3z", 15),
        ("headroom", 15),
        ("in_sight", 10),
        ("informed", 60),
        ("masking", 21),
        ("masks", 18),
        ("methods", 30),
        ("methods_4m", 30),
        ("pilot", 40),
        ("robust", 20),
        ("short_sight", 30),
        ("short_sight_long", 15),
        ("transfer", 18),
        ("unseen", 16),
        ("view", 9),
        ("wrong", 40),
        ("warmup", 30),
        ("smoke", 12),
    ],
)
def test_campaigns_that_limask_brings(name: str, n_runs: int) -> None:
    campaign = read_campaign(Path(name))
    assert campaign == read_campaign(resources.config_dir() / f"campaigns/{name}.yaml")
    assert len(campaign.runs()) == n_runs
    if find_spec("jaxmarl") is None:
        pytest.skip("needs jaxmarl, which SMAX is part of")
    pytest.importorskip("pymarlzooplus")
    check_campaign(campaign)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"arms": {"x": {"config": "qmux"}}},
            "arms.x.config is 'qmux': no such config; did you mean 'qmix'?",
        ),
        ({"arms": {"x": {"cnfig": "qmix"}}}, "'cnfig' is no key of arms.x; did you mean 'config'?"),
        ({"arms": {}}, "arms is {}: expected at least one block"),
        ({"arms": {"a/b": {"config": "qmix"}}}, "'a/b' is no name: expected at most 100 letters"),
        (
            {"environments": {"e": {"env_config": "fqke"}}},
            "environments.e.env_config is 'fqke': no such config",
        ),
        (
            {"environments": {"e": {"env_config": "fake", "env_args": {"levle": 1}}}},
            "environments.e: env_args.levle is no option",
        ),
        (
            {"arms": {"x": {"config": "qmix", "overrides": {"lrr": 1}}}},
            "lrr is no option.*did you mean 'lr'?",
        ),
        (
            {"arms": {"x": {"config": "qmix", "overrides": {"seed": 1}}}},
            "set it in the campaign's own 'seeds'",
        ),
        ({"overrides": {"lim.masker.name": "none"}}, "'lim.masker.name' is no option: write `lim:"),
        ({"overrides": {"lr": float("nan")}}, "overrides.lr is nan: expected a number"),
        ({"host": "nowhere"}, "host: expected pymarlzooplus or a checkout; .*nowhere does not exist"),
        ({"thresholds": [80]}, "thresholds: 80 is no win rate"),
        ({"thresholds": [0.5, 0.5]}, "thresholds: 0.5 is there twice"),
        ({"seeds": [1, 1]}, "seeds: 1 is there twice"),
        ({"seeds": []}, "seeds is .*expected a list of at least one"),
        ({"t_max": 0}, "t_max is 0: expected an integer, at least 1"),
        ({"t_max": True}, "t_max is True: expected an integer"),
        ({"test_interval": 2000}, "test_interval is 2000 and t_max is 1000"),
        (
            {"environments": {"easy": {"env_config": "fake", "t_max": 400}}},
            "test_interval is 500 and environments.easy.t_max is 400",
        ),
        ({"environments": {"easy": {"env_config": "fake", "t_max": 0}}}, "environments.easy.t_max is 0"),
        ({"max_attempts": 0}, "max_attempts is 0"),
        ({"sinks": ["tensorbord"]}, "sinks: 'tensorbord' is none of tensorboard, wandb; did you mean"),
        ({"sinks": "wandb"}, "sinks is 'wandb': expected a list"),
        ({"sinks": ["wandb", "wandb"]}, "sinks: 'wandb' is there twice"),
        ({"compat": "yes"}, "compat is 'yes': expected true or false"),
        ({"tmax": 1}, "'tmax' is no key of the campaign; did you mean 't_max'?"),
    ],
)
def test_mistakes_in_the_file(
    changed: Given,
    words: str,
    block: Callable[..., Given],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = write(tmp_path, block(**changed))
    with pytest.raises(LimaskError, match=words):
        run_campaign(file, tmp_path / "out", jobs=1)
    assert cli.main(["campaign", "run", str(file), "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_old_host_is_refused_without_compat(block: Callable[..., Given], tmp_path: Path) -> None:
    root = make_checkout(tmp_path / "old", "pymarl", "import yaml\nyaml.load(f)\n")
    for kind, names in (("algs", ("qmix",)), ("envs", ("fake",))):
        for name in names:
            (root / f"src/config/{kind}/{name}.yaml").write_text("label: none\nenv_args: {}\n")
    given = block(host=str(root))
    with pytest.raises(LimaskError, match=r"does not start here \(yaml.load\); set compat: true"):
        check_campaign(Campaign.from_block(given))


def test_who_follows_a_campaign_holds_no_torch(block: Callable[..., Given], tmp_path: Path) -> None:
    """It is checked in a process of its own."""
    if find_spec("jaxmarl") is None:
        pytest.skip("needs jaxmarl, which SMAX is part of")
    environments = {"3m": {"env_config": "smax"}}
    wrong = block(
        host="pymarlzooplus", arms={"a": {"config": "qmix_lm"}}, environments=environments, overrides={}
    )
    file = write(tmp_path, wrong)
    code = """
import sys
from limask import cli
assert cli.main(["campaign", "run", sys.argv[1], "--dry-run", "--output", "new"]) == 2
assert cli.main(["campaign", "run", "demo", "--dry-run", "--output", "new"]) == 0
print([name for name in ("torch", "jax", "pymarlzooplus") if name in sys.modules])
"""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    command = [sys.executable, "-c", code, str(file)]
    done = subprocess.run(command, cwd=tmp_path, env=env, text=True, capture_output=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert "did you mean 'qmix_lim'" in done.stderr


def test_limask_block_and_map_are_checked_against_the_environment() -> None:
    if find_spec("jaxmarl") is None:
        pytest.skip("needs jaxmarl, which SMAX is part of")
    pytest.importorskip("pymarlzooplus")
    given = read_campaign(Path("smoke")).to_block()
    given["environments"]["2s3z"]["env_args"] = {"map_name": "2s3q"}
    with pytest.raises(
        LimaskError, match="on environments.2s3z: env_args.map_name='2s3q'.* did you mean '2s3z'"
    ):
        check_campaign(Campaign.from_block(given))
    given["environments"].pop("2s3z")
    given["arms"]["qmix_lim"]["overrides"] = {"lim": {"masker": {"name": "randon"}}}
    with pytest.raises(LimaskError, match="arms.qmix_lim on environments.3m: lim.masker.name='randon'"):
        check_campaign(Campaign.from_block(given))
    given["arms"]["qmix_lim"]["overrides"] = {"lim": {"lambda_rec": 0.3}}
    words = r"arms.qmix_lim.overrides: lim.lambda_rec is lim.autoencoder.weight now"
    with pytest.raises(LimaskError, match=words):
        check_campaign(Campaign.from_block(given))


def test_maskers_of_the_checkout_and_maps_in_its_modules(
    block: Callable[..., Given], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A user's own masker is known, and PyMARL3's maps of SMAC are not looked for in another package."""
    request.addfinalizer(lambda: masking.REGISTRY.pop("hide_enemies"))
    for name in ("modules.maskers.enemies", "modules.maskers", "modules"):
        request.addfinalizer(lambda name=name: sys.modules.pop(name, None))
    root = make_checkout(tmp_path / "own", "pymarl3")
    write_masker(root)
    folder = root / "src/config"
    (folder / "default.yaml").write_text("# cpu_inference\n{env_args: {}, batch_size: 8, seed: 1}\n")
    (folder / "envs/fake.yaml").write_text("{env: sc2, env_args: {map_name: 3m, level: 1}}\n")
    (folder / "algs/qmix.yaml").write_text("{lim: {masker: {name: hide_enemies}}, lr: 0.1}\n")
    check_campaign(Campaign.from_block(block(host=str(root))))
    (folder / "algs/qmix.yaml").write_text("{lim: {masker: {name: hide_enemys}}, lr: 0.1}\n")
    with pytest.raises(LimaskError, match="did you mean 'hide_enemies'"):
        check_campaign(Campaign.from_block(block(host=str(root))))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "twice.yaml").write_text("arms:\n  a: {config: qmix}\n  a: {config: vdn}\n")
    with pytest.raises(LimaskError, match=r"twice.yaml, line 3: 'a' is there twice"):
        read_campaign(tmp_path / "twice.yaml")
    (tmp_path / "broken.yaml").write_text("arms: [")
    with pytest.raises(LimaskError, match=r"broken.yaml, line 1"):
        read_campaign(tmp_path / "broken.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(LimaskError, match="not text in UTF-8"):
        read_campaign(tmp_path / "binary.yaml")
    with pytest.raises(LimaskError, match="No such file"):
        read_campaign(tmp_path / "absent.yaml")
    with pytest.raises(LimaskError, match="smok: no such campaign file; did you mean 'smoke'"):
        read_campaign(Path("smok"))


# -- running --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("children")
def test_results_divergence_retries_and_failures(
    block: Callable[..., Given], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = ("learn", "crash_once", "crash", "diverge", "silent", "untrained")
    file, output = write(tmp_path, block(*arms, seeds=[3], max_attempts=2)), tmp_path / "out"
    with pytest.raises(LimaskError) as caught:
        run_campaign(file, output, jobs=2)
    assert str(caught.value).startswith(
        "2 of 6 runs failed, the first crash/easy/seed_3: exit status 1: ValueError: loss is nan at t_env=1; "
    )
    said = capsys.readouterr().out
    assert re.search(
        "crash_once/.*: failed after .*, exit status 1: ValueError: loss is nan at t_env=1, starts again",
        said,
    )
    assert re.search("diverge/.*: diverged after .*, any words at all about step 512", said)
    assert said.endswith(f"\nReport: limask campaign report {output}\n")
    assert counts(output) == {"planned": 6, "done": 4, "running": 0, "failed": 2, "retried": 3}
    assert any(
        "silent/easy/seed_3: failed, ended without a result" in line for line in campaign_status(output)
    )

    by_arm = {row["arm"]: row for row in rows(output / "runs.csv")}
    record = json.loads((output / by_arm["learn"]["folder"] / "run.json").read_text())
    assert by_arm["learn"]["started"] == record["started"]
    assert by_arm["learn"]["commit"] == (record["limask_commit"] or "")
    assert {arm: row["result"] for arm, row in by_arm.items()} == {
        "learn": "finished",
        "crash_once": "finished",
        "crash": "failed",
        "diverge": "diverged",
        "silent": "failed",
        "untrained": "untrained",
    }
    assert by_arm["untrained"]["left_out"] == "made no SGD step: it ended"
    assert not [row for row in rows(output / "curves.csv") if row["arm"] == "untrained"]
    assert {arm: row["attempts"] for arm, row in by_arm.items()} == dict(
        zip(arms, ("1", "2", "2", "1", "2", "1"), strict=True)
    )
    assert by_arm["crash"]["left_out"] == "exit status 1: ValueError: loss is nan at t_env=1"
    assert "metrics.json is absent, cut off or empty" in by_arm["silent"]["left_out"]
    assert by_arm["crash_once"]["folder"] == "runs/crash_once/easy/seed_3/attempt_2"
    curves = [row for row in rows(output / "curves.csv") if row["arm"] == "learn"]
    assert [tuple(row.values()) for row in curves] == [
        ("learn", "easy", "3", "0", "0", "1"),
        ("learn", "easy", "3", "500", "0.5", "2.5"),
        ("learn", "easy", "3", "1000", "0.333333", ""),
    ]
    attempt = output / "runs/learn/easy/seed_3/attempt_1"
    assert (attempt / "output.log").read_text() == "threads 1\n"
    record = json.loads((attempt / "run.json").read_text())
    assert record["options"] == {
        "t_max": 1000,
        "test_interval": 500,
        "seed": 3,
        "env_args.level": 2,
        "lr": 0.3,
    }
    assert record["python"] and record["packages"]["torch"] and record["command"][0] == sys.executable
    assert not list(output.rglob(".*"))

    # More attempts are the way to try again; what is done stays done.
    with pytest.raises(LimaskError, match="2 of 6 runs failed"):
        run_campaign(write(tmp_path, block(*arms, seeds=[3], max_attempts=3)), output, jobs=2)
    assert [row["attempts"] for row in rows(output / "runs.csv")] == ["1", "2", "3", "1", "3", "1"]


#: ``limask campaign`` as a process of its own, with ``child_command`` in place of the host's.
SCRIPT = f"""
import signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
signal.signal(signal.SIGINT, signal.default_int_handler)
import test_campaign
from limask import cli
from limask.experiments.launch import jobs
from limask.experiments.campaign.plan import Campaign
jobs.POLL_SECONDS = 0.02
Campaign.command = test_campaign.child_command
try:
    sys.exit(cli.main(["campaign", *sys.argv[1:]]))
except SystemExit as end:
    sys.exit(end.code)
"""


def campaign_process(*arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *map(str, arguments)])


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_sigkill_half_way_then_again_gives_every_run_exactly_once(
    block: Callable[..., Given], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign_folder, "LOCK_SECONDS", 0.1)
    file, output = write(tmp_path, block("learn", "slow", seeds=[0, 1, 2])), tmp_path / "out"
    notes = output / "runs/slow/easy/seed_0"
    process = campaign_process("run", file, "--output", output, "--jobs", "2")
    # Two slow runs hang, all that was before them is done.
    wait_until(lambda: (notes.parent / "seed_1/started").exists() and counts(output)["done"] == 2)
    assert counts(output) == {"planned": 6, "done": 2, "running": 2, "failed": 0, "retried": 0}
    told = campaign_status(output)[1:]
    assert [line.split(":")[0] for line in told] == ["slow/easy/seed_0", "slow/easy/seed_1"]
    assert all(" steps, " in line for line in told)
    (notes / "attempt_1/results/sacred/name/map/1/metrics.json").write_text('{"test_return_mean": {"st')
    with pytest.raises(
        LimaskError, match="a campaign is running in .*: wait for it, or choose another folder"
    ):
        run_campaign(file, output, jobs=1)

    process.send_signal(signal.SIGKILL)
    process.wait()
    pids = [int(pid) for path in output.rglob("pid") for pid in path.read_text().split()]
    if Path("/proc").is_dir():
        wait_until(lambda: not any(is_alive(pid) for pid in pids))
    for seed in range(3):
        (notes.parent / f"seed_{seed}").mkdir(exist_ok=True)
        (notes.parent / f"seed_{seed}/go").touch()
    wait_until(lambda: counts(output)["running"] == 0)
    assert counts(output)["done"] == 2

    before = {path: path.stat().st_mtime_ns for path in output.rglob("DONE")}
    again = campaign_process("run", file, "--output", output, "--jobs", "2")
    assert again.wait(60) == 0
    assert counts(output) == {"planned": 6, "done": 6, "running": 0, "failed": 0, "retried": 0}
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    found = [(row["arm"], row["seed"], row["steps"]) for row in rows(output / "curves.csv")]
    steps = ("0", "500", "1000")
    assert sorted(found) == sorted((a, s, t) for a in ("learn", "slow") for s in "012" for t in steps)
    assert (notes / "attempt_1/INTERRUPTED").exists() and (notes / "attempt_2/DONE").exists()
    # The old attempt is as it was left: nothing was appended, nothing was cleared away.
    assert (notes / "attempt_1/results/sacred/name/map/1/metrics.json").read_text().endswith('{"st')
    assert len((notes / "started").read_text().splitlines()) == 2


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_the_runs_and_lose_nothing(
    number: signal.Signals, status: int, block: Callable[..., Given], tmp_path: Path
) -> None:
    file, output = write(tmp_path, block("learn", "slow", seeds=[0])), tmp_path / "out"
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = campaign_process("run", file, "--output", output)
    pid = output / "runs/slow/easy/seed_0/pid"
    wait_until(lambda: pid.exists() and pid.read_text() and counts(output)["done"] == 1)
    process.send_signal(number)
    assert process.wait(60) == status
    assert not is_alive(int(pid.read_text()))
    assert bystander.poll() is None
    bystander.communicate(b"\n")
    wait_until(lambda: counts(output)["running"] == 0)
    assert counts(output) == {"planned": 2, "done": 1, "running": 0, "failed": 0, "retried": 0}


@pytest.mark.usefixtures("children")
def test_finished_campaign_is_left_alone(block: Callable[..., Given], tmp_path: Path) -> None:
    file, output = write(tmp_path, block()), tmp_path / "out"
    run_campaign(file, output, jobs=2)
    before = {path: path.stat().st_mtime_ns for path in (output / "runs").rglob("*")}
    run_campaign(file, output, jobs=2)
    assert {path: path.stat().st_mtime_ns for path in (output / "runs").rglob("*")} == before


@pytest.mark.usefixtures("children")
def test_folders_that_are_taken(block: Callable[..., Given], tmp_path: Path) -> None:
    file, output = write(tmp_path, block(seeds=[0])), tmp_path / "out"
    run_campaign(file, output, jobs=1)
    other = write(tmp_path, block(seeds=[0], t_max=2000))
    with pytest.raises(
        LimaskError, match="another campaign: t_max is 1000 there and 2000 in this one; choose"
    ):
        run_campaign(other, output, jobs=1)
    other = write(tmp_path, block("learn", "crash", seeds=[0]))
    with pytest.raises(LimaskError, match="arms.crash.config is not set there and qmix in this one"):
        run_campaign(other, output, jobs=1)
    assert counts(output)["done"] == 1
    with pytest.raises(LimaskError, match=r"host holds something else \(src\)"):
        run_campaign(file, tmp_path / "host", jobs=1)
    with pytest.raises(LimaskError, match="campaign.yaml is a file"):
        run_campaign(file, file, jobs=1)
    with pytest.raises(LimaskError, match="Not a directory"):
        run_campaign(file, file / "below", jobs=1)
    with pytest.raises(LimaskError, match="--jobs=0"):
        run_campaign(file, output, jobs=0)
    with pytest.raises(LimaskError, match="is no campaign's folder"):
        campaign_status(tmp_path / "host")


@pytest.mark.usefixtures("children")
def test_damaged_files(block: Callable[..., Given], tmp_path: Path) -> None:
    file, output = write(tmp_path, block(seeds=[0, 1])), tmp_path / "out"
    run_campaign(file, output, jobs=2)
    runs = output / "runs/learn/easy"
    metrics = runs / "seed_0/attempt_1/results/sacred/name/map/1/metrics.json"
    for text, reason in {
        metrics.read_text()[:-9]: "cut off",
        '{"test_return_mean": {"steps": null, "values": []}}': "damaged",
        '{"loss": {"steps": [1], "values": [1]}}': "no test was logged",
        metrics.read_text().replace("0.5,", "5,", 1): "a win rate of 5.0 at step 500",
        metrics.read_text().replace("0.5,", "NaN,", 1): "a win rate of nan at step 500",
        metrics.read_text().replace("0.5,", '"x",', 1): "a win rate of nan at step 500",
        metrics.read_text().replace("2.5", "Infinity", 1): "a return of inf at step 500",
    }.items():
        metrics.write_text(text)
        run_campaign(file, output, jobs=2)
        assert reason in rows(output / "runs.csv")[0]["left_out"]
        assert {row["seed"] for row in rows(output / "curves.csv")} == {"1"}
    shutil.rmtree(metrics.parents[3])
    with pytest.raises(LimaskError, match="the host wrote no results"):
        folder = CampaignFolder.existing(output)
        read_tests(folder.attempts(folder.campaign.runs()[0])[0])

    whole = {"result": "finished", "seconds": 3.5, "reason": ""}
    for text in (
        '{"result"',
        json.dumps(whole | {"result": "failed"}),  # that is another marker's
        json.dumps(whole | {"result": ["finished"]}),
        json.dumps(whole | {"seconds": "long"}),
        json.dumps(whole | {"seconds": float("inf")}),
        json.dumps(whole | {"reason": None}),
        json.dumps(whole | {"more": 1}),
        json.dumps({"result": "finished"}),
    ):
        (runs / "seed_1/attempt_1/DONE").write_text(text)
        with pytest.raises(
            LimaskError, match="DONE is damaged .*; delete .*attempt_1 to have that run made again"
        ):
            campaign_status(output)
    (output / "campaign.json").write_text("[]")
    with pytest.raises(LimaskError, match=r"campaign.json is damaged \(not a JSON object\)"):
        run_campaign(file, output, jobs=2)


@pytest.mark.usefixtures("children")
def test_full_disk(block: Callable[..., Given], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, output = write(tmp_path, block(seeds=[0, 1])), tmp_path / "out"
    fsync, n_done = os.fsync, 0

    def fail_on_the_second_marker(descriptor: int) -> None:
        nonlocal n_done
        n_done += Path(f"/dev/fd/{descriptor}").resolve().name.startswith(".DONE.")
        if n_done == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", fail_on_the_second_marker)
    with pytest.raises(LimaskError, match="No space left on device; runs that have ended are kept") as caught:
        run_campaign(file, output, jobs=1)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(files.os, "fsync", fsync)
    assert counts(output)["done"] == 1
    assert not list(output.rglob(".*"))
    run_campaign(file, output, jobs=1)
    assert counts(output)["done"] == 2


@pytest.mark.usefixtures("children")
def test_full_disk_in_a_run_is_no_crash(block: Callable[..., Given], tmp_path: Path) -> None:
    file, output = write(tmp_path, block("full", seeds=[0])), tmp_path / "out"
    with pytest.raises(LimaskError, match="attempt_1: No space left on device"):
        run_campaign(file, output, jobs=1)
    wait_until(lambda: not counts(output)["running"])
    assert counts(output) == {"planned": 1, "done": 0, "running": 0, "failed": 0, "retried": 0}


def test_dry_run_prints_the_commands_that_are_left(
    block: Callable[..., Given], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, output = write(tmp_path, block()), tmp_path / "out"
    command = ["campaign", "run", str(file), "--output", str(output), "--dry-run"]
    assert cli.main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert f"--results {output}/runs/learn/easy/seed_3/attempt_1/results --config=qmix" in lines[0]
    assert not output.exists()


def test_terminal_shows_a_row_per_run(block: Callable[..., Given], tmp_path: Path) -> None:
    import io

    from rich.console import Console

    from limask.experiments.launch.jobs import Job
    from limask.experiments.launch.progress import JobWatch
    from limask.experiments.launch.view import CampaignView

    run = Campaign.from_block(block()).runs()[0]
    view = CampaignView(summary="1 of 2 runs done")
    view.watches[JobWatch(Job(run.id, [], tmp_path / "log"), lambda: None, 1000)] = run
    screen = io.StringIO()
    Console(file=screen, width=100).print(view.table())
    assert "win rate" in screen.getvalue() and "1 of 2 runs done" in screen.getvalue()
    assert next(line for line in screen.getvalue().splitlines() if "easy" in line).split() == [
        "learn", "easy", "3", "0", "waiting"
    ]  # fmt: skip


def test_a_folder_does_not_hide_a_campaign_of_limasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "smoke").mkdir()
    monkeypatch.chdir(tmp_path)
    assert read_campaign(Path("smoke")) == read_campaign(resources.config_dir() / "campaigns" / "smoke.yaml")


# -- the claim --------------------------------------------------------------------------------------------


def _budget(tests: list[tuple[float, float]]) -> int:
    """The rule of docs/results/claim/protocol.md, of steps and win rates of a run's tests."""

    def best(between: Callable[[float], bool]) -> list[float]:
        values = [value for step, value in tests if between(step)]
        return [sum(values[i : i + 3]) / 3 for i in range(len(values) - 2)]

    for budget in (150_000, 200_000, 300_000):
        before, after = (best(lambda step, b=budget: step <= b), best(lambda step, b=budget: step > b))
        if max(before) >= 0.8 or (before[-1] >= 0.2 and before[-1] >= max(after) - 0.05):
            return budget
    return 500_000


def test_budgets_of_the_claim_follow_from_their_rule() -> None:
    campaign = read_campaign(Path("claim"))
    run = rows(Path(__file__).parents[1] / "docs/results/claim/budgets.csv")
    for env in campaign.environments:
        measured = "return" if env.id == "lbf" else "win_rate"
        tests = [(float(row["steps"]), float(row[measured])) for row in run if row["map"] == env.id]
        assert campaign.budget(env) == _budget(tests), env.id
        for other in ("claim_sensors", "claim_published"):
            same = [each for each in read_campaign(Path(other)).environments if each.id == env.id]
            assert same in ([], [env])
