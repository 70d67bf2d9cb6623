"""Weight norms: mean of all parameters, and l1 and l2 norm of all weights."""

import jax
import jax.numpy as jnp

from cl_bench import units
from cl_bench.metrics._parts import metric
from cl_bench.types import Metric, Network, StreamSpec


def make(net: Network, spec: StreamSpec) -> Metric:
    """`parameter_magnitude`, `weight_l1` and `weight_l2`, at each task's start.

    parameter_magnitude: mean |theta| over all parameters, biases and scales too (Dohare
    et al. 2024, class-incremental CIFAR-100). weight_l1 = sum |w| and
    weight_l2 = sqrt(sum w^2) over all weight matrices at once, biases left out (Elsayed
    and Mahmood, ICLR 2024). Parameters of units that are not alive and edges that are
    not allowed do not count.

    # Departs from the paper: Elsayed and Mahmood average both norms over all steps.
    """
    del spec

    def read_start(probe):
        state = probe.learner.net
        masks = units.counted(state, net.units)
        kept = jax.tree.map(lambda w, m: jnp.where(m, w, 0.0), state.params, masks)
        kernels = [layer["kernel"] for layer in kept.values() if "kernel" in layer]
        absolute = sum(jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(kept))
        number = sum(jnp.sum(mask) for mask in jax.tree.leaves(masks))
        return {
            "parameter_magnitude": absolute / number,
            "weight_l1": sum(jnp.sum(jnp.abs(k)) for k in kernels),
            "weight_l2": jnp.sqrt(sum(jnp.sum(jnp.square(k)) for k in kernels)),
        }

    return metric(read_start=read_start)
