"""Effective rank: how many directions the hidden activations spread over."""

import jax.numpy as jnp
from jax import Array

from cl_bench.metrics._parts import PROBE_EXAMPLES, metric
from cl_bench.metrics._ranks import percent_of_units
from cl_bench.types import Metric, Network, StreamSpec


def effective_rank(singular_values: Array) -> Array:
    """exp(-sum_i p_i ln p_i), p = sigma / sum(sigma); 0 of a zero matrix, NaN of NaN.

    Source: Roy and Vetterli, EUSIPCO 2007.
    """
    total = jnp.sum(singular_values)
    p = singular_values / jnp.where(total == 0.0, 1.0, total)
    # 0 ln 0 = 0; NaN must stay NaN, so only an exact 0 is replaced.
    entropy = -jnp.sum(p * jnp.log(jnp.where(p == 0.0, 1.0, p)))
    return jnp.where(total == 0.0, 0.0, jnp.exp(entropy))


def make(net: Network, spec: StreamSpec, *, examples: int = PROBE_EXAMPLES) -> Metric:
    """`effective_rank` and `effective_rank/<layer>`, from 0 to 100.

    The rank of each layer's activations [examples, U] on the first `examples` examples
    of the new task, before any training on it; over layers 100 (sum of ranks) / (sum of
    units), over one layer 100 rank / units (Dohare et al. 2024, "scaled to [0, 100]").
    The positions of a feature map count as examples. One singular value decomposition a
    layer and task: about 10 ms of a CPU core at 2,000 x 100.
    """

    def read_start(probe):
        ranks = {"effective_rank": effective_rank}
        return percent_of_units(net, spec, probe, examples, ranks)

    return metric(read_start=read_start)
