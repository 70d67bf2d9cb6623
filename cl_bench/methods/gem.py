"""GEM: a step may not raise the loss of any task before, to first order."""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.flatten_util import ravel_pytree

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
            flat, unravel = ravel_pytree(grads)
            rows = task_gradients(net, spec, key, clock, state, memory)
            past = jnp.arange(spec.num_tasks) < clock.task
            return unravel(project(flat, rows, past, hyper.margin, hyper.jitter))

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
) -> Array:
    """Gradient of each past task's stored examples, 0 for the others: [T, P]."""
    per_task = len(memory.filled) // spec.num_tasks

    def add_row(task: Array, rows: Array) -> Array:
        place = task * per_task + jnp.arange(per_task)
        old = _memory.recall(spec, memory, place, memory.filled[place])

        def loss(params):
            at = state._replace(params=params)
            forward = jax.random.fold_in(key, task)
            logits = net.apply(at, old.x, train=True, key=forward)[0]
            return _replay.mean_loss(spec, logits, old)

        return rows.at[task].set(ravel_pytree(jax.grad(loss)(state.params))[0])

    size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    rows = jnp.zeros((spec.num_tasks, size))
    return jax.lax.fori_loop(0, clock.task, add_row, rows)  # past tasks only


def project(
    g: Array, rows: Array, past: Array, margin: Array | float, jitter: Array | float
) -> Array:
    """g + G^T u if any of the `past` [T] rows of G [T, P] conflicts with g [P], else g.

    With u = margin + w for past tasks, 0 for the others, and w >= 0.
    """
    high = jax.lax.Precision.HIGHEST
    along = jnp.matmul(rows, g, precision=high)
    gram = jnp.matmul(rows, rows.T, precision=high) + jitter * jnp.eye(len(rows))
    least = margin * past
    w = _quadratic.solve(gram, jnp.where(past, along + gram @ least, 0.0))
    moved = g + jnp.matmul(least + w, rows, precision=high)
    return jnp.where(jnp.any(past & (along < 0)), moved, g)
