"""A run that is cut off goes on, and its numbers are those of the run that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import host_parts
import numpy as np
import pytest
import torch
from checkout_parts import by_family

from limask import cli
from limask.errors import LimaskError
from limask.experiments.campaign.folder import Outcome
from limask.experiments.campaign.plan import Campaign
from limask.experiments.launch.attempts import attempt_job
from limask.experiments.storage.sacred_files import latest_run, read_curves
from limask.files import write_json
from limask.hosts import resume
from limask.resumable import FOLDER, RUN_FILE, read_start, seconds, states

OPTIONS = [
    "--config=qmix_lim", "--env-config=smax", "with", "env_args.map_name=3m", "t_max=650", "batch_size=16",
    "test_interval=200", "test_nepisode=8", "lim.autoencoder.warmup=350", "lim.masker.replay=0.5",
    *(f"{name}_interval=1" for name in ("log", "runner_log", "learner_log")),
]  # fmt: skip

#: Environment steps after which a run is cut off: it has learned by then, and has more to learn.
CUT_AT = 450

Start = Callable[..., "subprocess.Popen[bytes]"]
LIMASK = ("-m", "limask", "run")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts ``limask run``, which does not outlive the test."""
    processes: list[subprocess.Popen[bytes]] = []

    def started(results: str, *arguments: str, program: Sequence[str] = LIMASK) -> subprocess.Popen[bytes]:
        command = [sys.executable, *program, "--results", results, *arguments]
        with (tmp_path / f"{results}.log").open("ab") as log:
            env = os.environ | {"OMP_NUM_THREADS": "1"}
            processes.append(subprocess.Popen(command, cwd=tmp_path, env=env, stdout=log, stderr=log))
        return processes[-1]

    yield started
    for process in processes:
        process.kill()
        process.wait()


def steps_kept(results: Path) -> int:
    files = states(results)
    return int(files[0].stem) if files else 0


def by_host() -> list[Any]:
    """Each host, and how a run in it is cut off: asked to end, it keeps its state, and killed, it cannot."""
    killed = [pytest.param(*one.values, signal.SIGKILL, id=one.id, marks=one.marks) for one in by_family()]
    return [pytest.param("pymarlzooplus", signal.SIGTERM, id="pymarlzooplus"), *killed]


@pytest.mark.parametrize(("where", "number"), by_host())
def test_cut_off_and_still_the_same_digits(
    tmp_path: Path, start: Start, where: Any, number: signal.Signals
) -> None:
    given = ["--host", str(where), *([] if where == "pymarlzooplus" else ["--compat"])]
    whole = start("whole", *given, "--save-state", "0", *OPTIONS, "seed=3")
    program = [str(Path(__file__).with_name("cut_run.py")), number.name, str(CUT_AT)]
    cut = start("cut", *given, "--save-state", "0.001", *OPTIONS, "seed=3", program=program)
    if number == signal.SIGKILL:
        assert cut.wait(480) == -number
        assert 0 < steps_kept(tmp_path / "cut") < CUT_AT, "what came after the last state is lost"
    else:
        assert cut.wait(480) == 128 + number
        assert steps_kept(tmp_path / "cut") >= CUT_AT
        assert b"go on with `limask run --resume" in (tmp_path / "cut.log").read_bytes()

    resumed = start("cut", "--resume", "cut")
    assert resumed.wait(480) == 0 and whole.wait(480) == 0
    assert not (tmp_path / "cut" / FOLDER).exists() and not (tmp_path / "whole" / FOLDER).exists()
    expected, found = (_curves(tmp_path / name) for name in ("whole", "cut"))
    assert {"loss", "rec_loss", "grad_norm", "return_mean", "test_battle_won_mean"} <= expected.keys()
    assert len(expected["test_return_mean"].steps) >= 3
    assert found == expected


def _curves(results: Path) -> dict[str, Any]:
    run = latest_run(results)
    assert run is not None
    return read_curves(run)


# -- the files ------------------------------------------------------------------------------------------


def keep(results: Path, *steps: int, **said: float) -> None:
    (results / FOLDER).mkdir(parents=True)
    write_json(results / FOLDER / RUN_FILE, {"host": "pymarlzooplus", "arguments": ["with", "a=1"], **said})
    for step in steps:
        torch.save({"limask": resume.__version__, "at": step}, results / FOLDER / f"{step}.pt")


