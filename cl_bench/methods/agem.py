"""A-GEM: a step may not raise the mean loss of the tasks before, to first order."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import optimizers
from cl_bench.methods import _memory, _replay
from cl_bench.methods._compose import compose
from cl_bench.methods._memory import Memory
from cl_bench.types import GradTransform, Method, Network, PyTree, StreamSpec

REFERENCE = (
    "Chaudhry et al., ICLR 2019 (arXiv 1812.00420), equation 11; numbers of the "
    "protocol from secondary baselines"
)
NEEDS = frozenset({"boundaries"})  # which of the stored examples are of past tasks
# No setting switches the constraint off: it is fine-tuning in the first task, and
# wherever the gradient and the reference do not conflict.
NEUTRAL = None
SLOT = "grad_transform_0"


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """Permuted MNIST: 250 examples a task, and 256 of them make the reference.

    `capacity`, if given, is the most that all tasks together may store.
    """

    memory_per_task: int = struct.field(pytree_node=False, default=250)
    reference_batch_size: int = struct.field(pytree_node=False, default=256)
    capacity: int | None = struct.field(pytree_node=False, default=None)


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """g <- g - (g . r / r . r) r where g . r < 0, before the optimiser.

    r is the gradient of the mean loss of a random batch of the examples stored of past
    tasks (with replacement), the last `memory_per_task` of each. Raises ValueError for
    a memory that does not fit, and a reference of no examples.
    """
    capacity = _memory.ring_capacity(spec, hyper.memory_per_task, hyper.capacity)
    _memory.check(spec, capacity, "ring")
    if hyper.reference_batch_size < 1:
        raise ValueError(
            f"reference_batch_size={hyper.reference_batch_size}: at least 1 example"
        )
    transform = _away_from(net, spec, capacity, hyper.reference_batch_size)
    base = compose(net, spec, optimizers.make(hyper), grad_transforms=(transform,))
    return remembering(base)


def remembering(base: Method, take_in: Callable[..., Memory] = _memory.ring) -> Method:
    """The method whose memory, in `SLOT`, takes each batch in before the step.

    Before, so that the memory knows which outputs are in play now; what it holds of the
    current task is not used. `take_in`: (memory, batch, task) -> memory.
    """

    def step(key, clock, batch, learner):
        memory = take_in(learner.extra[SLOT], batch, clock.task)
        learner = learner._replace(extra={**learner.extra, SLOT: memory})
        return base.step(key, clock, batch, learner)

    return base._replace(step=step)


def _away_from(
    net: Network, spec: StreamSpec, capacity: int, size: int
) -> GradTransform:
    def update(key, clock, grads, state, memory):
        def projected(grads):
            pick, forward = (jax.random.fold_in(key, i) for i in range(2))
            past = memory.filled & (memory.task < clock.task)
            old, _ = _memory.sample(pick, spec, memory, size, past)

            def loss(params):
                at = state._replace(params=params)
                logits = net.apply(at, old.x, train=True, key=forward)[0]
                return _replay.mean_loss(spec, logits, old)

            return project(grads, jax.grad(loss)(state.params))

        # The first task has no past, and does not pay for one.
        used = jax.lax.cond(clock.task > 0, projected, lambda g: g, grads)
        return used, memory

    return GradTransform(lambda state: _memory.empty(spec, capacity, "ring"), update)


def project(grads: PyTree, reference: PyTree) -> PyTree:
    """g - (g . r / r . r) r where g . r < 0, else g itself."""
    # In units of its largest entry: where every stored example is answered without
    # doubt r is as small as 1e-20, and its square would be 0.
    sizes = [jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(reference)]
    largest = jnp.max(jnp.stack(sizes))
    unit = jnp.where(largest > 0, largest, 1.0)
    direction = jax.tree.map(lambda r: r / unit, reference)
    along = _dot(grads, direction)
    conflict = along < 0
    share = along / jnp.where(conflict, _dot(direction, direction), 1.0)
    return jax.tree.map(
        lambda g, r: jnp.where(conflict, g - share * r, g), grads, direction
    )


def _dot(a: PyTree, b: PyTree) -> Array:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return jnp.stack([jnp.sum(x * y) for x, y in pairs]).sum()
