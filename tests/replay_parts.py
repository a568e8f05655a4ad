"""A host's replay buffer beside limask's compact one."""

from __future__ import annotations

import inspect
from typing import Any

import host_parts
import numpy as np
import torch

from limask.hosts.base import Host
from limask.learning.replay import CompactReplay


def make_buffer(host: Host, args: Any, n_episodes: int, is_compact: bool) -> Any:
    """For ``n_episodes`` as long as those of ``host_parts.make_batch``."""
    one_hot = host.module("components.transforms").OneHot(out_dim=args.n_actions)
    kind = host.module("components.episode_buffer").ReplayBuffer
    between = [args] if "args" in inspect.signature(kind.__init__).parameters else []
    CompactReplay.is_wanted = is_compact
    buffer = kind(
        host_parts.make_scheme(args, host_parts.OBS_SIZE),
        {"agents": args.n_agents},
        *between,
        n_episodes,
        host_parts.LIMIT + 1,
        preprocess={"actions": ("actions_onehot", [one_hot])},
    )
    assert isinstance(buffer, CompactReplay) == is_compact
    assert isinstance(buffer, kind)
    return buffer


def is_same(ours: Any, theirs: Any) -> bool:
    """Whether two ``EpisodeBatch`` hold the same to the last bit, up to the end of the longest episode."""
    tables = ours.data.transition_data, theirs.data.transition_data
    until = theirs.max_t_filled()
    assert ours.max_t_filled() == until
    cut = ours[:, :until], theirs[:, :until]
    assert [part.max_seq_length for part in cut] == [int(until)] * 2
    assert cut[0].batch_size == cut[1].batch_size
    padding = theirs.max_seq_length - ours.max_seq_length
    return tables[0].keys() == tables[1].keys() and all(
        tables[0][key].dtype == values.dtype
        and tables[0][key].numpy().tobytes()
        == values[:, : ours.max_seq_length].contiguous().numpy().tobytes()
        and not values[:, values.shape[1] - padding :].any()
        for key, values in tables[1].items()
    )


def check(host: Host) -> None:
    """Whatever is put into both buffers, the same is sampled from both: as they fill up, and when places are
    taken again, with the same draws."""
    args = host_parts.make_args(host, "qmix_fc")
    buffers = [make_buffer(host, args, 20, is_compact) for is_compact in (True, False)]
    CompactReplay.is_wanted = False
    for seed in range(8):
        batch = host_parts.make_batch(host, args, n_episodes=5 + seed % 2, seed=seed)
        batch["obs"][0, 0, 0, :2] = torch.tensor([-0.0, torch.inf])
        batch["reward"][1, 0] = torch.nan
        samples = []
        for buffer in buffers:
            buffer.insert_episode_batch(batch)
            np.random.seed(seed)
            samples.append([buffer.sample(count) for count in (1, 4, buffer.episodes_in_buffer)])
            samples[-1].append(buffer[1:3])
        for ours, theirs in zip(*samples, strict=True):
            assert is_same(ours, theirs)
        places = [(buffer.buffer_index, buffer.episodes_in_buffer) for buffer in buffers]
        assert places[0] == places[1]
    assert places[0] == (44 % 20, 20), "some places were taken again"
    compact, own = buffers
    stored = sum(values.numel() * values.element_size() for values in own.data.transition_data.values())
    assert compact.n_bytes < stored
