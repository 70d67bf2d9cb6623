"""GEM: a step may not raise the loss of any task before, to first order."""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import optimizers
from cl_bench.methods import _memory, _quadratic, _replay
from cl_bench.methods._compose import compose
from cl_bench.methods._memory import Memory
from cl_bench.methods.agem import remembering
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
    "(facebookresearch/GradientEpisodicMemory); jitter: GT-RIPL's version of it"
)
NEEDS = frozenset({"boundaries"})
# No setting switches the constraints off: it is fine-tuning in the first task, and
# wherever the gradient conflicts with no past task.
NEUTRAL = None


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """Permuted MNIST: 256 examples a task.

    `margin` is the least weight gamma of every past task's gradient once one conflicts
    ("memory strength"), `jitter` is added to the diagonal of the quadratic programme.
    `capacity`, if given, is the most that all tasks together may store.
    """

    margin: float = 0.5
    jitter: float = 1e-3
    memory_per_task: int = struct.field(pytree_node=False, default=256)
    capacity: int | None = struct.field(pytree_node=False, default=None)


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """g <- g + G^T u before the optimiser, where some past task's gradient has g_k . g < 0.

    G [t, P] are the gradients of the mean loss of all examples stored of each past task,
    the last `memory_per_task` of it, and u the solution of (jitter on the diagonal)
    min 1/2 u^T G G^T u + g^T G^T u subject to u >= margin.

    A step costs one gradient for every past task. Raises ValueError for a memory that
    does not fit.
    """
    capacity = _memory.ring_capacity(spec, hyper.memory_per_task, hyper.capacity)
    _memory.check(spec, capacity, "ring")
    transform = _into_cone(net, spec, capacity, hyper)
    base = compose(net, spec, optimizers.make(hyper), grad_transforms=(transform,))
    return remembering(base)


def _into_cone(
    net: Network, spec: StreamSpec, capacity: int, hyper: Hyper
) -> GradTransform:
    def update(key, clock, grads, state, memory):
        def projected(grads):
            rows = task_gradients(net, spec, key, clock, state, memory)
            past = jnp.arange(spec.num_tasks) < clock.task
            return project(grads, rows, past, hyper.margin, hyper.jitter)

        # The first task has no past, and does not pay for one.
        used = jax.lax.cond(clock.task > 0, projected, lambda g: g, grads)
        return used, memory

    return GradTransform(lambda state: _memory.empty(spec, capacity, "ring"), update)


def task_gradients(
    net: Network,
    spec: StreamSpec,
    key: Key,
    clock: Clock,
    state: NetState,
    memory: Memory,
) -> PyTree:
    """Gradient of each past task's stored examples, 0 for the others: leaves [T, ...]."""
    per_task = len(memory.filled) // spec.num_tasks

    def add_row(task: Array, rows: PyTree) -> PyTree:
        place = task * per_task + jnp.arange(per_task)
        old = _memory.recall(spec, memory, place, memory.filled[place])

        def loss(params):
            at = state._replace(params=params)
            forward = jax.random.fold_in(key, task)
            logits = net.apply(at, old.x, train=True, key=forward)[0]
            return _replay.mean_loss(spec, logits, old)

        grads = jax.grad(loss)(state.params)
        return jax.tree.map(lambda all_, g: all_.at[task].set(g), rows, grads)

    tasks = spec.num_tasks
    rows = jax.tree.map(lambda p: jnp.zeros((tasks, *p.shape)), state.params)
    return jax.lax.fori_loop(0, clock.task, add_row, rows)  # past tasks only


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
