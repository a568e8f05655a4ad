"""The compact replay buffer; ``replay_parts`` compares it with the hosts' own, in ``parity.py``."""

from __future__ import annotations

import io
from typing import Any

import host_parts
import numpy as np
import pytest
import replay_parts
import torch

from limask.errors import LimaskError
from limask.hosts.base import Host
from limask.learning import replay
from limask.learning.replay import CompactReplay, packed, unpacked


@pytest.fixture(scope="module")
def host() -> Host:
    return host_parts.load_host("pymarlzooplus")


def test_packed_by_hand() -> None:
    """Bits from the left, and of each number as few bytes as hold it; what is alike once."""
    steps = packed(np.array([[0, 7, 0], [300, 0, -1]]))
    assert steps.bits.tolist() == [[0b01000000], [0b10100000]]
    assert (steps.values.dtype, steps.values.tolist(), steps.n_values) == (np.int16, [7, 300, -1], 3)
    flags = packed(np.array([[0, 1], [1, 1]], dtype=np.int32))
    assert (flags.values.dtype, flags.values.tolist(), flags.n_values) == (np.uint8, [1], 3)
    nothing = packed(np.zeros((2, 9), dtype=np.float32))
    assert (nothing.bits.shape, len(nothing.values), nothing.n_values) == ((2, 2), 0, 0)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.int32, np.uint8, bool])
def test_every_bit_comes_back(kind: type) -> None:
    rng = np.random.default_rng(0)
    episodes = [
        (rng.normal(size=(n, 11)) * 100 * (rng.random((n, 11)) < 0.4)).astype(kind) for n in (4, 1, 6)
    ]
    if kind in (np.float32, np.float64):
        episodes[0][0, :3] = -0.0, np.nan, np.inf
    whole = unpacked([packed(episode) for episode in episodes], 7, (11,), np.dtype(kind))
    assert whole.dtype == kind
    for row, episode in zip(whole, episodes, strict=True):
        assert row[: len(episode)].tobytes() == episode.tobytes()
        assert not row[len(episode) :].any()


def test_the_hosts_contents_are_sampled(host: Host) -> None:
    replay_parts.check(host)


def filled(host: Host, n_episodes: int) -> Any:
    args = host_parts.make_args(host, "qmix_fc")
    buffer = replay_parts.make_buffer(host, args, n_episodes, True)
    CompactReplay.is_wanted = False
    buffer.insert_episode_batch(host_parts.make_batch(host, args, n_episodes - 2))
    return buffer


def test_an_empty_buffer_is_kept_too(host: Host) -> None:
    buffer = replay_parts.make_buffer(host, host_parts.make_args(host, "qmix_fc"), 4, True)
    CompactReplay.is_wanted = False
    buffer.put_back(buffer.kept())
    assert buffer.n_bytes == 0
    assert not buffer["filled"].any()


def test_what_is_kept_can_be_put_back(host: Host) -> None:
    buffer, other = filled(host, 20), filled(host, 20)
    kept = io.BytesIO()
    torch.save(buffer.kept(), kept)
    kept.seek(0)
    other.episodes = other.episodes[::-1]
    other.put_back(torch.load(kept, weights_only=True))
    assert replay_parts.is_same(buffer[:18], other[:18])
    assert buffer.n_bytes == sum(map(replay._size, buffer.episodes[:18]))


def test_a_buffer_that_will_not_fit_is_refused_while_it_fills(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_one = filled(host, 64).n_bytes / 62
    assert of_one > 500
    monkeypatch.setattr(replay, "memory_limit", lambda device: round(of_one * 40))
    with pytest.raises(
        LimaskError, match=r"GiB for buffer_size=64 episodes .*set buffer_size to at most \d\d$"
    ):
        filled(host, 64)
    monkeypatch.setattr(replay, "memory_limit", lambda device: round(of_one * 100))
    filled(host, 64)


def test_keys_of_all_episodes(host: Host) -> None:
    buffer = filled(host, 10)
    assert buffer["obs"].shape == (10, host_parts.LIMIT + 1, 3, host_parts.OBS_SIZE)
    assert not buffer["filled"][8:].any()
    assert buffer[3].batch_size == 1
    assert buffer[[1, 2], 0:2]["obs"].shape[:2] == (2, 2)
