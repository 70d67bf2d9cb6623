"""Weight magnitude: mean absolute weight."""

import jax.numpy as jnp
from jax import Array

from cl_bench import units
from cl_bench.metrics._parts import metric
from cl_bench.types import Metric, Network, StreamSpec


def make(net: Network, spec: StreamSpec) -> Metric:
    """`weight_magnitude`, mean |w| of all weight matrices, and of each layer's.

    Biases are left out, the head is not (`weight_magnitude/head`); weights of units that
    are not alive and edges that are not allowed do not count. Taken at the start of each
    task (Dohare et al. 2024 log the same number at every step). `weight_norms` has the
    mean over all parameters.
    """
    del spec

    def read_start(probe):
        state = probe.learner.net
        rows: dict[str, Array] = {}
        total, number = jnp.zeros(()), jnp.zeros(())
        masks = units.counted(state, net.units)
        for name, layer in state.params.items():
            if "kernel" not in layer:
                continue
            mask = masks[name]["kernel"]
            count = jnp.sum(mask)
            summed = jnp.sum(jnp.where(mask, jnp.abs(layer["kernel"]), 0.0))
            rows[f"weight_magnitude/{name}"] = summed / jnp.maximum(count, 1)
            total, number = total + summed, number + count
        return {"weight_magnitude": total / number} | rows

    return metric(read_start=read_start)
