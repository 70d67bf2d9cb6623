"""What the tests of the fixtures share: a key, a clock, and a stream's first batches."""

import jax
import jax.numpy as jnp

from cl_bench import lane as lanes
from cl_bench.types import Clock

KEY = lanes.run_key(0)
START = Clock(jnp.int32(0), jnp.int32(0), jnp.int32(0))


def first_batches(stream, count, task=0):
    """Leaves [count, B, ...] of a task's first batches."""
    data = jax.tree.map(jnp.asarray, stream.load())
    state = stream.start(data, KEY, jnp.int32(task))
    return jax.vmap(lambda i: stream.batch(data, state, i))(jnp.arange(count))
