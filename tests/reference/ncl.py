"""Natural continual learning (Kao et al., NeurIPS 2021, arXiv 2106.08085), dense layers.

Per layer: W [in + 1, out] the kernel with the bias as last row (no such row without a
bias), abar [in + 1] the input with a 1 appended (no 1 without a bias). The precision of
the posterior PER EXAMPLE is Lambda = kron(A, G), A [in + 1, in + 1], G [out, out], for
the row-major vec: Lambda vec(W) = vec(A W G).

Prior, n = `data_size`: A = I / sqrt(n), G = I / sqrt(n), W* = 0.
At the end of a task (A, G) <- (A, G) + (A_F, G_F), W* <- W, where A_F = mean abar abar^T,
G_F = mean E_y[delta delta^T], delta = d log p(y | x) / d pre-activation, and the sum is
the factored one of Martens and Grosse (2015): (A1 + A2 / pi, G1 + pi G2).
A step: g of the mean loss, g <- g + strength A (W - W*) G; with `precondition`
(A', G') = (A, G) + (damping I, damping I), g <- Lambda'^-1 g / n; the optimiser takes g.
Without it: Laplace with Kronecker factors (Ritter et al. 2018), the same destination
without the journey.

Choices: p is the softmax over the outputs in play (`classes` [B, K] bool); every example
and label is formed one at a time; y is as in `ewc.py`: 'exact', 'empirical', 'predicted'
or 'sampled'. The full system of kron(A', G') is solved, no factor is ever inverted.
Momentum is emptied at the end of a task, by the caller: nothing here does it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tests.reference.ewc import backpropagate, labels_taken, probabilities
from tests.reference.mlp import Layer, Params, cast, forward, layer_names, map_params
from tests.reference.optimizers import OptState

Factors = tuple[np.ndarray, np.ndarray]  # A, G


class Posterior(NamedTuple):
    """(A, G) of every layer, and the parameters W* it is centred on."""

    factors: dict[str, Factors]
    centre: Params


def stack(layer: Layer) -> np.ndarray:
    """W [in + 1, out]: the kernel, and under it the bias if there is one."""
    if "bias" in layer:
        return np.vstack([layer["kernel"], layer["bias"][None]])
    return layer["kernel"]


def unstack(w: np.ndarray, like: Layer) -> Layer:
    """The layer again, with a bias if `like` has one."""
    if "bias" in like:
        return {"kernel": w[:-1], "bias": w[-1]}
    return {"kernel": w}


def prior(params: Params, data_size: float) -> Posterior:
    """A = G = I / sqrt(n) about 0."""
    factors = {}
    for name, layer in params.items():
        rows, columns = stack(layer).shape
        factors[name] = (
            np.eye(rows) / np.sqrt(data_size),
            np.eye(columns) / np.sqrt(data_size),
        )
    return Posterior(factors, map_params(np.zeros_like, cast(params)))


def factored_fisher(
    params: Params,
    batches: list[tuple[Any, Any, Any]],
    estimator: str,
    draws: list[np.ndarray] | None = None,
    activation: str = "relu",
) -> dict[str, Factors]:
    """(A_F, G_F) of every layer over mini-batches (x [B, D], y [B], classes [B, K])."""
    params = cast(params)
    full = _with_biases(params)
    names = layer_names(params)
    shapes = {name: stack(params[name]).shape for name in names}
    a_sum = {name: np.zeros((rows, rows)) for name, (rows, _) in shapes.items()}
    g_sum = {name: np.zeros((out, out)) for name, (_, out) in shapes.items()}
    count = 0
    for i, (x, y, classes) in enumerate(batches):
        x = np.asarray(x, np.float64)
        logits, activations, _ = forward(full, x, activation)
        p = probabilities(logits, classes)
        for b in range(len(x)):
            for name, below in zip(names, ["x", *names[:-1]], strict=True):
                abar = activations[below][b]
                if "bias" in params[name]:
                    abar = np.append(abar, 1.0)
                a_sum[name] += np.outer(abar, abar)
            for label, share in labels_taken(
                estimator, p[b], y[b], draws and draws[i][b]
            ):
                d_log_p = np.eye(p.shape[1])[label] - p[b]
                one = backpropagate(full, x[b], d_log_p, activation)
                for name in names:
                    delta = one[name]["bias"]  # of a single example it is just that
                    g_sum[name] += share * np.outer(delta, delta)
            count += 1
    return {name: (a_sum[name] / count, g_sum[name] / count) for name in names}


def _with_biases(params: Params) -> Params:
    """The same network, with a bias of 0 where there is none."""
    return {
        name: {"bias": np.zeros(layer["kernel"].shape[1]), **layer}
        for name, layer in params.items()
    }


def add(first: Factors, second: Factors) -> Factors:
    """(A1 + A2 / pi, G1 + pi G2), pi = sqrt(tr G1 tr A2 / (tr G2 tr A1)).

    The first alone, if a factor of the second has a trace of 0.
    """
    (a1, g1), (a2, g2) = first, second
    if np.trace(a2) == 0 or np.trace(g2) == 0:
        return first
    pi = np.sqrt(np.trace(g1) * np.trace(a2) / (np.trace(g2) * np.trace(a1)))
    return a1 + a2 / pi, g1 + pi * g2


def end_task(
    params: Params, factors: dict[str, Factors], posterior: Posterior
) -> Posterior:
    """The Fisher of the task joins the precision, and its solution is the centre."""
    joined = {name: add(own, factors[name]) for name, own in posterior.factors.items()}
    return Posterior(joined, cast(params))


def direction(
    params: Params,
    grads: Params,
    posterior: Posterior,
    *,
    strength: float,
    data_size: float,
    damping: float,
    precondition: bool,
) -> Params:
    """What the optimiser takes for the gradient; `grads` are of the mean loss."""
    params, grads = cast(params), cast(grads)
    taken: Params = {}
    for name, (a, g) in posterior.factors.items():
        away = stack(params[name]) - stack(posterior.centre[name])
        total = stack(grads[name]) + strength * a @ away @ g
        if precondition:
            if damping != 0:
                a, g = add((a, g), (damping * np.eye(len(a)), damping * np.eye(len(g))))
            solved = np.linalg.solve(np.kron(a, g), total.reshape(-1))
            total = solved.reshape(total.shape) / data_size
        taken[name] = unstack(total, params[name])
    return taken


def step(
    params: Params,
    grads: Params,
    opt_state: OptState,
    posterior: Posterior,
    *,
    optimizer: Callable[..., tuple[Params, OptState]],
    strength: float,
    data_size: float,
    damping: float,
    precondition: bool,
) -> tuple[Params, OptState]:
    """One step of `optimizer` along `direction`."""
    taken = direction(
        params,
        grads,
        posterior,
        strength=strength,
        data_size=data_size,
        damping=damping,
        precondition=precondition,
    )
    return optimizer(cast(params), taken, opt_state)
