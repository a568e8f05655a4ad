"""The battles' random numbers are jax's own, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from limask.envs.smax_random import threefry, unrolled_threefry

jax = pytest.importorskip("jax", reason="needs the extra smax")


def data(keys: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(keys))


@pytest.mark.parametrize("seed", [0, 7, 2**31])
def test_keys_and_numbers_equal_jax_s(seed: int) -> None:
    theirs, ours = (
        jax.random.key(seed, impl="threefry2x32"),
        jax.random.wrap_key_data(jax.random.PRNGKey(seed), impl=unrolled_threefry()),
    )
    for key in (jax.random.key(seed, impl=unrolled_threefry()), ours):
        assert (data(key) == data(theirs)).all()
    assert (data(jax.random.split(ours, 5)) == data(jax.random.split(theirs, 5))).all()
    assert (data(jax.random.fold_in(ours, 3)) == data(jax.random.fold_in(theirs, 3))).all()
    for shape in ((), (3,), (2, 5)):
        assert (jax.random.uniform(ours, shape) == jax.random.uniform(theirs, shape)).all()


def test_only_32_bits_at_a_time() -> None:
    key = jax.random.key(0, impl=unrolled_threefry())
    with pytest.raises(ValueError, match="16 random bits asked for: expected 32"):
        jax.random.bits(key, dtype=np.uint16)


def test_published_vectors() -> None:
    """Known answers of Random123's threefry2x32 with 20 rounds."""
    for word, known in ((0, (0x6B200159, 0x99BA4EFE)), (0xFFFFFFFF, (0x1CB996FC, 0xBB002BE7))):
        words = np.full(1, word, np.uint32)
        assert tuple(int(half[0]) for half in threefry((words, words), (words, words))) == known
