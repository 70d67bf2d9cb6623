"""Elastic weight consolidation (Kirkpatrick et al. 2017; online: Schwarz et al. 2018).

After task t: F_t = mean over examples of E_y [(d log p(y | x) / d theta)^2] at theta_t.
Loss of a later task: L + lambda / 2 sum_t F_t (theta - theta_t)^2 ('separate': one
anchor a task), or L + lambda / 2 gamma F~ (theta - theta_last)^2 with F~ <- gamma F~ + F
('online'). L2 to the previous task is the same with F = 1 and no sum.

Choices: p is the softmax over the outputs in play (`classes` [B, K] bool); the gradient
of every single example is formed, one label at a time; what y is: 'exact' all of them
weighted by p, 'empirical' the label, 'predicted' the most probable output, 'sampled' the
`draws` [B] handed in, and 'batched' the square of the mean gradient of a mini-batch,
averaged over the mini-batches. The gradient of the penalty is added to that of the loss.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.reference.mlp import Params, cast, forward, layer_names, map_params, slope
from tests.reference.optimizers import OptState

Anchor = tuple[Params, Params]  # F_t, theta_t


def probabilities(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Softmax [B, K] over the outputs in play; 0 for the others."""
    shifted = np.where(classes, logits, -np.inf)
    p = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def backpropagate(
    params: Params, x: np.ndarray, d_logits: np.ndarray, activation: str = "relu"
) -> Params:
    """Gradient of d_logits . f(x) for one example: x [D], d_logits [K]."""
    _, activations, pre_activations = forward(params, x[None], activation)
    grads, delta = {}, d_logits[None]
    names = layer_names(params)
    for name, below in reversed(list(zip(names, ["x", *names[:-1]], strict=True))):
        grads[name] = {"kernel": activations[below].T @ delta, "bias": delta[0]}
        if below != "x":
            delta = delta @ params[name]["kernel"].T
            delta = delta * slope(activation, pre_activations[below])
    return grads


def loss_gradient(
    params: Params, x: Any, y: Any, classes: Any, activation: str = "relu"
) -> Params:
    """Gradient of the mean cross-entropy over the outputs in play."""
    total = map_params(np.zeros_like, params)
    p = probabilities(forward(params, x, activation)[0], classes)
    for b in range(len(x)):
        one = backpropagate(params, x[b], p[b] - np.eye(p.shape[1])[y[b]], activation)
        total = map_params(lambda t, g: t + g / len(x), total, one)
    return total


def fisher(
    params: Params,
    batches: list[tuple[Any, Any, Any]],
    estimator: str,
    draws: list[np.ndarray] | None = None,
    activation: str = "relu",
) -> Params:
    """The diagonal Fisher over mini-batches (x [B, D], y [B], classes [B, K])."""
    params = cast(params)
    total, count = map_params(np.zeros_like, params), 0.0
    for i, (x, y, classes) in enumerate(batches):
        x = np.asarray(x, np.float64)
        if estimator == "batched":
            mean = loss_gradient(params, x, y, classes, activation)
            total = map_params(lambda t, g: t + g**2, total, mean)
            count += 1
            continue
        p = probabilities(forward(params, x, activation)[0], classes)
        for b in range(len(x)):
            for label, share in labels_taken(
                estimator, p[b], y[b], draws and draws[i][b]
            ):
                d_log_p = np.eye(p.shape[1])[label] - p[b]
                g = backpropagate(params, x[b], d_log_p, activation)
                total = map_params(lambda t, g, s=share: t + s * g**2, total, g)
            count += 1
    return map_params(lambda t: t / count, total)


def labels_taken(
    estimator: str, p: np.ndarray, y: Any, draw: Any
) -> list[tuple[int, float]]:
    """Which labels an example's log-likelihood is taken of, and their weights."""
    if estimator == "exact":
        return [(k, p[k]) for k in range(len(p)) if p[k] > 0]
    chosen = {"empirical": y, "predicted": np.argmax(p), "sampled": draw}[estimator]
    return [(int(chosen), 1.0)]


def by_trace(importance: Params) -> Params:
    """F divided by its sum over all parameters."""
    trace = sum(leaf.sum() for layer in importance.values() for leaf in layer.values())
    return map_params(lambda f: f / trace, importance)


def penalty(params: Params, anchors: list[Anchor], *, strength: float) -> float:
    """lambda / 2 sum_t F_t (theta - theta_t)^2 over the list of anchors."""
    total = 0.0
    for importance, anchor in anchors:
        terms = map_params(lambda f, p, q: f * (p - q) ** 2, importance, params, anchor)
        total += sum(leaf.sum() for layer in terms.values() for leaf in layer.values())
    return 0.5 * strength * total


def gradient(params: Params, anchors: list[Anchor], *, strength: float) -> Params:
    """lambda sum_t F_t (theta - theta_t)."""
    total = map_params(np.zeros_like, cast(params))
    for importance, anchor in anchors:
        total = map_params(
            lambda t, f, p, q: t + strength * f * (p - q),
            total, importance, params, anchor,
        )  # fmt: skip
    return total


def step(
    params: Params,
    grads: Params,
    opt_state: OptState,
    anchors: list[Anchor],
    *,
    optimizer: Callable[..., tuple[Params, OptState]],
    strength: float,
) -> tuple[Params, OptState]:
    """One step of `optimizer` on the penalised loss."""
    extra = gradient(params, anchors, strength=strength)
    return optimizer(cast(params), map_params(np.add, grads, extra), opt_state)


def end_task(
    params: Params,
    importance: Params,
    anchors: list[Anchor],
    *,
    mode: str,
    gamma: float = 1.0,
) -> list[Anchor]:
    """The anchors of the next task. 'online' keeps one, of weight gamma F~."""
    if mode == "separate":
        return [*anchors, (importance, cast(params))]
    if anchors:  # its weight is gamma F~ of the task before
        importance = map_params(np.add, importance, anchors[0][0])
    return [(map_params(lambda f: gamma * f, importance), cast(params))]
