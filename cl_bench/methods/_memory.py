"""A fixed number of examples kept from the past, and who is given a place among them.

Shapes: M places, B batch, K outputs, T tasks. A memory is made by `empty` for one
policy and takes batches in by the function of that policy, `reservoir`,
`class_balanced` or `ring`. Padding (weight 0) is never stored.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.losses import squared_error
from cl_bench.types import Batch, Key, PyTree, StreamSpec

MOST_FLOATS = 2**31  # of one memory: 8 GiB


class Memory(NamedTuple):
    """M places; what is in one that is not `filled` means nothing."""

    x: Array  # [M, ...] float32
    y: Array  # [M] int32, or [M, K] float32
    classes: Array  # [M, K] bool, outputs in play when the example came
    task: Array  # [M] int32
    filled: Array  # [M] bool
    seen: Array  # int32, examples offered so far: (), or per class [K], or per task [T]
    in_play: Array  # [K] bool, every output that was in play so far
    full: PyTree  # [K] bool, 'class_balanced' only, else ()
    logits: PyTree  # [M, K] float32 where they are kept, else ()


def empty(
    spec: StreamSpec, capacity: int, policy: str, *, keep_logits: bool = False
) -> Memory:
    """A memory of `capacity` places. Raises ValueError: see `check`."""
    check(spec, capacity, policy)
    k = spec.num_outputs
    real = spec.loss == squared_error
    counted = {"reservoir": (), "class_balanced": (k,), "ring": (spec.num_tasks,)}
    return Memory(
        x=jnp.zeros((capacity, *spec.input_shape)),
        y=jnp.zeros((capacity, k)) if real else jnp.zeros(capacity, jnp.int32),
        classes=jnp.zeros((capacity, k), bool),
        task=jnp.zeros(capacity, jnp.int32),
        filled=jnp.zeros(capacity, bool),
        seen=jnp.zeros(counted[policy], jnp.int32),
        in_play=jnp.zeros(k, bool),
        full=jnp.zeros(k, bool) if policy == "class_balanced" else (),
        logits=jnp.zeros((capacity, k)) if keep_logits else (),
    )


def check(spec: StreamSpec, capacity: int, policy: str) -> None:
    """Raise ValueError for a memory that cannot hold what its policy needs."""
    if capacity < 1:
        raise ValueError(f"capacity={capacity}: a memory holds at least 1 example")
    real = spec.loss == squared_error
    if policy == "class_balanced" and real:
        raise ValueError(
            "policy='class_balanced' needs labels, and this stream has real targets: "
            "policy='reservoir'"
        )
    classes = max(spec.num_outputs, spec.num_classes)
    if not real and capacity < classes:
        raise ValueError(
            f"a memory of {capacity} examples is smaller than the number of classes, "
            f"{classes}: it has to hold {classes} at least"
        )
    floats = math.prod(spec.input_shape) + spec.num_outputs
    if capacity * floats > MOST_FLOATS:
        raise ValueError(
            f"a memory of {capacity} examples of {floats} numbers does not fit in "
            f"8 GiB: at most {MOST_FLOATS // floats} examples"
        )


def ring_capacity(spec: StreamSpec, per_task: int, capacity: int | None) -> int:
    """T x `per_task`. Raises ValueError where that is more than `capacity`, if given."""
    if per_task < 1:
        raise ValueError(f"memory_per_task={per_task}: at least 1 example")
    total = spec.num_tasks * per_task
    if capacity is not None and total > capacity:
        fits = capacity // spec.num_tasks
        fix = f"memory_per_task={fits} fits" if fits else (
            f"{spec.num_tasks} tasks need capacity={spec.num_tasks} at least"
        )  # fmt: skip
        raise ValueError(
            f"{spec.num_tasks} tasks x memory_per_task={per_task} are {total} "
            f"examples, more than capacity={capacity}: {fix}"
        )
    return total


# ---- taking a batch in


def note(memory: Memory, batch: Batch) -> Memory:
    """The memory that knows which outputs this batch has in play."""
    now = jnp.any(batch.classes & (batch.weight > 0)[:, None], axis=0)
    return memory._replace(in_play=memory.in_play | now)


def write(
    memory: Memory, batch: Batch, place: Array, logits: Array | None = None
) -> Memory:
    """The examples of a batch to their places [B], M for none.

    Where two examples have one place, the later is kept, as if they had come one by
    one: a scatter with duplicates promises no order.
    """
    later = jnp.triu(place[:, None] == place[None, :], k=1).any(axis=1)
    place = jnp.where(later, len(memory.filled), place)
    memory = note(memory, batch)

    def put(old: Array, new: Array | bool) -> Array:
        return old.at[place].set(new, mode="drop")

    return memory._replace(
        x=put(memory.x, batch.x),
        y=put(memory.y, batch.y),
        classes=put(memory.classes, batch.classes),
        task=put(memory.task, batch.task),
        filled=put(memory.filled, True),
        logits=() if logits is None else put(memory.logits, logits),
    )


def reservoir(
    key: Key, memory: Memory, batch: Batch, logits: Array | None = None
) -> Memory:
    """Vitter's Algorithm R: after n examples each of them is here with probability M/n.

    Example n (from 0): place n while n < M; then r ~ U{0..n}, place r if r < M.
    """
    size, keep = len(memory.filled), batch.weight > 0
    number = memory.seen + jnp.cumsum(keep) - 1
    draw = jax.random.randint(key, keep.shape, 0, jnp.maximum(number, 0) + 1)
    place = jnp.where(number < size, number, jnp.minimum(draw, size))
    memory = write(memory, batch, jnp.where(keep, place, size), logits)
    return memory._replace(seen=memory.seen + jnp.sum(keep))


class _Census(NamedTuple):
    """What `class_balanced` carries through a batch; no inputs, so that it is cheap."""

    owner: Array  # [M] int32, class in each place, K where there is none
    stored: Array  # [K] int32
    seen: Array  # [K] int32
    full: Array  # [K] bool
    place: Array  # [B] int32


def class_balanced(key: Key, memory: Memory, batch: Batch) -> Memory:
    """Class-balancing reservoir sampling (Chrysakis and Moens 2020, Algorithm 1).

    Once all places are filled, an example of a class that was never the largest takes
    the place of a random example of the largest class (of any of them, where several
    are). A class that is or was the largest is full: each of its n_c examples so far
    is among its m_c stored ones with probability m_c / n_c.

    # Departs from the paper: which classes were the largest counts from the moment all
    # places are filled; counted from the first example, classes that were ahead by
    # chance while the memory filled would keep what they had then.
    """
    size, classes = memory.classes.shape
    draws = jax.random.uniform(key, (2, len(batch.weight)))
    owner = jnp.where(memory.filled, memory.y, classes)
    stored = jnp.zeros(classes, jnp.int32).at[owner].add(1, mode="drop")
    nowhere = jnp.full(len(batch.weight), size, jnp.int32)

    def one(i: Array, now: _Census) -> _Census:
        return _one_example(i, batch.y[i], batch.weight[i] > 0, draws[:, i], now)

    first = _Census(owner, stored, memory.seen, memory.full, nowhere)
    last = jax.lax.fori_loop(0, len(batch.weight), one, first)
    memory = write(memory, batch, last.place)
    return memory._replace(seen=last.seen, full=last.full)


def _one_example(i: Array, c: Array, keep: Array, draw: Array, now: _Census) -> _Census:
    """Example i, of class c: the place it takes, and the census after it."""
    size, used = len(now.owner), jnp.sum(now.stored)
    filled = used >= size
    largest = now.stored == jnp.max(now.stored)
    full = jnp.where(keep & filled, now.full | largest, now.full)
    seen = now.seen.at[c].add(keep.astype(jnp.int32))
    chosen_from = jnp.where(full[c], now.owner == c, largest[now.owner])
    upto = jnp.cumsum(chosen_from)
    # The victim: number floor(draw * n) of the n to choose from.
    nth = jnp.minimum((draw[1] * upto[-1]).astype(jnp.int32), upto[-1] - 1)
    accepted = ~full[c] | (draw[0] * seen[c] < now.stored[c])
    place = jnp.where(accepted, jnp.argmax(upto > nth), size)
    place = jnp.where(keep, jnp.where(filled, place, used), size).astype(jnp.int32)
    leaves = now.owner.at[place].get(mode="fill", fill_value=len(seen))
    stored = now.stored.at[leaves].add(-1, mode="drop")
    stored = stored.at[c].add((place < size).astype(jnp.int32))
    owner = now.owner.at[place].set(c, mode="drop")
    return _Census(owner, stored, seen, full, now.place.at[i].set(place))


def ring(memory: Memory, batch: Batch, task: Array) -> Memory:
    """The last M / T examples of each task: places task * M / T and following."""
    per_task, keep = len(memory.filled) // len(memory.seen), batch.weight > 0
    number = memory.seen[task] + jnp.cumsum(keep) - 1
    place = task * per_task + number % per_task
    batch = batch._replace(task=jnp.full_like(batch.task, task))
    memory = write(memory, batch, jnp.where(keep, place, len(memory.filled)))
    return memory._replace(seen=memory.seen.at[task].add(jnp.sum(keep)))


# ---- giving examples back


def draw(key: Key, eligible: Array, size: int) -> tuple[Array, Array]:
    """`size` places of those `eligible` [M], uniform with replacement; whether any is."""
    upto = jnp.cumsum(eligible)
    total = upto[-1]
    nth = jax.random.randint(key, (size,), 0, jnp.maximum(total, 1))
    place = jnp.searchsorted(upto, nth, side="right").astype(jnp.int32)
    return jnp.minimum(place, len(eligible) - 1), total > 0


def recall(spec: StreamSpec, memory: Memory, place: Array, weight: Array) -> Batch:
    """The examples in `place` [n] as a batch of weight `weight` [n] or ().

    In play are, task-incremental, the outputs stored beside an example; else, and where
    a stream tells no tasks, all so far: an old example is none of the new classes.
    """
    classes = memory.classes[place]
    if spec.scenario != "task":
        classes = jnp.broadcast_to(memory.in_play, classes.shape)
    return Batch(
        x=memory.x[place],
        y=memory.y[place],
        weight=jnp.broadcast_to(jnp.asarray(weight, jnp.float32), place.shape),
        classes=classes,
        task=memory.task[place],
    )


def sample(
    key: Key, spec: StreamSpec, memory: Memory, size: int, eligible: Array | None = None
) -> tuple[Batch, Array]:
    """A batch of stored examples, weight 0 where there is none, and its places."""
    place, some = draw(key, memory.filled if eligible is None else eligible, size)
    return recall(spec, memory, place, some.astype(jnp.float32)), place