def test_the_last_whole_state_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(tmp_path, 900, 1000)
    files = states(tmp_path)
    assert [file.name for file in files] == ["1000.pt", "900.pt"]
    assert resume._read(files)["at"] == 1000
    files[0].write_bytes(files[0].read_bytes()[:200])
    assert resume._read(files)["at"] == 900
    assert "1000.pt is damaged" in capsys.readouterr().err
    files[1].write_bytes(b"")
    with pytest.raises(LimaskError, match="no state in it is whole"):
        resume._read(files)


def test_a_state_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(tmp_path, 5)
    monkeypatch.setattr(resume, "__version__", "99.0")
    with pytest.raises(LimaskError, match=r"5\.pt was kept by limask .*, and this is 99\.0"):
        resume._read(states(tmp_path))


def test_a_full_disk_does_not_end_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(resume, "replace", full)
    run = resume.Resumption(host_parts.load_host("pymarlzooplus"), tmp_path, {"arguments": []}, 1.0, None)
    seen = SimpleNamespace(f_locals={
        "runner": SimpleNamespace(t_env=7), "logger": SimpleNamespace(stats={}), "buffer": _empty_buffer(),
        "args": SimpleNamespace(seed=1),
    })  # fmt: skip
    for _ in range(2):
        run._save(seen)  # type: ignore[arg-type]
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left on device" in line and "training goes on" in line
    assert states(tmp_path) == []


def test_seconds_of_all_runs_that_one_goes_on_with_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([1000.0, 1007.0, 1007.5])
    monkeypatch.setattr(resume.time, "monotonic", lambda: next(now))
    keep(tmp_path / "before", 5, seconds=60.0)
    host = host_parts.load_host("pymarlzooplus")
    run = resume.Resumption(host, tmp_path / "after", {"arguments": []}, 1.0, tmp_path / "before")
    args = SimpleNamespace(seed=1)
    found = {"runner": SimpleNamespace(t_env=7), "logger": None, "buffer": _empty_buffer(), "args": args}
    run._save(SimpleNamespace(f_locals=found))  # type: ignore[arg-type]
    assert seconds(tmp_path / "after") == 67.0
    assert seconds(tmp_path / "never") == 0.0


def _empty_buffer() -> Any:
    data = SimpleNamespace(transition_data={"filled": torch.zeros(4, 3, 1)}, episode_data={})
    return SimpleNamespace(data=data, episodes_in_buffer=0, buffer_index=0)


def test_a_run_leaves_the_state_of_another_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(tmp_path, 900)
    host = host_parts.load_host("pymarlzooplus")
    other = resume.Resumption(host, tmp_path, {"arguments": []}, 1.0, None)
    for _ in range(2):
        other._save(SimpleNamespace())  # type: ignore[arg-type]
    other.forget()
    (line,) = capsys.readouterr().err.splitlines()
    assert "is another run's, and this one keeps no state" in line and other.every == 0
    assert [file.name for file in states(tmp_path)] == ["900.pt"]
    resume.Resumption(host, tmp_path, {"arguments": []}, 1.0, tmp_path).forget()
    assert not (tmp_path / FOLDER).exists()


def test_what_was_logged_is_kept_where_a_host_forgets_it(tmp_path: Path) -> None:
    """PyMARL2's and PyMARL3's loggers empty their statistics whenever they have printed them."""

    class Logger:
        def __init__(self) -> None:
            self.stats: dict[str, Any] = {}

        def log_stat(self, key: str, value: Any, t: int, to_sacred: bool = True) -> None:
            self.stats = {key: (t, value)}

    host: Any = SimpleNamespace(module=lambda name: SimpleNamespace(REGISTRY={}), logger=lambda: Logger)
    run = resume.Resumption(host, tmp_path, {"arguments": []}, 0.0, None)
    run.install()
    logger = Logger()
    logger.log_stat("loss", np.float64(2.5), 7)
    logger.log_stat("episode", 3, 8, to_sacred=False)
    assert run._logged == [(7, "loss", 2.5, True), (8, "episode", 3, False)]
    assert logger.stats == {"episode": (8, 3)}


