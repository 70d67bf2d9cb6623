"""Dark experience replay, and DER++ (Buzzega et al. 2020)."""

import numpy as np

from tests.reference.mlp import Params, loss_and_grads, map_params


def grads(
    params: Params,
    current: tuple[np.ndarray, np.ndarray, np.ndarray],
    dark: tuple[np.ndarray, np.ndarray] | None,
    labelled: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    alpha: float,
    beta: float = 0.0,
    normalise: str = "sum",
) -> Params:
    """g + alpha d/dtheta mean ||z' - f(x')||^2 + beta d/dtheta mean CE(y'', f(x'')).

    `current` is inputs, labels and weights, `dark` x' and z', `labelled` x'' and y''.
    'mean' divides the squared norm by the number of outputs.
    """
    x, y, weight = current
    total = loss_and_grads(params, x, y, example_weight=weight)[2]
    if dark is not None:
        by = alpha / (dark[1].shape[1] if normalise == "mean" else 1)
        distance = loss_and_grads(params, *dark, loss="squared_error")[2]
        total = map_params(lambda g, d: g + by * d, total, distance)
    if labelled is not None:
        again = loss_and_grads(params, *labelled)[2]
        total = map_params(lambda g, d: g + beta * d, total, again)
    return total
