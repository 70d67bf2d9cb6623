"""PackNet (Mallya & Lazebnik 2018): train the free weights, prune, retrain, freeze.

`owner` says of each weight of a kernel which task has it, FREE = none yet. With F free
weights in a layer the round(p F) smallest |w| of them are pruned: w = 0, still free;
the other free ones are the task's.
"""

import numpy as np

from tests.reference.mlp import Params

FREE = -1


def blank(params: Params) -> dict[str, np.ndarray]:
    """All weights of all kernels free."""
    return {name: np.full(p["kernel"].shape, FREE) for name, p in params.items()}


def divide(
    kernel: np.ndarray, owner: np.ndarray, task: int, fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """The kernel and its owners after the pruning of one task."""
    kernel, owner = kernel.copy(), owner.copy()
    free = np.argwhere(owner == FREE)
    order = np.argsort([abs(kernel[tuple(i)]) for i in free], kind="stable")
    count = round(fraction * len(free))
    for place, index in enumerate(free[order]):
        if place < count:
            kernel[tuple(index)] = 0.0
        else:
            owner[tuple(index)] = task
    return kernel, owner


def sgd(
    params: Params,
    grads: Params,
    owner: dict[str, np.ndarray],
    task: int,
    *,
    divided: bool,
    step_size: float,
    outputs: np.ndarray | None = None,
) -> Params:
    """One step of what may move: before the division the free weights, then the task's.

    `outputs` [K] bool: those of the head that are this task's own, weights and biases
    (None: the head is packed too). Other biases move in the first task.
    """
    new = {}
    for name, layer in params.items():
        moves = {
            "kernel": owner[name] == (task if divided else FREE),
            "bias": np.full(layer["bias"].shape, task == 0),
        }
        if name == "head" and outputs is not None:
            moves = {"kernel": outputs[None, :], "bias": outputs}
        new[name] = {
            leaf: layer[leaf] - step_size * moves[leaf] * grads[name][leaf]
            for leaf in layer
        }
    return new
