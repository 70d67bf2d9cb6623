"""GEM: a step may not raise the loss of any task before, to first order."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import optimizers
from cl_bench.methods import _memory, _quadratic, _replay, _shares
from cl_bench.methods._compose import ExtraLoss, compose
from cl_bench.methods._memory import Memory
from cl_bench.methods.agem import SLOT, remembering
from cl_bench.types import (
    Clock,
    GradTransform,
    Key,
    Method,
    NetState,
    Network,
    PyTree,
    StreamSpec,
)

REFERENCE = (
    "Lopez-Paz and Ranzato, NIPS 2017 (arXiv 1706.08840), equation 11; released code "
    "(facebookresearch/GradientEpisodicMemory); jitter and sharing 'so_far': Hsu et al. "
    "2018 (arXiv 1810.12488), released code (GT-RIPL/Continual-Learning-Benchmark)"
)
NEEDS = frozenset({"boundaries"})
# No setting switches the constraints off: it is fine-tuning in the first task, and
# wherever the gradient conflicts with no past task.
NEUTRAL = None
SHARINGS = ("fixed", "so_far")


class Portion(NamedTuple):
    """How many of each past task's stored examples are read, while there are few."""

    size: int
    most: int  # past tasks


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """Permuted MNIST: 256 examples a task.

    `margin` is the least weight gamma of every past task's gradient once one conflicts
    ("memory strength"), `jitter` is added to the diagonal of the quadratic programme.
    `sharing`: 'fixed' keeps the last `memory_per_task` examples of each task, and
    `capacity`, if given, is the most that all tasks together may store; 'so_far' keeps
    `capacity` random ones (None: T x memory_per_task, which counts only then), shared
    by the tasks so far.
    `rehearse`: the stored examples of past tasks are also trained on, as many as the
    batch has. Not in the paper: a part of Hsu et al.'s code, whose GEM is a rehearsal.
    """

    margin: float = 0.5
    jitter: float = 1e-3
    memory_per_task: int = struct.field(pytree_node=False, default=256)
    capacity: int | None = struct.field(pytree_node=False, default=None)
    sharing: str = struct.field(pytree_node=False, default="fixed")
    rehearse: bool = struct.field(pytree_node=False, default=False)


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """g <- g + G^T u before the optimiser, where some past task's gradient has g_k . g < 0.

    G [t, P] are the gradients of the mean loss of all examples stored of each past task,
    and u the solution of (jitter on the diagonal) min 1/2 u^T G G^T u + g^T G^T u
    subject to u >= margin.

    A step costs a gradient of every stored example (statistics of a batch normalisation
    are those of a task's). Raises ValueError for a memory that does not fit, and a
    sharing that does not exist.
    """
    if hyper.sharing not in SHARINGS:
        raise ValueError(f"sharing={hyper.sharing!r} is none of {', '.join(SHARINGS)}")
    if hyper.sharing == "so_far":
        return _sharing(net, spec, hyper)
    capacity = _memory.ring_capacity(spec, hyper.memory_per_task, hyper.capacity)
    _memory.check(spec, capacity, "ring")
    memory = partial(_memory.empty, spec, capacity, "ring")
    portions = [Portion(hyper.memory_per_task, max(spec.num_tasks - 1, 1))]
    transform = _into_cone(net, spec, memory, portions, hyper)
    base = compose(
        net,
        spec,
        optimizers.make(hyper),
        grad_transforms=(transform,),
        extra_loss=_rehearsal(net, spec, hyper),
    )
    return remembering(base)


