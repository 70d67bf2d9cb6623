"""Dormant units and ranks of a residual network as Dohare et al. read them."""

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.metrics._parts import first_examples, metric
from cl_bench.metrics._ranks import first_to_reach, singular_values
from cl_bench.metrics.dormant_units import dormant_dohare
from cl_bench.metrics.effective_rank import effective_rank
from cl_bench.types import Metric, NetState, Network, StreamSpec


def make(
    net: Network,
    spec: StreamSpec,
    *,
    threshold: float = 0.01,
    proportion: float = 0.99,
    examples: int = 1_000,
) -> Metric:
    """`dormant_relus` in [0, 1], `pooled_effective_rank` and `pooled_srank`, counts.

    Of one forward pass of the trained network in training mode, so that batch
    normalisation has the statistics of its examples: the first `examples` of the new
    task, before any training on it.
    dormant_relus: the share of units that are not 0 on less than `threshold` of the
    examples and positions, over all activations: of `resnet18` the outputs of all 17
    ReLUs, where `dormant_units` has one a residual stream and one a block. Of the last
    one it is the mean over positions that counts, as the head reads it.
    pooled_effective_rank and pooled_srank: exp(entropy) of sigma / sum(sigma), and the
    smallest k with sum_{i<=k} sigma_i >= 0.99 sum sigma (the paper's "stable rank"), of
    that mean [n, U]. NaN where an activation is not finite.
    Raises ValueError for a proportion out of (0, 1].
    Source: Dohare et al., Nature 632 (2024), released code (incremental CIFAR-100).

    # Departs from the paper: the stream's own training examples, augmented and of all
    # classes so far, where its code takes unaugmented ones of the new classes.
    """
    if not 0.0 < proportion <= 1.0:
        raise ValueError(f"proportion={proportion}: above 0, at most 1")

    def read_start(probe):
        if not net.units:
            return {}
        state, batch = probe.learner.net, first_examples(spec, probe, examples)
        key = jax.random.key(0, impl="threefry2x32")  # of dropout alone
        acts = net.apply(state, batch.x, train=True, key=key)[1]
        last = net.units[-1].name
        acts = {name: h for name, h in acts.items() if name != "x"}
        acts[last] = _pooled(acts[last])
        counts = [_dormant(state, name, h, threshold) for name, h in acts.items()]
        dormant, in_use = (sum(count) for count in zip(*counts, strict=True))
        values = singular_values(acts[last])
        return {
            "dormant_relus": dormant / jnp.maximum(in_use, 1),
            "pooled_effective_rank": effective_rank(values),
            "pooled_srank": first_to_reach(values, proportion),
        }

    return metric(read_start=read_start)


def _pooled(h: Array) -> Array:
    """The mean over positions of a feature map [n, height, width, U]."""
    return jnp.mean(h, axis=(1, 2)) if h.ndim == 4 else h


def _dormant(
    state: NetState, name: str, h: Array, threshold: float
) -> tuple[Array, Array]:
    """How many units are dormant, and how many are in use.

    'stage_0' is an earlier activation of the units 'stage'.
    """
    size = h.shape[-1]
    in_use = state.alive.get(name.partition("_")[0], jnp.ones(size, bool))
    found = jnp.sum(dormant_dohare(h.reshape(-1, size), threshold) & in_use)
    return jnp.where(jnp.isnan(jnp.sum(h)), jnp.nan, found), jnp.sum(in_use)
