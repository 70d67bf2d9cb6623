"""Singular values of a task's first activations, shared by the rank metrics."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jax import Array

from cl_bench import linalg
from cl_bench.metrics._parts import alive_units, first_activations
from cl_bench.types import Network, Probe, StreamSpec


def features(h: Array) -> Array:
    """Activations as a matrix: [n, U] or [n, height, width, U] -> [n * ..., U].

    A layer whose units have two features each (CReLU, Fourier) is [n, 2, U] or [n,
    height, width, 2, U], told by its odd number of axes: -> [n * ..., 2 U].
    """
    columns = h.shape[-1] * (h.shape[-2] if h.ndim % 2 else 1)
    return h.reshape(-1, columns)


def singular_values(h: Array) -> Array:
    """Singular values of `features` of activations [n, ..., U], largest first.

    They are of h divided by its largest entry, so that no square overflows. NaN for an
    entry that is not finite: LAPACK itself may not come back from one.
    """
    # The Gram matrix would lose every singular value below 3e-4 of the largest.
    matrix = features(h)
    largest = jnp.max(jnp.abs(matrix))
    finite = jnp.isfinite(largest)
    scale = jnp.where(finite & (largest > 0.0), largest, 1.0)
    values = linalg.singular_values(jnp.where(finite, matrix / scale, 0.0))
    return jnp.where(finite, values, jnp.nan)


def first_to_reach(shares: Array, proportion: float) -> Array:
    """Smallest k with shares_1 + ... + shares_k >= proportion of their sum; 0 of zeros."""
    total = jnp.sum(shares)
    short = jnp.cumsum(shares) < proportion * total
    k = jnp.minimum(jnp.sum(short) + 1.0, shares.shape[0])
    return jnp.where(jnp.isnan(total), jnp.nan, jnp.where(total > 0.0, k, 0.0))


def percent_of_units(
    net: Network,
    spec: StreamSpec,
    probe: Probe,
    examples: int,
    ranks: Mapping[str, Callable[[Array], Array]],
) -> dict[str, Array]:
    """Ranks by name, of the singular values of each layer, on a scale of 0 to 100.

    Rows are name/layer, 100 rank / units, and name, 100 (sum of ranks) / (sum of units).
    Units that are not alive do not count: their columns are 0 and add no rank. A unit
    of two features counts as two.
    """
    if not net.units:
        return {}
    acts = first_activations(net, spec, probe, examples)
    rows: dict[str, Array] = {}
    totals, size = dict.fromkeys(ranks, jnp.zeros(())), jnp.zeros(())
    for unit in net.units:
        values = singular_values(acts[unit.name])
        alive = alive_units(probe.learner.net, unit)
        each = features(acts[unit.name]).shape[1] // unit.size
        width = jnp.maximum(jnp.sum(alive), 1) * each
        size = size + width
        for name, rank_of in ranks.items():
            rank = rank_of(values)
            rows[f"{name}/{unit.name}"] = 100.0 * rank / width
            totals[name] = totals[name] + rank
    return {name: 100.0 * total / size for name, total in totals.items()} | rows
