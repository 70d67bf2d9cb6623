"""Effective rank: exp of the entropy of the normalised singular values."""

import jax.numpy as jnp
from jax import Array

from cl_bench.metrics._parts import first_activations, metric
from cl_bench.types import Metric, Network, StreamSpec


def make(net: Network, spec: StreamSpec, *, examples: int = 2_000) -> Metric:
    """`effective_rank` in [0, 100] of all hidden units, and `effective_rank/<layer>`.

    Per layer exp(-sum p ln p), p = sigma / sum(sigma), of the activations [n, U] on the
    first `examples` examples of the new task, before any training on it; in percent of
    the units, summed over layers in `effective_rank`. Source: Roy and Vetterli 2007;
    Dohare et al. 2024.
    """

    def read_start(probe):
        acts = first_activations(net, spec, probe, examples)
        ranks = {u.name: of(singular_values(acts[u.name], u.size)) for u in net.units}
        rows = {
            f"effective_rank/{u.name}": 100.0 * ranks[u.name] / u.size for u in net.units
        }
        if not rows:
            return {}
        total = sum(u.size for u in net.units)
        return {"effective_rank": 100.0 * sum(ranks.values()) / total, **rows}

    return metric(read_start=read_start)


def singular_values(activation: Array, size: int) -> Array:
    """Singular values, largest first, of an activation [n, ..., U] as [n', U]."""
    return jnp.linalg.svd(activation.reshape(-1, size), compute_uv=False)


def of(sigma: Array) -> Array:
    """exp(entropy of sigma / sum(sigma)): 0 for a matrix of zeros."""
    total = jnp.sum(sigma)
    p = sigma / jnp.where(total > 0, total, 1.0)
    entropy = -jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1.0)), 0.0))
    return jnp.where(total > 0, jnp.exp(entropy), 0.0)
