"""Learning without forgetting (Li & Hoiem 2016), for several old tasks.

KD over a set S of outputs: -sum_{k in S} q_k log p_k, with q = softmax(t / T) and
p = softmax(z / T) over S, t the logits of the network at the end of the task before and
z those of the network now; the mean over the batch. dKD/dz = (p - q) / T on S.
`shown` (van de Ven's code): p is over a larger set, and q is 0 beyond S.
"""

import numpy as np

from tests.reference import logits as by_logits
from tests.reference.mlp import Params, forward, map_params


def softmax(z: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Softmax over the chosen outputs ([B, K] bool), 0 elsewhere."""
    z = np.where(chosen, z, -np.inf)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def kd(
    params: Params,
    teacher: Params,
    x: np.ndarray,
    old: np.ndarray,
    shown: np.ndarray,
    weight: np.ndarray,
    temperature: float,
) -> tuple[float, Params]:
    """KD over `old` ([K] bool), averaged under the weights [B], and its gradient."""
    x = np.asarray(x, np.float64)
    old = np.broadcast_to(old, (len(x), len(old)))
    shown = np.broadcast_to(shown, old.shape)
    q = softmax(forward(teacher, x)[0] / temperature, old)
    p = softmax(forward(params, x)[0] / temperature, shown)
    share = weight / weight.sum()
    log_p = np.log(np.where(old, p, 1.0))
    delta = share[:, None] * (p - q) / temperature
    return float(-share @ (q * log_p).sum(axis=1)), by_logits.vjp(params, x, delta)


def added_gradient(
    params: Params,
    teacher: Params,
    x: np.ndarray,
    sets: list[np.ndarray],
    classes: np.ndarray,
    weight: np.ndarray,
    *,
    strength: float,
    temperature: float,
    factor: float,
    student: str,
) -> Params:
    """The gradient of strength * factor * sum of KD over the sets."""
    total = map_params(np.zeros_like, params)
    for old in sets:
        shown = old | classes if student == "in_play" else old
        _, grads = kd(params, teacher, x, old, shown, weight, temperature)
        total = map_params(lambda t, g: t + strength * factor * g, total, grads)
    return total
