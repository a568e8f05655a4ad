"""The replay buffer's size is what the host really reserves, and what cannot fit is refused."""

from __future__ import annotations

import os
import platform

import host_parts
import pytest

from limask import memory
from limask.errors import LimaskError


def test_bytes_are_those_of_the_hosts_own_buffer() -> None:
    host = host_parts.load_host("pymarlzooplus")
    args = host_parts.make_args(host, "qmix_fc")
    batch = host_parts.make_batch(host, args, n_episodes=4)
    real = sum(v.numel() * v.element_size() for v in batch.data.transition_data.values())
    info = {
        "n_agents": args.n_agents,
        "n_actions": args.n_actions,
        "obs_shape": host_parts.OBS_SIZE,
        "state_shape": args.state_shape,
        "episode_limit": host_parts.LIMIT,
    }
    assert memory.replay_bytes(info, 4) == real


def test_what_cannot_fit_is_refused_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    # One step of one agent: 4·(1 + 1 + 1) + 8 = 20 bytes, and 4 + 13 for state, reward and flags: 37.
    info = {"n_agents": 1, "n_actions": 1, "obs_shape": 1, "state_shape": 1, "episode_limit": 0}
    monkeypatch.setattr(memory, "memory_limit", lambda device: 37 * 2**30)
    assert "37.00 GiB for buffer_size=1073741824" in memory.check_replay(info, 2**30, "cpu")
    with pytest.raises(LimaskError, match=r"74\.00 GiB .* has 37\.00 GiB .* at most 1073741824"):
        memory.check_replay(info, 2**31, "cpu")


def test_the_memory_of_this_process_is_known() -> None:
    limit = memory.memory_limit("cpu")
    assert limit is not None
    assert 2**27 < limit < 2**50


def test_freed_memory_is_kept_unless_the_user_has_said_how(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_TUNABLES"))]:
        monkeypatch.delenv(name)
    assert memory.keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert not memory.keep_freed_memory()
