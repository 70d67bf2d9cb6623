"""Naive rehearsal: at its end each task leaves a random, equal share of the memory."""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import optimizers
from cl_bench.methods import _memory, _replay
from cl_bench.methods._compose import compose
from cl_bench.methods._memory import Memory
from cl_bench.types import Key, Method, Network, StreamSpec, TrainBatches

REFERENCE = (
    "Hsu et al., 2018 (arXiv 1810.12488), naive rehearsal, released code (GT-RIPL/"
    "Continual-Learning-Benchmark); weighting 'by_task': van de Ven and Tolias, 2019 "
    "(arXiv 1904.07734), released code"
)
NEEDS = frozenset({"boundaries"})
NEUTRAL = {"replay_weight": 0.0}
WEIGHTINGS = ("union", "half", "by_task")


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """Capacity of "Naive rehearsal" on Split MNIST; 4400 is "Naive rehearsal-C".

    None replays as many examples as the stream's batch has.
    """

    replay_weight: float = 1.0
    capacity: int = struct.field(pytree_node=False, default=1100)
    replay_batch_size: int | None = struct.field(pytree_node=False, default=None)
    weighting: str = struct.field(pytree_node=False, default="union")


def check(hyper: Hyper) -> None:
    """Raise ValueError for an option that does not exist or an empty replay."""
    _replay.check_weighting(hyper.weighting, WEIGHTINGS)
    _replay.check_size(hyper.replay_batch_size)


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """From the second task on, (1 - a) L(batch) + a L(replayed), a of `_replay.share`;
    after task t (from 1) the memory holds M // t random examples of each task so far.

    # Departs from the released code: it shuffles the task's examples with about as many
    # (repeated) stored ones and walks through all of them, twice as many steps a task;
    # here every batch is half new and half old. A stream of half the batch size, and
    # replay_batch_size=None, makes the same number of steps on batches of the same size
    # (but in the first task, where they are half as large).

    Raises ValueError where there is less than one example a task.
    """
    check(hyper)
    _memory.check(spec, hyper.capacity, "reservoir")
    if hyper.capacity < spec.num_tasks:
        raise ValueError(
            f"capacity={hyper.capacity} is less than one example for each of the "
            f"{spec.num_tasks} tasks: at least {spec.num_tasks}"
        )
    size = hyper.replay_batch_size or spec.batch_size

    def extra(state):
        del state
        memory = _memory.empty(spec, hyper.capacity, "reservoir")
        return {"memory": memory, "rank": jnp.zeros(hyper.capacity, jnp.int32)}

    def extra_loss(key, clock, params, learner, batch, logits):
        pick, forward = (jax.random.fold_in(key, i) for i in range(2))
        memory = _memory.note(learner.extra["memory"], batch)

        def rehearse(params, logits):
            old, _ = _memory.sample(pick, spec, memory, size)
            part = _replay.share(
                hyper.weighting, hyper.replay_weight, batch, old, clock.task
            )
            recalled = _replay.logits_of(net, forward, params, learner, old.x)
            replayed = _replay.mean_loss(spec, recalled, old)
            return _replay.mixed(_replay.mean_loss(spec, logits, batch), replayed, part)

        # The first task has nothing to rehearse, and does not pay for it.
        none = lambda params, logits: jnp.zeros(())
        return jax.lax.cond(clock.task > 0, rehearse, none, params, logits)

    def end_task(key, clock, train, learner):
        memory, rank = share_equally(
            key, spec, learner.extra["memory"], learner.extra["rank"], clock.task, train
        )
        extra = {**learner.extra, "memory": memory, "rank": rank}
        return learner._replace(extra=extra)

    return compose(
        net,
        spec,
        optimizers.make(hyper),
        extra=extra,
        extra_loss=extra_loss,
        end_task=end_task,
    )


def share_equally(
    key: Key,
    spec: StreamSpec,
    memory: Memory,
    rank: Array,
    task: Array,
    train: TrainBatches,
) -> tuple[Memory, Array]:
    """M // (task + 1) places for every task so far, its own random choice for this one.

    `rank` [M] is an example's place in the random order of its own task: old tasks keep
    the examples of lowest rank, so that what stays is a random choice again.
    """
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
    return memory, jnp.where(kept, rank, ranks)


def _random_order(key: Key, train: TrainBatches, batches: int) -> Array:
    """Number of each of the task's examples in a random order, padding last: [n, B]."""
    weight = jax.lax.map(lambda i: train(i).weight, jnp.arange(batches))
    draws = jnp.where(weight > 0, jax.random.uniform(key, weight.shape), 2.0)
    order = jnp.argsort(draws.ravel())
    numbers = jnp.arange(draws.size, dtype=jnp.int32)
    return jnp.zeros_like(numbers).at[order].set(numbers).reshape(draws.shape)