def _sharing(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """GEM whose memory is filled, and shared anew, at the end of each task."""
    capacity = hyper.capacity
    if capacity is None:
        capacity = spec.num_tasks * hyper.memory_per_task
    shares = _shares.empty(spec, capacity)
    portions = shared_portions(capacity, max(spec.num_tasks - 1, 1))
    transform = _into_cone(net, spec, lambda: shares.memory, portions, hyper)

    def end_task(key, clock, train, learner):
        now = _shares.Shares(learner.extra[SLOT], learner.extra["rank"])
        now = _shares.end_task(key, spec, now, clock.task, train)
        extra = {**learner.extra, SLOT: now.memory, "rank": now.rank}
        return learner._replace(extra=extra)

    base = compose(
        net,
        spec,
        optimizers.make(hyper),
        extra=lambda state: {"rank": shares.rank},
        grad_transforms=(transform,),
        extra_loss=_rehearsal(net, spec, hyper),
        end_task=end_task,
    )
    return remembering(base, lambda memory, batch, task: _memory.note(memory, batch))


def shared_portions(capacity: int, past: int) -> list[Portion]:
    """Of shares of 1, 2, ... `past` tasks, each at most a quarter of it too many.

    So that a long stream does not compile a gradient for every number of past tasks.
    """
    portions, fewest = [], 1
    while fewest <= past:
        most = min(fewest * 5 // 4, past)
        portions.append(Portion(capacity // fewest, most))
        fewest = most + 1
    return portions


def _rehearsal(net: Network, spec: StreamSpec, hyper: Hyper) -> ExtraLoss | None:
    """The mean loss over the batch and as many stored examples of past tasks."""
    if not hyper.rehearse:
        return None
    rehearsed = _replay.rehearsing(net, spec, spec.batch_size, "union", 1.0)

    def extra_loss(key, clock, params, learner, batch, logits):
        memory = learner.extra[SLOT]
        past = memory.filled & (memory.task < clock.task)
        return rehearsed(key, params, learner, memory, batch, logits, places=past)

    return extra_loss


def _into_cone(
    net: Network,
    spec: StreamSpec,
    memory: Callable[[], Memory],
    portions: list[Portion],
    hyper: Hyper,
) -> GradTransform:
    # The first task has no past, and does not pay for one.
    before = jnp.asarray([0, *(portion.most for portion in portions[:-1])])

    def update(key, clock, grads, state, memory):
        def projected(portion: Portion, grads: PyTree) -> PyTree:
            rows = task_gradients(net, spec, key, clock, state, memory, portion)
            past = jnp.arange(portion.most) < clock.task
            return project(grads, rows, past, hyper.margin, hyper.jitter)

        # By the clock, not by what is stored: lanes that share it then share the branch.
        branches = [
            lambda grads: grads,
            *(partial(projected, portion) for portion in portions),
        ]
        used = jax.lax.switch(jnp.sum(clock.task > before), branches, grads)
        return used, memory

    return GradTransform(lambda state: memory(), update)


def task_gradients(
    net: Network,
    spec: StreamSpec,
    key: Key,
    clock: Clock,
    state: NetState,
    memory: Memory,
    portion: Portion,
) -> PyTree:
    """Gradient of each past task's stored examples, 0 for others: leaves [most, ...]."""
    tasks, places = spec.num_tasks, len(memory.filled)
    owner = jnp.where(memory.filled, memory.task, tasks)
    by_task = jnp.argsort(owner, stable=True)
    stored = jnp.sum(owner == jnp.arange(tasks)[:, None], axis=1)
    first, nth = jnp.cumsum(stored) - stored, jnp.arange(portion.size)

    def set_row(task: Array, rows: PyTree) -> PyTree:
        # Padding is the task's own examples again, of weight 0.
        place = by_task[(first[task] + nth % jnp.maximum(stored[task], 1)) % places]
        old = _memory.recall(spec, memory, place, nth < stored[task])

        def loss(params):
            at = state._replace(params=params)
            forward = jax.random.fold_in(key, task)
            logits = net.apply(at, old.x, train=True, key=forward)[0]
            return _replay.mean_loss(spec, logits, old)

        grads = jax.grad(loss)(state.params)
        return jax.tree.map(lambda all_, g: all_.at[task].set(g), rows, grads)

    rows = jax.tree.map(lambda p: jnp.zeros((portion.most, *p.shape)), state.params)
    turns = jnp.minimum(clock.task, portion.most)  # past tasks only
    return jax.lax.fori_loop(0, turns, set_row, rows)


def project(
    g: PyTree, rows: PyTree, past: Array, margin: Array | float, jitter: Array | float
) -> PyTree:
    """g + G^T u if any of the `past` [T] rows of G conflicts with g, else g.

    With u = margin + w for past tasks, 0 for the others, and w >= 0. The leaves of G are
    those of g with a leading axis [T]; they are not joined into one vector, which costs
    as much as the gradients.
    """
    along = _sum(jax.tree.map(lambda r, x: _matmul(_flat(r), x.ravel()), rows, g))
    gram = _sum(jax.tree.map(lambda r: _matmul(_flat(r), _flat(r).T), rows))
    gram = gram + jitter * jnp.eye(len(past))
    least = margin * past
    w = _quadratic.solve(gram, jnp.where(past, along + gram @ least, 0.0))
    conflict = jnp.any(past & (along < 0))

    def moved(x: Array, r: Array) -> Array:
        there = x + _matmul(least + w, _flat(r)).reshape(x.shape)
        return jnp.where(conflict, there, x)

    return jax.tree.map(moved, g, rows)


def _flat(rows: Array) -> Array:
    return rows.reshape(len(rows), -1)


def _sum(tree: PyTree) -> Array:
    return sum(jax.tree.leaves(tree), start=jnp.float32(0.0))


def _matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
