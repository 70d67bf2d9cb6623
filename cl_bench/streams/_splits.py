"""The parts of a data set that no task trains on: which there are, and their rows.

Not a component.
"""

import jax.numpy as jnp
from jax import Array

from cl_bench.registry import UnknownNameError, nearest
from cl_bench.streams._images import Images
from cl_bench.types import Dataset

SPLITS = ("fit", "tune", "test")
EACH_CLASS = "use a data set that has some of each class"  # where a class has none


def held_out_rows(
    images: Images, split: str, i: Array, size: int
) -> tuple[Array, Array]:
    """Rows [size] of minibatch i of a split, and their weights: 0 past its last row.

    Raises ValueError, while tracing, for a split that holds no examples.
    """
    check_split(split)
    first, count = images.held_out[split]
    if not count:
        how = f"make the stream with {split}_examples=N"
        raise no_examples(split, how, "use a data set that has a test part")
    row = i * size + jnp.arange(size)
    return first + jnp.minimum(row, count - 1), (row < count).astype(jnp.float32)


def check_split(split: str) -> None:
    """Raise UnknownNameError for a split that does not exist."""
    if split not in SPLITS:
        raise UnknownNameError(f"Unknown split {split!r}.{nearest(split, SPLITS)}")


def no_examples(split: str, how: str, how_test: str) -> ValueError:
    """The error of a split without examples, with what would give it some."""
    how = how_test if split == "test" else how
    return ValueError(f"This stream holds no {split!r} examples: {how}.")


def split_arrays(data: Dataset, split: str) -> tuple[Array, Array]:
    """The arrays that `held_out_rows` counts in."""
    return (
        (data.test_x, data.test_y) if split == "test" else (data.train_x, data.train_y)
    )


def spread(number: Array, total: Array | int) -> Array:
    """A fixed order of 0 .. total - 1 in which any first part is a fair sample.

    `number` [B] is a place in that order, number s mod total for a step s that has no
    factor in common with total and is close to the golden section of it; numbers from
    total on stay where they are. Rows sorted by class are then read evenly. For a total
    up to 2**20.
    """
    total = jnp.asarray(total, jnp.int32)
    # Among 32 neighbours one at least is coprime to a number below 2**20.
    steps = (0.6180340 * total).astype(jnp.int32) + jnp.arange(32, dtype=jnp.int32)
    step = steps[jnp.argmax(jnp.gcd(steps, total) == 1)] % total
    high, low = jnp.divmod(jnp.minimum(number, total - 1), 1024)  # products below 2**31
    place = (high * step % total * 1024 % total + low * step) % total
    return jnp.where(number < total, place, number)
