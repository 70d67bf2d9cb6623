"""Dead units as Kumar et al. count them: each position of a feature map is a neuron."""

import jax.numpy as jnp

from cl_bench.metrics._parts import alive_units, first_activations, metric
from cl_bench.types import Metric, Network, StreamSpec


def make(net: Network, spec: StreamSpec, *, examples: int = 1_000) -> Metric:
    """`dead_units_kumar` in [0, 1] of all hidden neurons, and by layer.

    A layer's activations [n, ..., U] are flattened to [n, neurons], so that a unit of a
    convolution counts once for each of its positions; a neuron is dead if it is exactly
    0 on all of the first `examples` examples of the new task, before any training on it
    (Kumar et al., CoLLAs 2024, "Maintaining plasticity in continual learning via
    regenerative regularization", released code). Of dense layers the same as
    `dead_units`. Units that are not alive do not count. NaN where an activation is NaN.

    # Departs from the paper: training examples, where they take the next task's test
    # set, which not every stream has.
    """

    def read_start(probe):
        acts = first_activations(net, spec, probe, examples)
        dead, total, rows = jnp.zeros(()), jnp.zeros(()), {}
        for unit in net.units:
            h = jnp.abs(acts[unit.name]).sum(axis=0)  # [..., U]
            in_use = jnp.broadcast_to(alive_units(probe.learner.net, unit), h.shape)
            size = jnp.sum(in_use)
            count = jnp.sum(jnp.where(in_use, (h == 0.0) + 0.0 * h, 0.0))
            rows[f"dead_units_kumar/{unit.name}"] = count / jnp.maximum(size, 1)
            dead, total = dead + count, total + size
        return (
            {"dead_units_kumar": dead / jnp.maximum(total, 1), **rows} if rows else {}
        )

    return metric(read_start=read_start)
