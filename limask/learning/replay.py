"""A host's replay buffer in a fraction of its memory, with the same contents to the last bit.

Hosts reserve every episode at its greatest length, flags and one-hot actions in 32 or 64 bits. Most of that
is zeros: padding, entities out of sight, the dead. Here an episode ends with its last number, and of each of
its steps are kept which numbers are not zero, a bit each, and these.

Axes: B episodes, T time steps, F numbers of a key at a time step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from limask.errors import LimaskError
from limask.memory import GIB, memory_limit

#: Episodes from which on their mean size tells what a full buffer will take.
ENOUGH = 32

#: What whole numbers are kept as, where they fit.
_SMALL = (np.uint8, np.int16, np.int32)


class Packed(NamedTuple):
    """One key of an episode of T steps: which numbers are not zero, ``bits`` (T, F / 8 rounded up) uint8, and
    these, in order; a single one stands for ``n_values`` that are all alike."""

    bits: np.ndarray
    values: np.ndarray
    n_values: int


def _is_nonzero(values: np.ndarray) -> np.ndarray:
    """Which numbers are more than zero bits: -0.0 is kept as it is."""
    return values.view(f"u{values.itemsize}") != 0


def packed(values: np.ndarray) -> Packed:
    """Numbers (T, F) → without their zeros."""
    is_kept = _is_nonzero(values)
    kept = values[is_kept]
    n_values = len(kept)
    if n_values and kept.dtype.kind == "i":
        low, high = kept.min(), kept.max()
        small = (kind for kind in _SMALL if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
        kept = kept.astype(next(small, kept.dtype))
    if n_values and (kept.view(f"u{kept.itemsize}") == kept[:1].view(f"u{kept.itemsize}")).all():
        kept = kept[:1].copy()
    return Packed(np.packbits(is_kept, axis=1), kept, n_values)


def unpacked(parts: Sequence[Packed], n_steps: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Episodes → numbers (B, T, *shape), zeros behind the end of each.

    Args:
        parts: of B episodes.
        n_steps: T, at least the length of the longest.
        shape: of the key at a time step.
        dtype: of the key.
    """
    n_numbers = int(np.prod(shape))
    bits = np.zeros((len(parts), n_steps, -(-n_numbers // 8)), dtype=np.uint8)
    for row, part in zip(bits, parts, strict=True):
        row[: len(part.bits)] = part.bits
    is_kept = np.unpackbits(bits, axis=2, count=n_numbers).view(bool)
    numbers = np.zeros(is_kept.shape, dtype=dtype)
    if kept := [part for part in parts if part.n_values]:
        numbers[is_kept] = _values(kept)
    return numbers.reshape(len(parts), n_steps, *shape)


def _values(parts: Sequence[Packed]) -> np.ndarray:
    """All numbers of episodes, of which each has some; one stands for all where they are alike."""
    if all(len(part.values) == 1 for part in parts):
        one_each = np.concatenate([part.values for part in parts])
        if (one_each.view(f"u{one_each.itemsize}") == one_each[:1].view(f"u{one_each.itemsize}")).all():
            return one_each[:1]
    return np.concatenate(
        [
            part.values if len(part.values) == part.n_values else part.values.repeat(part.n_values)
            for part in parts
        ]
    )


class CompactReplay:
    """Mixed in before a host's ``ReplayBuffer``, which inserts and samples by ``update`` and by index."""

    # Set by the host's.
    scheme: Any
    groups: Any
    batch_size: int
    max_seq_length: int
    device: Any
    data: Any
    buffer_size: int
    buffer_index: int
    episodes_in_buffer: int

    #: The host's own, of which samples are made.
    batch: type
    #: Whether the buffer that the host builds next is to be one.
    is_wanted: ClassVar[bool] = False

    def _setup_data(
        self, scheme: Any, groups: Any, batch_size: int, max_seq_length: int, preprocess: Any
    ) -> None:
        # Of no episode at all: the shapes and types of the keys.
        super()._setup_data(scheme, groups, 0, max_seq_length, preprocess)  # type: ignore[misc]
        for key, values in self.data.episode_data.items():
            self.data.episode_data[key] = values.new_zeros(batch_size, *values.shape[1:])
        nothing = {
            key: Packed(np.zeros((0, -(-values[0:0].flatten(2).shape[2] // 8)), np.uint8), np.zeros(0), 0)
            for key, values in self.data.transition_data.items()
        }
        self.episodes: list[dict[str, Packed]] = [nothing] * batch_size
        self.n_bytes, self._limit = 0, memory_limit("cpu")

    def update(
        self, data: Mapping[str, Any], bs: Any = slice(None), ts: Any = slice(None), mark_filled: bool = True
    ) -> None:
        """Put episodes in the places ``bs``, as the host's ``insert_episode_batch`` does.

        Raises:
            LimaskError: the buffer would not fit into the memory when it is full.
        """
        if data.keys() != self.data.transition_data.keys():
            super().update(data, bs, ts, mark_filled)  # type: ignore[misc]  # constants of episodes
            return
        numbers = {key: values.detach().cpu().flatten(2).numpy() for key, values in data.items()}
        is_used = np.logical_or.reduce([_is_nonzero(values).any(axis=2) for values in numbers.values()])
        # The last step that holds anything is the first from behind; where none does, all are kept.
        lengths = is_used.shape[1] - is_used[:, ::-1].argmax(axis=1)
        for i, place in enumerate(range(*bs.indices(self.batch_size))):
            episode = {key: packed(values[i, : lengths[i]]) for key, values in numbers.items()}
            self.n_bytes += _size(episode) - _size(self.episodes[place])
            self.episodes[place] = episode
            self._check_memory(max(place + 1, self.episodes_in_buffer))

    def _check_memory(self, n_episodes: int) -> None:
        needed = self.n_bytes / n_episodes * self.batch_size
        if n_episodes >= ENOUGH and self._limit is not None and needed > self._limit:
            raise LimaskError(
                f"replay buffer: {needed / GIB:.2f} GiB for buffer_size={self.batch_size} episodes like the "
                f"first {n_episodes}, and this process has {self._limit / GIB:.2f} GiB of memory; set "
                f"buffer_size to at most {int(self.batch_size * self._limit / needed)}"
            )

    def __getitem__(self, item: Any) -> Any:
        """Episodes as the host's ``EpisodeBatch``, up to the end of the longest of them; or keys of all."""
        if isinstance(item, str) or (isinstance(item, tuple) and all(isinstance(key, str) for key in item)):
            return self[: self.batch_size][item]
        places, steps = item if isinstance(item, tuple) else (item, slice(None))
        if isinstance(places, int):
            places = slice(places, places + 1)
        chosen = [self.episodes[place] for place in np.arange(self.batch_size)[places]]
        n_steps = max((len(part.bits) for episode in chosen for part in episode.values()), default=0)
        tables = {}
        for key, like in self.data.transition_data.items():
            parts = [episode[key] for episode in chosen]
            numbers = unpacked(parts, n_steps, tuple(like.shape[2:]), like.cpu().numpy().dtype)
            tables[key] = torch.from_numpy(numbers).to(self.device)
        constants = {key: values[places] for key, values in self.data.episode_data.items()}
        data = SimpleNamespace(transition_data=tables, episode_data=constants)
        batch = self.batch(self.scheme, self.groups, len(chosen), n_steps, data=data, device=self.device)
        return batch if steps == slice(None) else batch[:, steps]

    def kept(self) -> dict[str, Any]:
        """All episodes as plain data and tensors, by key; inverse: ``put_back``."""
        tables = {}
        for key in self.data.transition_data:
            parts = [episode[key] for episode in self.episodes[: self.episodes_in_buffer]]
            content = b"".join(part.bits.tobytes() + part.values.tobytes() for part in parts)
            sizes = [
                (*part.bits.shape, part.values.dtype.str, len(part.values), part.n_values) for part in parts
            ]
            tables[key] = (sizes, torch.from_numpy(np.frombuffer(content, np.uint8).copy()))
        return tables

    def put_back(self, tables: Mapping[str, Any]) -> None:
        """Put the episodes that were ``kept`` in the first places."""
        by_key = {key: _read(*table) for key, table in tables.items()}
        for place, parts in enumerate(zip(*by_key.values(), strict=True)):
            self.episodes[place] = dict(zip(by_key, parts, strict=True))
        self.n_bytes = sum(map(_size, self.episodes))


def _size(episode: Mapping[str, Packed]) -> int:
    """Bytes that it takes."""
    return sum(part.bits.nbytes + part.values.nbytes for part in episode.values())


def _read(sizes: Sequence[tuple[int, int, str, int, int]], content: torch.Tensor) -> list[Packed]:
    """What ``CompactReplay.kept`` has written of a key."""
    parts, start, data = [], 0, content.numpy()
    for n_steps, n_bytes, kind, n_kept, n_values in sizes:
        middle = start + n_steps * n_bytes
        end = middle + n_kept * np.dtype(kind).itemsize
        bits = data[start:middle].reshape(n_steps, n_bytes).copy()
        parts.append(Packed(bits, np.frombuffer(data[middle:end].tobytes(), kind), n_values))
        start = end
    return parts
