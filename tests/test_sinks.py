"""Sinks behind a host's logger: real TensorBoard files, real Weights & Biases offline."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from limask import cli
from limask.errors import LimaskError
from limask.hosts import sinks

CONFIG = {"name": "qmix", "env": "gymma", "env_args": {"key": "lbforaging:Foraging-8x8"}, "seed": 5}


class Recorder:
    """A sink that keeps what it is given, in order."""

    def __init__(self) -> None:
        self.given: list[tuple[Any, ...]] = []

    def open(self, name: str, config: Any) -> None:
        self.given.append((name.rsplit("_", 2)[0], config))

    def write(self, key: str, value: float, step: int) -> None:
        self.given.append((key, value, step))


@pytest.fixture
def logger() -> type:
    """A logger as the hosts have it."""

    class Logger:
        def __init__(self) -> None:
            self.stats: list[tuple[Any, ...]] = []

        def setup_sacred(self, run: Any) -> None:
            self.run = run

        def log_stat(self, key: str, value: Any, t: int, to_sacred: bool = True) -> None:
            self.stats.append((key, value, t, to_sacred))

    return Logger


def test_everything_is_passed_on_and_the_host_keeps_its_own(logger: type) -> None:
    recorder = Recorder()
    sinks.attach(logger, [recorder])  # type: ignore[list-item]
    log = logger()
    log.setup_sacred(run := SimpleNamespace(config=CONFIG))
    log.log_stat("return_mean", 0.5, 100)
    log.log_stat("loss", 2, 101.0, to_sacred=False)
    assert log.run is run
    assert log.stats == [("return_mean", 0.5, 100, True), ("loss", 2, 101.0, False)]
    name = "qmix_lbforaging-Foraging-8x8_seed5"
    assert recorder.given == [(name, CONFIG), ("return_mean", 0.5, 100), ("loss", 2.0, 101)]


def test_tensorboard_files_are_whole_at_any_moment(tmp_path: Path) -> None:
    sink = sinks.TensorboardSink(tmp_path)
    sink.open("a_run", CONFIG)
    sink.write("return_mean", 0.5, 100)
    sink.write("return_mean", 0.75, 200)
    # Not closed: the host may leave by os._exit.
    events = EventAccumulator(str(tmp_path / "tensorboard" / "a_run"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("return_mean")] == [(100, 0.5), (200, 0.75)]


@pytest.fixture
def wandb_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    wandb = pytest.importorskip("wandb", reason="needs the extra wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "own"))
    yield wandb
    wandb.teardown()


def test_wandb_offline_keeps_the_run_on_this_machine(wandb_offline: Any, tmp_path: Path) -> None:
    sink = sinks.WandbSink(tmp_path / "results")
    sink.open("a_run", CONFIG)
    for step in (100, 200):
        sink.write("return_mean", step / 1000, step)
    sink._run.finish()
    wandb_offline.teardown()  # waits for the process that writes
    (file,) = (tmp_path / "results" / "wandb").glob("offline-run-*/*.wandb")
    kept = file.read_bytes()
    # A record of each statistic, beside the name and the seed of the run.
    assert kept.count(b"return_mean") >= 2 and kept.count(b"environment_steps") >= 2
    assert b"a_run" in kept and b"lbforaging:Foraging-8x8" in kept


def test_absent_wandb_is_named_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "wandb":
            raise ImportError("No module named 'wandb'")
        return original(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(LimaskError, match=r"--sink=wandb: .*pip install 'limask\[wandb\]'"):
        sinks.WandbSink(tmp_path)
    command = ["run", "--host", "pymarlzooplus", "--results", str(tmp_path / "new"), "--sink", "wandb"]
    assert cli.main([*command, "--config=qmix_lim", "--env-config=smax"]) == 2
    assert "limask[wandb]" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_hosts_that_leave_metrics_empty_have_them_filled(logger: type) -> None:
    told: list[tuple[Any, ...]] = []
    run = SimpleNamespace(config=CONFIG, log_scalar=lambda *given: told.append(given))
    sinks.mirror_in_metrics(logger)
    log = logger()
    log.setup_sacred(run)
    log.log_stat("loss", torch.tensor(0.5), 100)
    assert told == [("loss", 0.5, 100)]
    assert log.stats == [("loss", torch.tensor(0.5), 100, True)]


def test_runs_that_start_in_the_same_second_have_folders_of_their_own(tmp_path: Path) -> None:
    names = [sinks.new_folder(tmp_path / "tensorboard", "qmix_3m_seed0_now").name for _ in range(3)]
    assert names == ["qmix_3m_seed0_now", "qmix_3m_seed0_now_2", "qmix_3m_seed0_now_3"]
