"""Stable rank: squared Frobenius norm over squared spectral norm of the activations."""

import jax.numpy as jnp
from jax import Array

from cl_bench.metrics._parts import PROBE_EXAMPLES, metric
from cl_bench.metrics._ranks import percent_of_units
from cl_bench.types import Metric, Network, StreamSpec


def stable_rank(singular_values: Array) -> Array:
    """sum sigma^2 / sigma_1^2 of [k], largest first; 0 of a zero matrix, NaN of NaN."""
    squares = jnp.square(singular_values)
    largest = jnp.where(squares[0] == 0.0, 1.0, squares[0])
    return jnp.sum(squares) / largest


def make(net: Network, spec: StreamSpec, *, examples: int = PROBE_EXAMPLES) -> Metric:
    """`stable_rank` and `stable_rank/<layer>`, from 0 to 100.

    ||H||_F^2 / sigma_1^2 of each layer's activations H (Rudelson and Vershynin 2007).
    NOT the "stable rank" of Dohare et al. 2024, which is `abs_approximate_rank` here.
    Examples, scale and cost are those of `effective_rank`.
    """

    def read_start(probe):
        ranks = {"stable_rank": stable_rank}
        return percent_of_units(net, spec, probe, examples, ranks)

    return metric(read_start=read_start)
