"""Epochs: every row once in a new random order, and then again in another.

Not a component. The orders of a whole task are drawn in `start`, so that a step only
reads them; `_images.next_examples` repeats one order instead.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array, lax

from cl_bench.types import Key


def epoch_orders(key: Key, epochs: int, count: int) -> Array:
    """[epochs, count] int32: row e is the order of epoch e, uniform and independent.

    Raises ValueError for fewer than one epoch or one row.
    """
    if epochs < 1 or count < 1:
        raise ValueError(
            f"epochs={epochs} of {count} rows: there must be at least 1 of each."
        )
    # Random high bits over the entry's place in the low ones: 250 epochs of 1,200 take
    # a CPU 16 ms, and 42 ms with jax.random.permutation, which sorts pairs. Entries
    # whose high bits tie keep their order; so many rounds leave a row a tie with
    # probability below 1 / count, which is the rule of jax.random.permutation too.
    place_bits = (count - 1).bit_length()
    rounds = max(1, math.ceil(3 * math.log2(count) / (32 - place_bits)))
    low = jnp.uint32(2**place_bits - 1)
    place = jnp.arange(count, dtype=jnp.uint32)
    orders = jnp.broadcast_to(place, (epochs, count))
    for round_key in jax.random.split(key, rounds):
        bits = jax.random.bits(round_key, (epochs, count), jnp.uint32)
        drawn = lax.sort((bits & ~low) | place, dimension=1) & low
        orders = jnp.take_along_axis(
            orders, drawn.astype(jnp.int32), axis=1, mode="promise_in_bounds"
        )
    return orders.astype(jnp.int32)


def epoch_rows(orders: Array, i: Array, batch_size: int) -> Array:
    """[B] int32: rows of batch i of a walk along `orders` [epochs, count].

    Every epoch has count // batch_size batches; what is left over of its order is
    not read. Past the last epoch the walk starts again. Raises ValueError for a
    batch_size that is not within 1 .. count.
    """
    epochs, count = orders.shape
    if not 1 <= batch_size <= count:
        raise ValueError(f"batch_size={batch_size} is not between 1 and {count} rows.")
    batches = count // batch_size
    epoch, batch = lax.rem(i // batches, epochs), lax.rem(i, batches)
    start = (epoch, batch * batch_size)
    return lax.dynamic_slice(orders, start, (1, batch_size))[0]
