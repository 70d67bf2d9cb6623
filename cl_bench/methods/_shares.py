"""A memory that all tasks so far share equally, in random examples of each.

As in the released code of Hsu et al. 2018 (GT-RIPL/Continual-Learning-Benchmark), for
naive rehearsal and GEM alike. Shapes: M places, B batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.methods import _memory
from cl_bench.methods._memory import Memory
from cl_bench.types import Key, StreamSpec, TrainBatches


class Shares(NamedTuple):
    """A memory, and each example's place in the random order of its own task."""

    memory: Memory
    rank: Array  # [M] int32


def empty(spec: StreamSpec, capacity: int) -> Shares:
    """A memory of `capacity` places, none of them taken. Raises ValueError: `check`."""
    check(spec, capacity)
    memory = _memory.empty(spec, capacity, "reservoir")
    return Shares(memory, jnp.zeros(capacity, jnp.int32))


def check(spec: StreamSpec, capacity: int) -> None:
    """Raise ValueError for a memory with less than one example of a class or task."""
    _memory.check(spec, capacity, "reservoir")
    if capacity < spec.num_tasks:
        raise ValueError(
            f"capacity={capacity} is less than one example for each of the "
            f"{spec.num_tasks} tasks: at least {spec.num_tasks}"
        )


def end_task(
    key: Key, spec: StreamSpec, shares: Shares, task: Array, train: TrainBatches
) -> Shares:
    """M // (task + 1) places for every task so far, its own random choice for this one.

    Old tasks keep the examples of lowest rank, so that what stays is a random choice.
    """
    memory, rank = shares
    places, share = len(memory.filled), len(memory.filled) // (task + 1)
    kept = memory.filled & (memory.task < task) & (rank < share)
    free = jnp.argsort(kept, stable=True)  # places not kept come first
    ranks = jnp.zeros_like(rank).at[free].set(jnp.arange(places))
    batches = max(spec.examples_per_task // spec.batch_size, 1)
    order = _random_order(key, train, batches)

    def take_in(i: Array, memory: Memory) -> Memory:
        batch, mine = train(i), order[i]
        batch = batch._replace(task=jnp.full_like(batch.task, task))
        place = free[jnp.minimum(mine, places - 1)]
        wanted = (mine < share) & (batch.weight > 0)
        return _memory.write(memory, batch, jnp.where(wanted, place, places))

    memory = jax.lax.fori_loop(0, batches, take_in, memory._replace(filled=kept))
    return Shares(memory, jnp.where(kept, rank, ranks))


def _random_order(key: Key, train: TrainBatches, batches: int) -> Array:
    """Number of each of the task's examples in a random order, padding last: [n, B]."""
    weight = jax.lax.map(lambda i: train(i).weight, jnp.arange(batches))
    draws = jnp.where(weight > 0, jax.random.uniform(key, weight.shape), 2.0)
    order = jnp.argsort(draws.ravel())
    numbers = jnp.arange(draws.size, dtype=jnp.int32)
    return jnp.zeros_like(numbers).at[order].set(numbers).reshape(draws.shape)
