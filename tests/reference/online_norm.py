"""Online normalisation in numpy: Chiley et al., NeurIPS 2019 (arXiv 1905.05894).

One example at a time, forward eqs. of section 3.1 and the control process of section
3.2; state is a dict of float64 [U]: mean, var, error_y, error_1.
"""

from typing import Any

import numpy as np

from tests.reference import mlp

State = dict[str, np.ndarray]


def first_state(size: int) -> State:
    """Mean 0, variance 1, no error yet."""
    zeros = np.zeros(size)
    return {"mean": zeros, "var": zeros + 1, "error_y": zeros, "error_1": zeros}


def forward(
    state: State, x: np.ndarray, decay: float = 0.999, epsilon: float = 1e-5
) -> tuple[np.ndarray, np.ndarray, State]:
    """x [B, positions, U] -> y [B, positions, U], scales [B, U] and the new state."""
    mean, var = state["mean"], state["var"]
    ys, scales = [], []
    for example in x:
        scales.append(np.sqrt(var + epsilon))
        ys.append((example - mean) / scales[-1])
        m = example.mean(axis=0)
        v = ((example - m) ** 2).mean(axis=0)
        var = decay * var + (1 - decay) * v + decay * (1 - decay) * (m - mean) ** 2
        mean = decay * mean + (1 - decay) * m
    return np.stack(ys), np.stack(scales), {**state, "mean": mean, "var": var}


def backward(
    state: State,
    gradient: np.ndarray,
    y: np.ndarray,
    scales: np.ndarray,
    decay: float = 0.99,
) -> tuple[np.ndarray, State]:
    """Gradient of y [B, positions, U] -> that of x, and the new state."""
    error_y, error_1 = state["error_y"], state["error_1"]
    out = []
    for g, at, scale in zip(gradient, y, scales, strict=True):
        orthogonal = g - (1 - decay) * error_y * at
        error_y = error_y + (orthogonal * at).mean(axis=0)
        scaled = orthogonal / scale
        centred = scaled - (1 - decay) * error_1
        error_1 = error_1 + centred.mean(axis=0)
        out.append(centred)
    return np.stack(out), {**state, "error_y": error_y, "error_1": error_1}


def sgd_step(
    params: Any, state: State, x: np.ndarray, y: np.ndarray, step_size: float
) -> tuple[Any, State, float]:
    """One SGD step of x -> W1 -> norm -> scale, shift, clamp at 5 -> ReLU -> W2."""
    h1, head = params["h1"], params["head"]
    z = x @ h1["kernel"] + h1["bias"]
    normal, scales, state = forward(state, z[:, None])
    normal = normal[:, 0]
    a = h1["scale"] * normal + h1["shift"]
    h = np.clip(a, 0.0, 5.0)
    losses, d_logits = mlp.cross_entropy(h @ head["kernel"] + head["bias"], y)
    d_logits = d_logits / len(x)
    d_a = (d_logits @ head["kernel"].T) * ((a > 0) & (a < 5))
    d_y = (d_a * h1["scale"])[:, None]
    d_z, state = backward(state, d_y, normal[:, None], scales)
    d_z = d_z[:, 0]
    grads = {
        "h1": {
            "kernel": x.T @ d_z,
            "bias": d_z.sum(0),
            "scale": (d_a * normal).sum(0),
            "shift": d_a.sum(0),
        },
        "head": {"kernel": h.T @ d_logits, "bias": d_logits.sum(0)},
    }
    new = mlp.map_params(lambda p, g: p - step_size * g, params, grads)
    return new, state, float(losses.mean())
