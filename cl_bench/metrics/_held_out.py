"""Score on held-out examples of any task, one minibatch at a time."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cl_bench.types import Probe, StreamSpec

ALL_TASKS = 50  # streams of more tasks are evaluated on some of them


def check(spec: StreamSpec, minibatches: int) -> None:
    """Raise ValueError for less than one minibatch, or a stream without test examples."""
    if minibatches < 1:
        raise ValueError(f"minibatches={minibatches}: at least 1")
    if not spec.has_test:
        raise ValueError(
            "it reads test examples and this stream holds none: take online_accuracy, "
            "a stream that has them (label_permuted, say), or a data set with a test part"
        )


def scores(
    spec: StreamSpec, probe: Probe, task: Array, minibatches: int
) -> tuple[Array, Array]:
    """Mean score and loss on the first `minibatches` of a task's 'test' split.

    It stops after the split's last example. NaN where the labels of none of them are in
    play: a class that has not come is not wrong, it is unknown.
    """

    def more(state):
        i, weight, _ = state
        return (i < minibatches) & (weight > 0.0)

    def add(state):
        i, _, sums = state
        batch = probe.held_out(task, "test", i)
        logits, _ = probe.predict(probe.learner, batch)
        values = (
            spec.loss.score(logits, batch.y),
            spec.loss.per_example(logits, batch.y),
            jnp.ones_like(batch.weight),
        )
        seen = (batch.weight > 0.0) & in_play(batch.y, batch.classes)
        # A NaN of padding does not count either.
        found = [jnp.sum(jnp.where(seen, batch.weight * v, 0.0)) for v in values]
        return i + 1, jnp.sum(batch.weight), sums + jnp.stack(found)

    start = jnp.int32(0), jnp.ones(()), jnp.zeros(3)
    score, loss, weight = jax.lax.while_loop(more, add, start)[2]
    return score / weight, loss / weight


def in_play(y: Array, classes: Array) -> Array:
    """[B] bool: the label is among the outputs in play; True of real targets."""
    if y.ndim > 1:  # no class labels
        return jnp.ones(len(y), bool)
    return jnp.take_along_axis(classes, y[:, None], axis=1)[:, 0]


def evaluated_tasks(num_tasks: int) -> tuple[int, ...]:
    """All tasks of a stream of at most `ALL_TASKS`, else so many, log-spaced."""
    if num_tasks <= ALL_TASKS:
        return tuple(range(num_tasks))
    spaced = np.geomspace(1, num_tasks, ALL_TASKS).round().astype(int) - 1
    return tuple(sorted({int(task) for task in spaced}))
