"""Weight magnitude: mean absolute weight."""

import jax.numpy as jnp
from jax import Array

from cl_bench import units
from cl_bench.metrics._parts import metric
from cl_bench.types import Metric, NetState, Network, StreamSpec


def make(net: Network, spec: StreamSpec) -> Metric:
    """`weight_magnitude`, mean |w| of all weight matrices, and of each layer's.

    Biases are left out, the head is not (`weight_magnitude/head`); weights of units that
    are not alive and edges that are not allowed do not count. Taken at the start of each
    task (Dohare et al. 2024 log the same number at every step).
    """
    del spec

    def read_start(probe):
        state = probe.learner.net
        rows: dict[str, Array] = {}
        total, number = jnp.zeros(()), jnp.zeros(())
        in_use = _in_use(net, state)
        for name, layer in state.params.items():
            if "kernel" not in layer:
                continue
            magnitude, count = jnp.abs(layer["kernel"]), float(layer["kernel"].size)
            if name in in_use:
                magnitude = jnp.where(in_use[name], magnitude, 0.0)
                count = jnp.maximum(jnp.sum(in_use[name]), 1)
            summed = jnp.sum(magnitude)
            rows[f"weight_magnitude/{name}"] = summed / count
            total, number = total + summed, number + count
        return {"weight_magnitude": total / number} | rows

    return metric(read_start=read_start)


def _in_use(net: Network, state: NetState) -> dict[str, Array]:
    """Which weights count, by module, for the modules where not all of them do."""
    allowed: dict[str, Array] = {}
    if state.alive:
        every = {u.name: jnp.ones(u.size, bool) for u in net.units} | state.alive
        spare = {name: ~alive for name, alive in every.items()}
        masks = units.param_mask(state.params, net.units, spare)
        allowed = {
            n: ~layer["kernel"] for n, layer in masks.items() if "kernel" in layer
        }
    for name, edges in (state.edges or {}).items():
        allowed[name] = edges & allowed.get(name, True)
    return allowed
