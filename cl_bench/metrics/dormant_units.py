"""Dormant units: hidden units that are almost never, or almost not, active."""

import jax.numpy as jnp
from jax import Array

from cl_bench.metrics._parts import first_activations, metric
from cl_bench.types import Metric, Network, StreamSpec


def dormant_dohare(h: Array, threshold: float) -> Array:
    """[n, U] -> [U] bool: h != 0 on a share of the entries below `threshold`.

    Source: Dohare et al. 2024 (class-incremental CIFAR-100 and reinforcement learning).
    """
    return jnp.mean(h != 0.0, axis=0) < threshold


def dormant_sokar(h: Array, in_use: Array, tau: float) -> Array:
    """[n, U], [U] -> [U] bool: mean |h_i| over the layer's mean of it is at most `tau`.

    The layer's mean is over the units in use; in a layer of zeros all are dormant.
    Source: Sokar et al., ICML 2023, Eq. 1.
    """
    mean = jnp.mean(jnp.abs(h), axis=0)
    over_units = jnp.sum(mean * in_use) / jnp.maximum(jnp.sum(in_use), 1)
    return mean <= tau * over_units


def make(
    net: Network,
    spec: StreamSpec,
    *,
    threshold: float = 0.01,
    tau: float = 0.025,
    examples: int = 1_000,
) -> Metric:
    """`dormant_units_dohare`, `dormant_units_sokar` and both by layer, in [0, 1].

    Fractions of the hidden units, on the first `examples` examples of the new task,
    before any training on it; `tau` 0.025 is what Sokar et al. report, 0.1 what ReDo
    acts on. Units that are not alive (spare capacity) do not count. NaN where an
    activation is NaN.
    """

    def read_start(probe):
        acts = first_activations(net, spec, probe, examples)
        rows: dict[str, Array] = {}
        totals, size = [jnp.zeros(()), jnp.zeros(())], jnp.zeros(())
        names = ("dormant_units_dohare", "dormant_units_sokar")
        for unit in net.units:
            h = acts[unit.name].reshape(-1, unit.size)
            in_use = probe.learner.net.alive.get(unit.name, jnp.ones(unit.size, bool))
            width = jnp.maximum(jnp.sum(in_use), 1)
            size = size + width
            found = dormant_dohare(h, threshold), dormant_sokar(h, in_use, tau)
            broken = jnp.isnan(jnp.sum(h))
            for i, name in enumerate(names):
                count = jnp.where(broken, jnp.nan, jnp.sum(found[i] & in_use))
                rows[f"{name}/{unit.name}"] = count / width
                totals[i] = totals[i] + count
        if not net.units:
            return {}
        return {name: totals[i] / size for i, name in enumerate(names)} | rows

    return metric(read_start=read_start)
