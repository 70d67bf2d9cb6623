"""DASH, direction-aware shrinking (Shin et al., NeurIPS 2024).

At a boundary, with the parameters held fixed, one pass over the new data:
G <- (1 - alpha) G + alpha (-g) for every batch, alpha = .3; then each weight vector w
with its part of G, w <- w clip(cos(G, w), lambda, 1), lambda = .3.

Choices: G starts at 0 and alpha weighs the new gradient; vectors are the incoming
weights of an output unit, kernel[:, o], the filter [kh, kw] of an input and an output
channel, kernel[:, :, i, o], and the whole bias; all layers, the head too; scale and
shift of normalisation layers are left alone; where w or G is 0 the cosine is 0, so
that a vector with no gradient shrinks by lambda.
"""

import numpy as np

from tests.reference.mlp import Params, cast, map_params


def init(params: Params) -> Params:
    """G = 0."""
    return map_params(np.zeros_like, cast(params))


def accumulate(direction: Params, grads: Params, *, alpha: float = 0.3) -> Params:
    """(1 - alpha) G - alpha g: the average of the negative gradients, one batch on."""
    return map_params(lambda G, g: (1 - alpha) * G - alpha * g, direction, cast(grads))


def cosine(w: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """cos(G, w) of every vector, shaped to multiply w: kernels as said above."""
    axes = {1: (0,), 2: (0,), 4: (0, 1)}[w.ndim]
    dot = (w * direction).sum(axis=axes, keepdims=True)
    norm_w = np.sqrt((w**2).sum(axis=axes, keepdims=True))
    norm_g = np.sqrt((direction**2).sum(axis=axes, keepdims=True))
    norms = norm_w * norm_g
    return np.divide(dot, norms, out=np.zeros_like(dot), where=norms > 0)


def shrink(params: Params, direction: Params, *, limit: float = 0.3) -> Params:
    """w clip(cos(G, w), lambda, 1) for kernels and biases; `limit` is lambda."""
    params = cast(params)
    for name, layer in params.items():
        for leaf in ("kernel", "bias"):
            factor = np.clip(cosine(layer[leaf], direction[name][leaf]), limit, 1)
            layer[leaf] = layer[leaf] * factor
    return params


def boundary(
    params: Params, batches: list[Params], *, alpha: float = 0.3, limit: float = 0.3
) -> Params:
    """The whole treatment: `batches` are the gradients of the batches, in order."""
    direction = init(params)
    for grads in batches:
        direction = accumulate(direction, grads, alpha=alpha)
    return shrink(params, direction, limit=limit)
