"""Whether a replay buffer fits into memory, asked before the host reserves it."""

from __future__ import annotations

import os
from pathlib import Path

from limask.errors import LimaskError

_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

GIB = 2**30


def replay_bytes(env_info: dict[str, int], buffer_size: int) -> int:
    """Bytes of a host's replay buffer.

    Args:
        env_info: sizes in the form of PyMARL's ``get_env_info``.
        buffer_size: episodes.
    """
    n_agents, n_actions = env_info["n_agents"], env_info["n_actions"]
    # Per agent: observation and one-hot action (float32), available actions (int32), action (int64).
    per_agent = 4 * env_info["obs_shape"] + 4 * n_actions + 4 * n_actions + 8
    # Per step: state and reward (float32), filled (int64), terminated (uint8).
    per_step = 4 * env_info["state_shape"] + 4 + 8 + 1
    steps = buffer_size * (env_info["episode_limit"] + 1)
    return steps * (n_agents * per_agent + per_step)


def check_replay(env_info: dict[str, int], buffer_size: int, device: str) -> str:
    """A line that says how large the replay buffer will be.

    Raises:
        LimaskError: it is larger than the whole memory that this process may use; both numbers are named.
    """
    needed, limit = replay_bytes(env_info, buffer_size), memory_limit(device)
    line = f"replay buffer: {needed / GIB:.2f} GiB for buffer_size={buffer_size} episodes"
    if limit is None or needed <= limit:
        return line
    who, other = ("this process", "") if device == "cpu" else ("the GPU", ", or buffer_cpu_only=True")
    raise LimaskError(
        f"{line}, and {who} has {limit / GIB:.2f} GiB of memory; "
        f"set buffer_size to at most {buffer_size * limit // needed}{other}"
    )


def memory_limit(device: str) -> int | None:
    """Bytes that this process may use on ``device``; None where the system does not say."""
    if device != "cpu":
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    limits = [int(text) for text in map(_read, _CGROUPS) if text.isdecimal()]
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(limits, default=None)


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
