"""Hard attention to the task (Serra et al. 2018), equations 1 to 6, in numpy.

a = sigmoid(s e) multiplies the outputs of each hidden layer (ReLU). Loss +
c sum a (1 - a') / sum(1 - a'). Weight j -> i: gradient times 1 - min(a'_i, a'_j).
"""

from itertools import pairwise

import numpy as np

from tests.reference.mlp import Params, layer_names

Layers = dict[str, np.ndarray]


def sharpness(i: int, steps: int, s_max: float) -> float:
    """s at batch i = 0 ... steps - 1 of an epoch (equation 3)."""
    return 1 / s_max + (s_max - 1 / s_max) * i / (steps - 1)


def gradients(
    params: Params, open_: Layers, x: np.ndarray, y: np.ndarray, classes: np.ndarray
) -> tuple[Params, Layers]:
    """Of the mean cross-entropy over the outputs in play: of parameters and gates."""
    names = layer_names(params)
    inputs, before = {names[0]: np.asarray(x, np.float64)}, {}
    for name, above in pairwise(names):
        before[name] = inputs[name] @ params[name]["kernel"] + params[name]["bias"]
        inputs[above] = np.maximum(before[name], 0) * open_[name]
    z = inputs["head"] @ params["head"]["kernel"] + params["head"]["bias"]
    z = np.where(classes, z, -np.inf)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    delta = e / e.sum(axis=1, keepdims=True)
    delta[np.arange(len(y)), y] -= 1
    delta /= len(y)
    grads, by_gate = {}, {}
    for name in reversed(names):
        if name != "head":
            by_gate[name] = (delta * np.maximum(before[name], 0)).sum(axis=0)
            delta = delta * open_[name] * (before[name] > 0)
        grads[name] = {"kernel": inputs[name].T @ delta, "bias": delta.sum(axis=0)}
        delta = delta @ params[name]["kernel"].T
    return grads, by_gate


def crowding(open_: Layers, used: Layers) -> tuple[float, Layers]:
    """The regulariser without c (equation 6), and its gradient by the gates."""
    total = sum((1 - u).sum() for u in used.values())
    value = sum((open_[n] * (1 - u)).sum() for n, u in used.items()) / total
    return value, {n: (1 - u) / total for n, u in used.items()}


def compensated(by_gate: Layers, e: Layers, s: float, s_max: float) -> Layers:
    """dL/de after the compensation (equation 5)."""
    found = {}
    for name, g in by_gate.items():
        # sigmoid'(x) = 1 / (2 cosh(x) + 2): a (1 - a) has no digits left at |x| = 36.
        plain = g * s / (2 * np.cosh(s * e[name]) + 2)
        ratio = (np.cosh(np.clip(s * e[name], -50, 50)) + 1) / (np.cosh(e[name]) + 1)
        found[name] = plain * s_max / s * ratio
    return found


def multipliers(params: Params, used: Layers, task: int) -> Params:
    """1 - min(a'_i, a'_j) one weight at a time (equation 2), 1 - a'_i for biases."""
    ends = 1.0 if task > 0 else 0.0  # of the inputs and of the outputs
    found, below = {}, np.full(len(params["h1"]["kernel"]), ends)
    for name in layer_names(params):
        rows, columns = params[name]["kernel"].shape
        above = used.get(name, np.full(columns, ends))
        kernel = np.zeros((rows, columns))
        for j in range(rows):
            for i in range(columns):
                kernel[j, i] = 1 - min(above[i], below[j])
        found[name] = {"kernel": kernel, "bias": 1 - above}
        below = above
    return found
