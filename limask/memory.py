"""Memory of a run: whether its replay buffer fits, and what becomes of what is freed."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

from limask.errors import LimaskError

_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

GIB = 2**30

#: Share of a host's replay buffer that ``lim.compact_replay`` leaves, at most in what was measured.
COMPACT = 0.2

# mallopt's parameters in glibc's malloc.h: how much free memory at the end of the heap is too much, and how
# many blocks may be fetched by mmap.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _MAX_INT = -1, -4, 2**31 - 1


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


def check_sampling(batch_size: int, buffer_size: int, batch_size_run: int, t_max: int) -> None:
    """Refuse a run in which the replay buffer never holds a batch: it would end without having learned.

    Args:
        batch_size: episodes that a sample takes.
        buffer_size: episodes that the replay buffer holds.
        batch_size_run: episodes that are played at a time.
        t_max: environment steps, of which an episode takes at least one.

    Raises:
        LimaskError: names both options and what to set.
    """
    if buffer_size < batch_size:
        raise LimaskError(
            f"buffer_size={buffer_size} with batch_size={batch_size}: the replay buffer would never hold a "
            f"batch, and nothing would be learned; set buffer_size to at least {batch_size}, or lower "
            "batch_size"
        )
    if t_max + batch_size_run < batch_size:
        raise LimaskError(
            f"t_max={t_max} with batch_size={batch_size}: the run would end before there are as many "
            "episodes, and nothing would be learned; raise t_max, or lower batch_size"
        )


def check_replay(
    env_info: dict[str, int], buffer_size: int, device: str, batch_size: int = 1, is_compact: bool = False
) -> str:
    """A line that says how large the replay buffer will be; a compact one by what is usual.

    Raises:
        LimaskError: it is larger than the whole memory that this process may use; both numbers are named.
    """
    needed, limit = replay_bytes(env_info, buffer_size), memory_limit(device)
    line = f"replay buffer: {needed / GIB:.2f} GiB for buffer_size={buffer_size} episodes"
    if is_compact:
        whole, needed = needed, round(COMPACT * needed)
        line = (
            f"replay buffer: about {needed / GIB:.2f} GiB for buffer_size={buffer_size} episodes when it is "
            f"full (without lim.compact_replay {whole / GIB:.2f} GiB from the start)"
        )
    if limit is None or needed <= limit:
        return line
    who, other = ("this process", "") if device == "cpu" else ("the GPU", ", or buffer_cpu_only=True")
    fits = buffer_size * limit // needed
    advice = f"set buffer_size to at most {fits}"
    if fits < batch_size:  # such a buffer would never hold a batch
        advice += f", and batch_size={batch_size} to no more than that"
    raise LimaskError(f"{line}, and {who} has {limit / GIB:.2f} GiB of memory; {advice}{other}")


def memory_limit(device: str) -> int | None:
    """Bytes that this process may use on ``device``; None where the system does not say."""
    if device != "cpu":
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    limits = [int(text) for text in map(_read, _CGROUPS) if text.isdecimal()]
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(limits, default=None)


def free_memory() -> int | None:
    """Bytes that the system can give away without swapping; None where it does not say."""
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed for the next update instead of handing it back to the system.

    An update needs large tensors for a moment, and the same ones again in the next: fetching their pages from
    the system anew each time can cost more than all arithmetic. It concerns this process only.
    Whoever has set one of glibc's ``MALLOC_*`` variables, or runs elsewhere, keeps what they have.

    Returns:
        Whether it was done.
    """
    is_set = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if is_set or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _MAX_INT))
