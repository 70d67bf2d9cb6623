"""Normalisation of pre-activations [B, ..., U], before the activation function.

A module that is normalised has a 'scale' and a 'shift' [U] beside its kernel; what it
remembers is in `NetState.stats[module]`, and what the backward pass remembers in
`NetState.stats['backward'][module]` (online normalisation alone).
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

from cl_bench.networks import _online_norm
from cl_bench.networks._online_norm import DECAYS
from cl_bench.types import NetState, PyTree

NORMS = ("none", "batch", "layer", "online")


def check(kind: str, examples: int) -> None:
    """Raise ValueError for a norm that does not exist or cannot work.

    `examples`: entries that one statistic of a training batch is taken over (the batch
    size, for convolutions times the positions).
    """
    if kind not in NORMS:
        raise ValueError(f"norm {kind!r} is none of {sorted(NORMS)}")
    if kind == "batch" and examples < 2:
        raise ValueError(
            "norm 'batch' needs batches of 2 examples or more, and this stream has "
            "batch_size 1; norm 'online' and norm 'layer' work there"
        )


def init_norm(kind: str, size: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """First parameters ('scale', 'shift') and first statistics of one module."""
    if kind == "none":
        return {}, {}
    leaves = {"scale": jnp.ones(size), "shift": jnp.zeros(size)}
    if kind == "layer":
        return leaves, {}
    return leaves, {"mean": jnp.zeros(size), "var": jnp.ones(size)}


def init_stats(kind: str, sizes: Mapping[str, int]) -> dict[str, Any]:
    """`NetState.stats` of all normalised modules (name -> units)."""
    stats: dict[str, Any] = {}
    for name, size in sizes.items():
        own = init_norm(kind, size)[1]
        if own:
            stats[name] = own
    if kind == "online":
        stats["backward"] = {n: _online_norm.init_errors(u) for n, u in sizes.items()}
    return stats


def of_module(
    kind: str,
    net: NetState,
    stats: PyTree,
    name: str,
    z: Array,
    *,
    train: bool,
    alive: Array | None = None,
    decays: tuple[float, float] = DECAYS,
) -> tuple[Array, PyTree]:
    """`normalise` for module `name` of a network: z and `stats` with its new ones."""
    if kind == "none":
        return z, stats
    z, new = normalise(
        kind,
        net.params[name],
        net.stats.get(name, {}),
        z,
        train=train,
        errors=net.stats.get("backward", {}).get(name),
        alive=alive,
        decays=decays,
    )
    return z, {**stats, name: new} if new else stats


def normalise(
    kind: str,
    layer: dict[str, Array],
    stats: dict[str, Array],
    z: Array,
    *,
    train: bool,
    errors: dict[str, Array] | None = None,
    alive: Array | None = None,
    decays: tuple[float, float] = DECAYS,
    momentum: float = 0.1,
    epsilon: float = 1e-5,
) -> tuple[Array, dict[str, Array]]:
    """scale (z - mean) / sqrt(var + epsilon) + shift, and the module's new statistics.

    'batch': mean and biased variance over all axes but the last while training, the
    running ones in evaluation; these move by `momentum` (PyTorch's convention), the
    variance with its unbiased estimate. Source: Ioffe and Szegedy, ICML 2015.
    'layer': mean and variance of each example over all axes but the first, so over
    positions and channels of a convolution, as in the networks of Kumar et al. 2023.
    Source: Ba et al. 2016 (arXiv 1607.06450).
    'online': `_online_norm`, with its `decays` and `errors`, then clamped to [-5, 5].

    Args:
      kind: one of `NORMS`.
      layer: the module's parameters, with 'scale' and 'shift' [U].
      stats: of `init_norm`.
      z: [B, ..., U].
      train: whether statistics move, and the batch's own are used ('batch').
      errors: of `_online_norm.init_errors`, for 'online'.
      alive: [U] bool, units that count for 'layer'; None: all.
      decays: forward and backward decay of 'online'.
      momentum: share of the new batch in the running statistics of 'batch'.
      epsilon: added to each variance.
    """
    # Departs from the paper: Kumar et al. give 'layer' a scale and a shift for each
    # position of a convolution (nn.LayerNorm); here a unit has one, as it has one bias.
    if kind == "none":
        return z, stats
    if kind == "online":
        y, stats = _online_norm.normalise(z, stats, errors, train, *decays, epsilon)
        # The guard of the released code, after the affine map: old statistics would
        # let a sudden change of the inputs through at any size.
        return jnp.clip(layer["scale"] * y + layer["shift"], -5.0, 5.0), stats
    if kind == "layer":
        axes = tuple(range(1, z.ndim))
        mean = jnp.mean(z, axes, keepdims=True, where=alive)
        var = jnp.var(z, axes, keepdims=True, where=alive)
    elif train:
        mean, var = z.mean(tuple(range(z.ndim - 1))), z.var(tuple(range(z.ndim - 1)))
        stats = _running(stats, mean, var, z.size // z.shape[-1], momentum)
    else:
        mean, var = stats["mean"], stats["var"]
    y = (z - mean) / jnp.sqrt(var + epsilon)
    return layer["scale"] * y + layer["shift"], stats


def _running(stats, mean: Array, var: Array, n: int, momentum: float):
    """Running mean, and running variance of the unbiased estimate."""
    unbiased = var * (n / max(n - 1, 1))
    return {
        "mean": stats["mean"] + momentum * (mean - stats["mean"]),
        "var": stats["var"] + momentum * (unbiased - stats["var"]),
    }
