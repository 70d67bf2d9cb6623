"""Input subspaces of dense layers: the inputs of a task, a projection that grows."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench import linalg, units
from cl_bench.types import Batch, NetState, Network, PyTree, StreamSpec, TrainBatches

ROUNDING = 1e-6  # of a singular value, times the matrix's side and norm


def first_examples(
    spec: StreamSpec,
    train: TrainBatches,
    examples: int,
    read: Callable[[Batch], PyTree],
) -> PyTree:
    """`read(batch)` [B, ...] of the task's first `examples` training examples.

    At most one pass over the task; leaves are [examples, ...].
    """
    count = min(examples, spec.examples_per_task)
    batches = max(1, -(-count // spec.batch_size))
    found = jax.lax.map(lambda i: read(train(i)), jnp.arange(batches))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], found)


def layer_inputs(
    net: Network, spec: StreamSpec, state: NetState, train: TrainBatches, examples: int
) -> dict[str, Array]:
    """What each module reads of the first examples, module -> [examples, fan in].

    In evaluation mode; rows of padding are 0.
    """
    kernels = {name: layer["kernel"] for name, layer in state.params.items()}

    def read(batch):
        _, acts, _ = net.apply(state, batch.x, train=False, key=None)
        real = (batch.weight > 0)[:, None]
        inputs = units.layer_inputs(net.units, kernels, acts)
        return {name: jnp.where(real, h, 0.0) for name, h in inputs.items()}

    return first_examples(spec, train, examples, read)


def grow(projection: Array, inputs: Array, threshold: Array | float) -> Array:
    """P [D, D] with the fewest new directions that make it hold `threshold` of energy.

    R = inputs^T [D, n], R_hat = R - P R = U S V^T: the first k columns of U join P,
    k the smallest with ||P R||^2 + sum_{j <= k} S_j^2 >= threshold ||R||^2.
    """
    r = inputs.T
    inside = projection @ r
    u, s, _ = linalg.svd(r - inside)
    total = jnp.sum(jnp.square(r))
    before = jnp.cumsum(jnp.square(s))[:-1]
    # Energy held without direction j: exactly 0 at first, so that threshold 0 is none.
    held = jnp.sum(jnp.square(inside)) + jnp.concatenate([jnp.zeros(1), before])
    # What rounding leaves of a direction that P already holds is none.
    real = s > ROUNDING * max(r.shape) * jnp.sqrt(total)
    u = jnp.where((held < threshold * total) & real, u, 0.0)
    return projection + u @ u.T
