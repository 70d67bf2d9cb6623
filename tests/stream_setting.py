"""What the tests of streams share: a task, its batches, and how uneven counts are."""

import jax
import jax.numpy as jnp
import numpy as np


def task_of(stream, task=0, seed=0):
    data = jax.tree.map(jnp.asarray, stream.load())
    return data, jax.jit(stream.start)(data, jax.random.key(seed), jnp.int32(task))


def batches_of(stream, data, state, steps):
    return jax.jit(jax.vmap(lambda i: stream.batch(data, state, i)))(jnp.arange(steps))


def chi_squared(counts):
    expected = counts.sum() / counts.size
    return np.sum((counts - expected) ** 2 / expected)
