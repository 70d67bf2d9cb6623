"""Per-example losses, scores and predictive distributions."""

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.types import Loss

MASKED = -1e9  # logit of an output that is not in play; exp(MASKED) == 0 in float32


def mask_logits(logits: Array, classes: Array) -> Array:
    """Logits [B, K] with the outputs not in play ([B, K] bool) set to `MASKED`."""
    return jnp.where(classes, logits, MASKED)


def weighted_mean(values: Array, weight: Array) -> Array:
    """Mean of values [B] under weight [B]; 0 where every weight is 0."""
    return jnp.sum(values * weight) / jnp.maximum(jnp.sum(weight), 1e-12)


def _cross_entropy(logits: Array, y: Array) -> Array:
    shifted = logits - jnp.max(logits, axis=-1, keepdims=True)
    picked = jax.nn.one_hot(y, logits.shape[-1], dtype=logits.dtype) * shifted
    return jnp.log(jnp.sum(jnp.exp(shifted), axis=-1)) - jnp.sum(picked, axis=-1)


def _accuracy(logits: Array, y: Array) -> Array:
    return (jnp.argmax(logits, axis=-1) == y).astype(jnp.float32)


def _squared_error(prediction: Array, y: Array) -> Array:
    return jnp.sum(jnp.square(prediction - y), axis=-1)


softmax_cross_entropy = Loss(
    per_example=_cross_entropy,
    score=_accuracy,
    predictive=lambda logits: jax.nn.softmax(logits, axis=-1),
)
"""Integer labels [B]; score is the correctness of the arg-max."""

squared_error = Loss(
    per_example=_squared_error,
    score=lambda prediction, y: 1.0 / (1.0 + _squared_error(prediction, y)),
    predictive=lambda prediction: prediction,
)
"""Real targets [B, K]; summed over outputs; score is 1 / (1 + error)."""
