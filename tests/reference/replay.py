"""Experience replay: the gradient of the current and the replayed examples."""

import numpy as np

from tests.reference.mlp import Params, loss_and_grads, map_params

Examples = tuple[np.ndarray, np.ndarray, np.ndarray]  # inputs, labels, weights


def grads(
    params: Params,
    current: Examples,
    replayed: Examples | None,
    *,
    weighting: str,
    r: float = 1.0,
    tasks_before: int = 1,
) -> Params:
    """Of the current examples alone where nothing is replayed; else

    'union': of the mean over all, a replayed example counting r;
    'half': (g + r g') / (1 + r); 'by_task': (g + r t g') / (1 + r t), t tasks before.
    """
    x, y, weight = current
    own = loss_and_grads(params, x, y, example_weight=weight)[2]
    if replayed is None:
        return own
    old_x, old_y, old_weight = replayed
    if weighting == "union":
        both = np.concatenate([x, old_x]), np.concatenate([y, old_y])
        weights = np.concatenate([weight, r * old_weight])
        return loss_and_grads(params, *both, example_weight=weights)[2]
    old = loss_and_grads(params, old_x, old_y, example_weight=old_weight)[2]
    against = r * (tasks_before if weighting == "by_task" else 1)
    return map_params(lambda g, h: (g + against * h) / (1 + against), own, old)
