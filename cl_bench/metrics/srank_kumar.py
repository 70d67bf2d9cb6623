"""Srank as the code of Kumar et al. counts it: one less than the definition."""

import jax.numpy as jnp
from jax import Array

from cl_bench.metrics._parts import first_activations, metric
from cl_bench.metrics._ranks import singular_values
from cl_bench.types import Metric, Network, StreamSpec


def srank_kumar(values: Array, delta: float) -> Array:
    """How many cumulative shares of the singular values are below 1 - delta.

    [k] descending -> () float32; 0 of a zero matrix, NaN of NaN.
    """
    total = jnp.sum(values)
    below = jnp.sum(jnp.cumsum(values) < (1.0 - delta) * total)
    return jnp.where(jnp.isnan(total), jnp.nan, below)


def make(
    net: Network, spec: StreamSpec, *, delta: float = 0.01, examples: int = 1_000
) -> Metric:
    """`srank_kumar`, mean over layers, and `srank_kumar/<layer>`: counts, not percent.

    The number of k with sum_{i<=k} sigma_i < (1 - delta) sum sigma, without the + 1 of
    the definition of srank (Kumar et al., ICLR 2021; here `abs_approximate_rank`):
    released code of Kumar et al., CoLLAs 2024. sigma are the singular values of a
    layer's activations, flattened to [n, positions * U], on the first `examples`
    examples of the new task, before any training on it.

    # Departs from the paper: training examples, where they take the next task's test
    # set, which not every stream has.
    """
    if not 0.0 <= delta < 1.0:
        raise ValueError(f"delta={delta}: at least 0, below 1")

    def read_start(probe):
        if not net.units:
            return {}
        acts = first_activations(net, spec, probe, examples)
        ranks = {
            name: srank_kumar(singular_values(h.reshape(len(h), -1)), delta)
            for name, h in acts.items()
        }
        rows = {f"srank_kumar/{name}": rank for name, rank in ranks.items()}
        return {"srank_kumar": sum(ranks.values()) / len(ranks)} | rows

    return metric(read_start=read_start)
