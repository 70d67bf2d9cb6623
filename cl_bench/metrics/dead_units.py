"""Dead units: hidden units that are exactly 0 on all of a task's first examples."""

import jax.numpy as jnp

from cl_bench.metrics._parts import first_activations, metric
from cl_bench.types import Metric, Network, StreamSpec


def make(net: Network, spec: StreamSpec, *, examples: int = 2_000) -> Metric:
    """`dead_units` in [0, 1] of all hidden units, and `dead_units/<layer>`.

    A unit is dead if the sum of |h| over the first `examples` examples of the new task,
    before any training on it, is exactly 0 (Dohare et al. 2024). Units that are not
    alive (spare capacity) do not count. NaN where an activation is NaN.
    """

    def read_start(probe):
        acts = first_activations(net, spec, probe, examples)
        dead, total, rows = jnp.zeros(()), jnp.zeros(()), {}
        for unit in net.units:
            h = jnp.abs(acts[unit.name]).reshape(-1, unit.size).sum(axis=0)
            in_use = probe.learner.net.alive.get(unit.name, jnp.ones(unit.size, bool))
            dead_here, size = jnp.sum((h == 0.0) & in_use), jnp.sum(in_use)
            count = jnp.where(jnp.isnan(jnp.sum(h)), jnp.nan, dead_here)
            rows[f"dead_units/{unit.name}"] = count / jnp.maximum(size, 1)
            dead, total = dead + count, total + size
        return {"dead_units": dead / jnp.maximum(total, 1), **rows} if rows else {}

    return metric(read_start=read_start)
