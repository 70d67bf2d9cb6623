"""Epochs over tasks of unequal size: one table a task, of one size for every task.

Not a component. `_epochs.py` serves tasks that all have the same number of examples;
here the number is traced, because it depends on the task.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from cl_bench.types import Key


def table_size(steps: int, count: int, batch_size: int) -> int:
    """Entries that `shuffled_epochs` needs for `steps` batches out of `count` examples."""
    return -(-steps // (count // batch_size)) * count


def check_batch(batch_size: int, smallest: int) -> None:
    """Raises ValueError where a batch is larger than the smallest task."""
    if not 1 <= batch_size <= smallest:
        raise ValueError(
            f"batch_size={batch_size}: the smallest task has {smallest} examples, so "
            f"that 1 to {smallest} work."
        )


def shuffled_epochs(key: Key, count: Array, size: int) -> Array:
    """[size] int32: 0 .. count - 1 in a random order, then in another one, and so on.

    Entries e * count to (e + 1) * count are epoch e. One sort of the whole table by
    (epoch, random bits): 0.2 microseconds an entry on a CPU, so once a task.
    """
    position = jnp.arange(size, dtype=jnp.int32)
    epoch, example = position // count, position % count
    bits = jax.random.bits(key, (size,), jnp.uint32)
    return lax.sort((epoch, bits, example), num_keys=2)[2]


def batch_of(table: Array, i: Array, count: Array, batch_size: int) -> Array:
    """[B] int32 examples of batch i; an epoch leaves out its last count % B entries."""
    epoch, step = jnp.divmod(jnp.int32(i), count // batch_size)
    first = epoch * count + step * batch_size
    return lax.dynamic_slice_in_dim(table, first, batch_size)
