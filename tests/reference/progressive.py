"""Progressive networks (Rusu et al. 2016), equations 1 and 2, in numpy.

Column k = 0, 1, ...: z_i = h_{i-1} W_i + b_i + lateral_i, from the second layer on, with
h_{i-1}^j of the k columns before it:
'linear' (equation 1): sum_j h^j U_j.
'adapter' (equation 2): relu([alpha_j h^j]_j V + c) U, V the V_j below one another.

`laterals[k]` is {module: {'kernel': [k, in, out]}}, or {module: {'alpha': [k],
'project': [k, in, in], 'bias': [in], 'kernel': [in, out]}}; column 0 has none.
"""

import numpy as np

from tests.reference.mlp import Params, layer_names

Inputs = list[dict[str, np.ndarray]]  # of each column: module -> what it reads


def lateral(leaves: dict[str, np.ndarray], h: list[np.ndarray]) -> dict:
    """What the columns with activations `h` add to one layer, and the way there."""
    if "alpha" not in leaves:
        return {"out": sum(h[j] @ leaves["kernel"][j] for j in range(len(h)))}
    side = np.hstack([leaves["alpha"][j] * h[j] for j in range(len(h))])
    before = side @ np.vstack(list(leaves["project"])) + leaves["bias"]
    middle = np.maximum(before, 0)
    return {"side": side, "middle": middle, "out": middle @ leaves["kernel"]}


def lateral_gradients(
    leaves: dict[str, np.ndarray], h: list[np.ndarray], delta: np.ndarray
) -> dict[str, np.ndarray]:
    """Of `lateral`'s parameters, from delta = dL/dz of the layer."""
    if "alpha" not in leaves:
        return {"kernel": np.stack([a.T @ delta for a in h])}
    way = lateral(leaves, h)
    inner = (delta @ leaves["kernel"].T) * (way["middle"] > 0)
    stacked = way["side"].T @ inner
    return {
        "alpha": np.array(
            [np.sum(h[j] * (inner @ leaves["project"][j].T)) for j in range(len(h))]
        ),
        "project": stacked.reshape(leaves["project"].shape),
        "bias": inner.sum(axis=0),
        "kernel": way["middle"].T @ delta,
    }


def column(
    params: Params, laterals: Params, earlier: Inputs, x: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Logits of a column, and what each of its modules reads."""
    reads, h = {}, np.asarray(x, np.float64)
    z = h
    for name in layer_names(params):
        reads[name] = h
        z = h @ params[name]["kernel"] + params[name]["bias"]
        if earlier and name in laterals:
            z = z + lateral(laterals[name], [other[name] for other in earlier])["out"]
        h = np.maximum(z, 0)
    return z, reads


def run(
    columns: list[Params], laterals: list[Params], x: np.ndarray
) -> tuple[np.ndarray, Inputs]:
    """Logits of the last of `columns`, and what the modules of all columns read."""
    inputs: Inputs = []
    logits = np.zeros(0)
    for params, into in zip(columns, laterals, strict=True):
        logits, reads = column(params, into, inputs, x)
        inputs = [*inputs, reads]
    return logits, inputs


def gradients(
    columns: list[Params],
    laterals: list[Params],
    x: np.ndarray,
    y: np.ndarray,
    classes: np.ndarray,
) -> tuple[Params, Params]:
    """Of the mean cross-entropy over the outputs in play, by the last column's own."""
    logits, inputs = run(columns, laterals, x)
    z = np.where(classes, logits, -np.inf)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    delta = e / e.sum(axis=1, keepdims=True)
    delta[np.arange(len(y)), y] -= 1
    delta /= len(y)
    params, into, (*earlier, own) = columns[-1], laterals[-1], inputs
    grads, by_lateral = {}, {}
    for name in reversed(layer_names(params)):
        grads[name] = {"kernel": own[name].T @ delta, "bias": delta.sum(axis=0)}
        if name in into:
            h = [other[name] for other in earlier]
            by_lateral[name] = lateral_gradients(into[name], h, delta)
        # What a layer reads is positive where the layer below it is active.
        delta = (delta @ params[name]["kernel"].T) * (own[name] > 0)
    return grads, by_lateral
