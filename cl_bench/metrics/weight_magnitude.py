"""Weight magnitude: mean |w| over all weight matrices."""

import jax.numpy as jnp

from cl_bench.metrics._parts import metric
from cl_bench.types import Metric, Network, StreamSpec


def make(net: Network, spec: StreamSpec) -> Metric:
    """`weight_magnitude`: mean |w| of every kernel entry, biases excluded.

    At the start of the task, before any training on it; the head's kernel counts too.
    Source: Dohare et al. 2024, who log it at every step and plot it per task.
    """
    del net, spec

    def read_start(probe):
        kernels = [
            layer["kernel"]
            for layer in probe.learner.net.params.values()
            if "kernel" in layer
        ]
        total = sum(jnp.sum(jnp.abs(kernel)) for kernel in kernels)
        return {"weight_magnitude": total / sum(kernel.size for kernel in kernels)}

    return metric(read_start=read_start)
