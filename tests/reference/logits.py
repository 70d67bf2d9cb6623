"""Gradients of functions of the logits of a fully connected network (ReLU), by hand."""

import numpy as np

from tests.reference.mlp import Params, cast, forward, layer_names, slope


def vjp(params: Params, x: np.ndarray, delta: np.ndarray) -> Params:
    """sum_bk delta_bk d logits_bk / d theta, delta [B, K]."""
    params, x = cast(params), np.asarray(x, np.float64)
    _, activations, pre_activations = forward(params, x)
    names, grads = layer_names(params), {}
    for i in reversed(range(len(names))):
        below = "x" if i == 0 else names[i - 1]
        grads[names[i]] = {
            "kernel": activations[below].T @ delta,
            "bias": delta.sum(axis=0),
        }
        if i > 0:
            delta = delta @ params[names[i]]["kernel"].T
            delta = delta * slope("relu", pre_activations[below])
    return grads


def masked_cross_entropy(
    params: Params, x: np.ndarray, y: np.ndarray, classes: np.ndarray
) -> Params:
    """The gradient of the mean cross-entropy over the outputs in play, [B, K] bool."""
    z = forward(cast(params), np.asarray(x, np.float64))[0]
    z = np.where(classes, z, -np.inf)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    delta = e / e.sum(axis=1, keepdims=True)
    delta[np.arange(len(y)), y] -= 1
    return vjp(params, x, delta / len(y))
