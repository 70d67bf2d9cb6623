"""Online standardisation of the inputs by exponential moving averages.

Not a method but a control: on input permutations it beats most of the methods. It is
*not* online normalisation (`_online_norm`), which has a backward pass of its own.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array

INPUT_NORMS = ("none", "ema")


def check(kind: str, decay: float) -> None:
    """Raise ValueError for a kind that does not exist, or a decay that is none."""
    if kind not in INPUT_NORMS:
        raise ValueError(f"input_norm {kind!r} is none of {sorted(INPUT_NORMS)}")
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"input_decay {decay}: must be at least 0 and below 1")


def init(size: int) -> dict[str, Array]:
    """Statistics of no example: mean 0, variance 1, and weight 0."""
    return {"mean": jnp.zeros(size), "var": jnp.ones(size), "weight": jnp.zeros(())}


def init_stats(kind: str, size: int) -> dict[str, dict[str, Array]]:
    """A network's statistics of its inputs: {'input': ...}, or {} of kind 'none'."""
    return {} if kind == "none" else {"input": init(size)}


def of_inputs(
    kind: str, stats: dict[str, Any], x: Array, *, train: bool, decay: float
) -> tuple[Array, dict[str, Any]]:
    """Inputs [B, D] as the network reads them, and all its statistics, updated."""
    if kind == "none":
        return x, stats
    x, new = standardise(x, stats["input"], train=train, decay=decay)
    return x, {**stats, "input": new}


def standardise(
    x: Array,
    stats: dict[str, Array],
    *,
    train: bool,
    decay: float,
    epsilon: float = 1e-5,
) -> tuple[Array, dict[str, Array]]:
    """(x - mean) / sqrt(var + epsilon) of each input, x [B, D], and the new statistics.

    While training the averages move first and are used then: one example at a time no
    input is beyond 1 / sqrt(1 - decay). With r = (1 - decay) / (1 - decay^t), the share
    of the newest batch under bias correction, and m, v its mean and biased variance,
    var <- (1 - r) (var + r (m - mean)^2) + r v,  mean <- mean + r (m - mean):
    exactly the bias-corrected moving averages, without a difference of large squares.
    `weight` is 1 - decay^t.
    """
    if train:
        weight = decay * stats["weight"] + (1.0 - decay)
        r, old = (1.0 - decay) / weight, stats
        delta = x.mean(0) - old["mean"]
        var = (1.0 - r) * (old["var"] + r * delta**2)
        if len(x) > 1:
            var = var + r * x.var(0)
        stats = {"mean": old["mean"] + r * delta, "var": var, "weight": weight}
    return (x - stats["mean"]) / jnp.sqrt(stats["var"] + epsilon), stats