def test_the_replay_buffer_is_kept_without_its_padding() -> None:
    """Two episodes, of two steps and of one, of four that there is room for."""
    kept, new = _empty_buffer(), _empty_buffer()
    kept.buffer_index, kept.episodes_in_buffer, new.buffer_size = 2, 2, 4
    kept.data.transition_data["filled"][0, :2] = 1
    kept.data.transition_data["filled"][1, :1] = 1
    kept.data.transition_data["obs"] = torch.arange(24.0).view(4, 3, 2) * kept.data.transition_data["filled"]
    new.data.transition_data["obs"] = torch.zeros(4, 3, 2)
    state = resume._episodes_of(kept)
    assert state["tables"]["obs"].tolist() == [[0, 1], [2, 3], [6, 7]]
    resume._put_episodes(new, state)
    assert (new.buffer_index, new.episodes_in_buffer) == (2, 2)
    for key, values in kept.data.transition_data.items():
        assert torch.equal(new.data.transition_data[key], values), key
    new.buffer_size = 1
    with pytest.raises(LimaskError, match="the replay buffer is of another build"):
        resume._put_episodes(new, state)


def test_the_seed_that_was_drawn_is_kept() -> None:
    drawn = resume._with_seed({"arguments": ["--config=a"]}, 7)
    assert drawn == {"arguments": ["--config=a", "with", "seed=7"]}
    assert resume._with_seed({"arguments": ["with", "t=1"]}, 7) == {"arguments": ["with", "t=1", "seed=7"]}
    given = {"arguments": ["with", "seed=3"]}
    assert resume._with_seed(given, 7) is given


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--resume", "none"], "--resume=none has no state/"),
        (["--resume", "kept", "--host", "pymarlzooplus"], "the run goes on as it was started"),
        (["--resume", "kept", "t_max=9"], "the run goes on as it was started"),
        (["--config=qmix_lim"], "--host is missing"),
        (["--host", "pymarlzooplus", "--save-state", "-1"], "expected seconds"),
        (["--host", "pymarlzooplus", "--save-state", "nan"], "expected seconds"),
    ],
)
def test_mistakes(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    keep(tmp_path / "kept", 1)
    assert cli.main(["run", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert read_start(tmp_path / "kept")["arguments"] == ["with", "a=1"]


# -- campaigns ------------------------------------------------------------------------------------------


def test_a_campaign_goes_on_with_what_was_cut_off(tmp_path: Path) -> None:
    campaign = Campaign.from_block({
        "host": "pymarlzooplus", "t_max": 1000, "test_interval": 500, "thresholds": [0.5], "seeds": [1],
        "arms": {"a": {"config": "qmix_fc"}},
        "environments": {"3m": {"env_config": "smax", "env_args": {"map_name": "3m"}}},
    })  # fmt: skip
    from limask.experiments.campaign.folder import CampaignFolder

    folder = CampaignFolder(tmp_path, campaign)
    (run,) = campaign.runs()

    def next_command(*ended: Any) -> tuple[Any, list[str]]:
        job = attempt_job(folder, run)
        os.close(job.attempt.create({}))
        return job.attempt, list(job.command)

    first, command = next_command()
    assert "--resume" not in command
    keep(first.results, 400)
    first.settle(Outcome("interrupted", 1.0))

    second, command = next_command()
    assert command[command.index("--resume") + 1] == str(first.results)
    assert command[command.index("--results") + 1] == str(second.results)
    second.settle(Outcome("interrupted", 1.0))  # before it kept a state of its own
    third, command = next_command()
    assert command[command.index("--resume") + 1] == str(first.results)
    keep(third.results, 700, seconds=60.0)
    job = attempt_job(folder, run, third)
    job.seconds, job.process = 5.0, SimpleNamespace(returncode=0)  # type: ignore[assignment]
    assert job._outcome().seconds == 65.0
    third.settle(Outcome("failed", 1.0, "killed"))
    fourth, command = next_command()
    assert command[command.index("--resume") + 1] == str(third.results)
    fourth.settle(Outcome("failed", 1.0, "the same again"))
    # Who got no further may be stuck in what was kept: it begins anew.
    fifth, command = next_command()
    assert "--resume" not in command
    fifth.settle(Outcome("finished", 1.0))
    assert not list(tmp_path.rglob("*.pt"))
    assert json.loads((fifth.folder / "DONE").read_text())["result"] == "finished"
