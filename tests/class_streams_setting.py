"""What the tests of streams of classes share: a small class-incremental stream, walked."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cl_bench.schedule import schedule
from cl_bench.streams import class_incremental
from tests.stream_setting import task_of

TINY = {"size": 4, "classes": 8, "train": 80, "test": 24}  # 10 and 3 a class
GROW: dict[str, Any] = {
    "classes_per_task": 2, "epochs": 3, "batch_size": 5, "fit_per_class": 3,
    "crop_padding": 1,
}  # fmt: skip


def grow(**options: Any):
    base: dict[str, Any] = {"dataset": "synthetic", "dataset_options": TINY}
    return class_incremental.make(**base | GROW | options)


def walk(stream, task=0, seed=0, steps=None):
    """The batches of a task, leaves [steps, B, ...] on the host."""
    data, state = task_of(stream, task, seed)
    steps = schedule(stream.spec).lengths[task] if steps is None else steps
    read = jax.jit(jax.vmap(lambda i: stream.batch(data, state, i)))
    return jax.tree.map(np.asarray, read(jnp.arange(steps)))


def held_out(stream, split, task=0, now=0, i=0):
    data, state = task_of(stream, task)
    read = jax.jit(stream.held_out, static_argnums=2)
    batch = read(data, state, split, jnp.int32(now), jnp.int32(i))
    return jax.tree.map(np.asarray, batch)
