"""``limask bench replay``: the host's replay buffer against limask's compact one, filled with the same."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from limask.experiments import hosted
from limask.experiments.bench import speed_plots, timing
from limask.experiments.bench.speed import BATCH, ENVS, build
from limask.experiments.hosted import Shape
from limask.files import make_folder
from limask.hosts.base import Host

MAPS = ("3m", "2s3z", "27m_vs_30m")
#: Runs of all environments, and turns of each case.
RUNS, TURNS = 20, 15


def replay(output: Path) -> None:
    """Print a table, and write it as ``replay.csv`` into the folder ``output``.

    Raises:
        LimaskError: a package is missing.
    """
    host = hosted.load_host()
    make_folder(output)
    rows: list[timing.Row] = []
    print(timing.heading(), flush=True)
    for shape in map(hosted.smax_shape, MAPS):
        for row in _rows(host, shape):
            rows.append(row)
            print(timing.line(row), flush=True)
    speed_plots.write_csv(output / "replay.csv", rows)
    print(f"Written: {output / 'replay.csv'}")


def _rows(host: Host, shape: Shape) -> Iterator[timing.Row]:
    """Random battles, put into both buffers and sampled from both."""
    torch.manual_seed(0)
    arm = build(host, "qmix_fc", shape)
    runner = hosted.runner(host, "vector", arm.args, shape, arm.mac)
    buffers = {
        name: hosted.replay_buffer(host, shape, arm.args, RUNS * ENVS, is_compact=name == "compact")
        for name in ("host", "compact")
    }
    played = [runner.run()[0] for _ in range(RUNS)]
    battles = iter(played)
    inserted = timing.race(
        {name: partial(_insert, buffer) for name, buffer in buffers.items()}, lambda: next(battles), RUNS, 0
    )
    yield from timing.rows(f"{ENVS} episodes inserted", shape.name, inserted)
    places = iter(torch.randint(RUNS * ENVS, (TURNS + 1, BATCH)).tolist())
    sampled = timing.race(
        {name: partial(_sample, buffer) for name, buffer in buffers.items()}, lambda: next(places), TURNS, 1
    )
    yield from timing.rows(f"{BATCH} episodes sampled", shape.name, sampled)
    tables = buffers["host"].data.transition_data.values()
    host_mib = sum(values.numel() * values.element_size() for values in tables) / 2**20
    our_mib = buffers["compact"].n_bytes / 2**20
    case = f"memory of {RUNS * ENVS} episodes (MiB), compact"
    yield timing.Row(case, shape.name, host_mib, our_mib, host_mib / our_mib, 0.0)


def _insert(buffer: Any, batch: Any) -> float:
    return timing.seconds(lambda: buffer.insert_episode_batch(batch))


def _sample(buffer: Any, places: list[int]) -> float:
    def cut() -> None:
        batch = buffer[places]
        batch[:, : batch.max_t_filled()]

    return timing.seconds(cut)
