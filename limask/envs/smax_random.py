"""jax's own random numbers, generated without loops.

On a CPU, jax compiles its generator's rounds to a loop of many tiny operations, to be done with compiling
sooner. A battle's step draws from it ten times and more: the loops took an eighth of its time.
"""

from __future__ import annotations

import functools
import importlib
import math
from typing import Any, TypeAlias

#: Rotations of Threefry-2x32's even and odd groups of four rounds.
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA

#: An array of jax, which is an extra: its types are not there to be looked at.
Array: TypeAlias = Any


@functools.cache
def unrolled_threefry() -> Array:
    """An implementation for ``jax.random.wrap_key_data``: the same bits as jax's default, ``threefry2x32``.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
    """
    define = importlib.import_module("jax.extend.random").define_prng_impl
    random = importlib.import_module("jax.random")
    return define(
        key_shape=(2,),
        seed=lambda seed: random.key_data(random.key(seed, impl="threefry2x32")),
        split=_split,
        random_bits=_random_bits,
        fold_in=_fold_in,
        name="unrolled_threefry",
        tag="ufry",
    )


def threefry(key: tuple[Array, Array], counter: tuple[Array, Array]) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds: two uint32 of a key and two arrays of counters → two arrays of uint32."""
    keys = (*key, key[0] ^ key[1] ^ _PARITY)
    x, y = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x = x + y
            y = (y << rotation) | (y >> (32 - rotation))
            y = x ^ y
        x, y = x + keys[(group + 1) % 3], y + keys[(group + 2) % 3] + (group + 1)
    return x, y


def _hashed(key: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    jnp = importlib.import_module("jax.numpy")
    counter = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)
    return threefry((key[0], key[1]), (jnp.zeros_like(counter), counter))


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    return importlib.import_module("jax.numpy").stack(_hashed(key, shape), axis=-1)


def _random_bits(key: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
    if bit_width != 32:
        raise ValueError(f"{bit_width} random bits asked for: expected 32, as a battle draws")
    high, low = _hashed(key, shape)
    return high ^ low


def _fold_in(key: Array, data: Array) -> Array:
    jnp = importlib.import_module("jax.numpy")
    return jnp.stack(threefry((key[0], key[1]), (jnp.zeros_like(data), data)))
