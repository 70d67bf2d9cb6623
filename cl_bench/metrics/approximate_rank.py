"""Approximate rank: how many directions hold 99 % of the hidden activations."""

import jax.numpy as jnp

from cl_bench.metrics._parts import PROBE_EXAMPLES, metric
from cl_bench.metrics._ranks import first_to_reach, percent_of_units
from cl_bench.types import Metric, Network, StreamSpec


def make(
    net: Network,
    spec: StreamSpec,
    *,
    proportion: float = 0.99,
    examples: int = PROBE_EXAMPLES,
) -> Metric:
    """`approximate_rank`, `abs_approximate_rank` and both by layer, from 0 to 100.

    approximate_rank: the smallest k with sum_{i<=k} sigma_i^2 >= 0.99 sum sigma^2;
    abs_approximate_rank: the same of sigma, not of its square (srank of Kumar et al.
    2021, the "stable rank" of Dohare et al. 2024). sigma are the singular values of each
    layer's activations on the first `examples` examples of the new task, before any
    training on it; scale and cost are those of `effective_rank`.
    """
    if not 0.0 < proportion <= 1.0:
        raise ValueError(f"proportion={proportion}: above 0, at most 1")

    def read_start(probe):
        ranks = {
            "approximate_rank": lambda s: first_to_reach(jnp.square(s), proportion),
            "abs_approximate_rank": lambda s: first_to_reach(s, proportion),
        }
        return percent_of_units(net, spec, probe, examples, ranks)

    return metric(read_start=read_start)
