"""Utility-based perturbed gradient descent, UPGD (Elsayed & Mahmood, ICLR 2024, Alg. 1).

First-order utility of a weight: U = -g w, with g the gradient of the loss, without
noise or decay, and w before the step. Trace V <- beta V + (1 - beta) U, corrected
V_hat = V / (1 - beta^t), t from 1. Scaled utility, in (0, 1):

    global: S = sigmoid(V_hat / max V), one max over all weights and biases;
    local:  S = sigmoid(V_hat / ||V_hat||), one norm for every unit.

Update: protecting      w <- (1 - alpha lambda) w - alpha (g + sigma xi) (1 - S)
        non-protecting  w <- (1 - alpha lambda) w - alpha (g + sigma xi (1 - S))

AdaUPGD puts Adam's m_hat / (sqrt(v_hat) + eps) in the place of g in the update; the
utility keeps the raw g and the noise is not divided.

Choices. `maximum` 'trace' is the released code: the largest signed entry of V, not
corrected, so that the ratio is 1 / (1 - beta^t) times too large at first; 'corrected'
is the largest V_hat, the paper. GUARD: where that maximum is <= 0 the released formula
turns the order of the utilities round (or divides by 0); here the ratio is then 0 for
every weight, S = 1/2. The local norm is the code's last dimension in PyTorch's layout:
over the inputs of one output unit for a kernel [in, out], over the whole bias, over kw
alone for a convolution [kh, kw, in, out]; a norm of 0 gives ratio 0. The step is alpha
(the experiments), not 2 alpha (the README).
"""

from typing import Any

import numpy as np

from tests.reference.mlp import Params, cast, map_params, sigmoid

State = dict[str, Any]


def init(params: Params) -> State:
    """Traces 0, Adam's moments 0 (used by AdaUPGD only), t = 0."""
    zeros = map_params(np.zeros_like, cast(params))
    return {"trace": zeros, "m": cast(zeros), "v": cast(zeros), "count": 0}


def _local_ratio(name: str, v_hat: np.ndarray) -> np.ndarray:
    """V_hat / ||V_hat|| along the last dimension of PyTorch's layout."""
    axis = {2: 0, 4: 1}[v_hat.ndim] if name == "kernel" else -1
    norm = np.linalg.norm(v_hat, axis=axis, keepdims=True)
    return np.divide(v_hat, norm, out=np.zeros_like(v_hat), where=norm > 0)


def scaled_utility(
    trace: Params, correction: float, *, kind: str = "global", maximum: str = "trace"
) -> Params:
    """S of the traces V; `correction` is 1 - beta^t."""
    v_hat = map_params(lambda v: v / correction, trace)
    if kind == "local":
        return {
            module: {n: sigmoid(_local_ratio(n, v)) for n, v in leaves.items()}
            for module, leaves in v_hat.items()
        }
    if kind != "global":
        raise ValueError(f"unknown kind of UPGD {kind!r}")
    source = {"trace": trace, "corrected": v_hat}[maximum]
    eta = max(float(v.max()) for leaves in source.values() for v in leaves.values())
    return map_params(lambda v: sigmoid(v / eta if eta > 0 else 0 * v), v_hat)


def adam_direction(
    grads: Params, state: State, *, b1: float, b2: float, eps: float
) -> tuple[Params, State]:
    """m_hat / (sqrt(v_hat) + eps), and the state with the new moments."""
    t = state["count"] + 1
    m = map_params(lambda m, g: b1 * m + (1 - b1) * g, state["m"], grads)
    v = map_params(lambda v, g: b2 * v + (1 - b2) * g**2, state["v"], grads)

    def direction(m: np.ndarray, v: np.ndarray) -> np.ndarray:
        return m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)

    return map_params(direction, m, v), {**state, "m": m, "v": v}


def step(
    params: Params,
    grads: Params,
    state: State,
    noise: Params,
    *,
    step_size: float,
    beta: float = 0.9999,
    noise_std: float = 0.1,
    weight_decay: float = 0.0,
    kind: str = "global",
    protecting: bool = True,
    adaptive: bool = False,
    maximum: str = "trace",
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> tuple[Params, State]:
    """One step; `noise` is xi, standard normal, shaped like the parameters."""
    params, grads = cast(params), cast(grads)
    trace = map_params(
        lambda v, w, g: beta * v - (1 - beta) * g * w, state["trace"], params, grads
    )
    direction = grads
    if adaptive:
        direction, state = adam_direction(grads, state, b1=b1, b2=b2, eps=eps)
    count = state["count"] + 1
    s = scaled_utility(trace, 1 - beta**count, kind=kind, maximum=maximum)

    def move(w: Any, g: Any, xi: Any, s: Any) -> Any:
        noisy = noise_std * xi
        change = (g + noisy) * (1 - s) if protecting else g + noisy * (1 - s)
        return (1 - step_size * weight_decay) * w - step_size * change

    moved = map_params(move, params, direction, noise, s)
    return moved, {**state, "trace": trace, "count": count}
