"""Forward and backward pass of a fully connected network, by hand, in numpy.

Shapes: B batch, D inputs, U units, K outputs. Parameters are
`{'h1': {'kernel': [D, U1], 'bias': [U1]}, 'h2': ..., 'head': {...}}`; a network of
depth 0 has a head only. Hidden layers with a layer norm have a 'scale' and a 'shift'
[U] too. Everything is float64 unless `dtype` says otherwise.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

Layer = dict[str, np.ndarray]
Params = dict[str, Layer]

LEAK = 0.01
EPSILON = 1e-5  # added to the variances of layer norms


def map_params(function: Callable[..., Any], *trees: Params) -> Params:
    """Apply `function` to matching arrays of equally shaped parameter dicts."""
    first = trees[0]
    return {
        module: {
            name: function(*(tree[module][name] for tree in trees))
            for name in first[module]
        }
        for module in first
    }


def cast(params: Any, dtype: Any = np.float64) -> Params:
    """A copy of the parameters, as numpy arrays of one type."""
    return map_params(lambda p: np.array(p, dtype=dtype), params)


def layer_names(params: Params) -> list[str]:
    """All layers in order: 'h1', 'h2', ..., 'head'."""
    hidden = [name for name in params if name != "head"]
    return [*sorted(hidden, key=lambda name: int(name[1:])), "head"]


def random_params(rng: np.random.Generator, sizes: tuple[int, ...]) -> Params:
    """Standard normal weights and biases of a network of layer sizes (D, U1, ..., K)."""
    names = [*(f"h{i + 1}" for i in range(len(sizes) - 2)), "head"]
    return {
        name: {"kernel": rng.normal(size=(n, m)), "bias": rng.normal(size=m)}
        for name, (n, m) in zip(names, pairwise(sizes), strict=True)
    }


def sigmoid(z: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z)) without overflow."""
    return (0.5 * (1.0 + np.tanh(0.5 * z))).astype(z.dtype)


def activate(name: str, z: np.ndarray) -> np.ndarray:
    """Activation of the pre-activations z."""
    if name == "relu":
        return np.where(z > 0, z, 0).astype(z.dtype)
    if name == "leaky_relu":
        return np.where(z > 0, z, LEAK * z)
    if name == "tanh":
        return np.tanh(z)
    if name == "sigmoid":
        return sigmoid(z)
    if name == "elu":
        return np.where(z > 0, z, np.expm1(np.minimum(z, 0)))
    if name == "swish":
        return z * sigmoid(z)
    if name == "linear":
        return z
    raise ValueError(f"unknown activation {name!r}")


def slope(name: str, z: np.ndarray) -> np.ndarray:
    """Derivative of the activation at z; at a kink the left derivative, as in PyTorch."""
    if name == "relu":
        return (z > 0).astype(z.dtype)
    if name == "leaky_relu":
        return np.where(z > 0, 1.0, LEAK).astype(z.dtype)
    if name == "tanh":
        return 1 - np.tanh(z) ** 2
    if name == "sigmoid":
        return sigmoid(z) * (1 - sigmoid(z))
    if name == "elu":
        return np.where(z > 0, 1.0, np.exp(np.minimum(z, 0))).astype(z.dtype)
    if name == "swish":
        return sigmoid(z) * (1 + z * (1 - sigmoid(z)))
    if name == "linear":
        return np.ones_like(z)
    raise ValueError(f"unknown activation {name!r}")


def cross_entropy(logits: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Softmax cross-entropy [B] with integer labels y [B], and d loss / d logits [B, K]."""
    rows = np.arange(len(y))
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    gradient = np.exp(log_p)
    gradient[rows, y] -= 1
    return -log_p[rows, y], gradient


def squared_error(output: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared error [B] summed over the outputs, targets y [B, K], and its gradient."""
    error = output - y
    return (error**2).sum(axis=1), 2 * error


def affine(layer: Layer, h: np.ndarray) -> np.ndarray:
    """h W + b, [B, U]."""
    return h @ layer["kernel"] + layer["bias"]


def standardise(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(z - mean) / sqrt(var + 1e-5) over the units of each example, and the root [B, 1]."""
    centred = z - z.mean(axis=1, keepdims=True)
    root = np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPSILON)
    return centred / root, root


def layer_norm(layer: Layer, z: np.ndarray) -> np.ndarray:
    """scale y + shift, y the standardised z (Ba, Kiros and Hinton 2016)."""
    return layer["scale"] * standardise(z)[0] + layer["shift"]


def layer_norm_back(
    layer: Layer, z: np.ndarray, delta: np.ndarray
) -> tuple[Layer, np.ndarray]:
    """Of d loss / d output [B, U]: gradients of scale and shift, and d loss / d z."""
    y, root = standardise(z)
    grads = {"scale": (delta * y).sum(0), "shift": delta.sum(0)}
    d_y = delta * layer["scale"]
    along = (d_y * y).mean(axis=1, keepdims=True)  # the variance depends on z too
    return grads, (d_y - d_y.mean(axis=1, keepdims=True) - y * along) / root


def forward(
    params: Params, x: np.ndarray, activation: str = "relu", norm: str = "none"
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Logits [B, K], activations {'x', 'h1', ...} [B, U], pre-activations {'h1', ...}.

    With `norm` 'layer' pre-activations are normalised, and given as they are then.
    """
    activations, pre_activations = {"x": x}, {}
    h = x
    for name in layer_names(params)[:-1]:
        z = affine(params[name], h)
        pre_activations[name] = layer_norm(params[name], z) if norm == "layer" else z
        h = activations[name] = activate(activation, pre_activations[name])
    return affine(params["head"], h), activations, pre_activations


def loss_and_grads(
    params: Any,
    x: Any,
    y: Any,
    *,
    example_weight: Any = None,
    activation: str = "relu",
    norm: str = "none",
    loss: str = "cross_entropy",
    dtype: Any = np.float64,
) -> tuple[float, dict[str, np.ndarray], Params]:
    """Mean loss under the example weights [B], activations, and gradients.

    `loss` is 'cross_entropy' (y [B] integers) or 'squared_error' (y [B, K] reals);
    `norm` is 'none' or 'layer', before the activation of every hidden layer.
    The activations are {'x', 'h1', ..., 'logits'}.
    """
    params, x = cast(params, dtype), np.asarray(x, dtype)
    logits, activations, pre_activations = forward(params, x, activation, norm)
    if loss == "cross_entropy":
        per_example, delta = cross_entropy(logits, np.asarray(y))
    elif loss == "squared_error":
        per_example, delta = squared_error(logits, np.asarray(y, dtype))
    else:
        raise ValueError(f"unknown loss {loss!r}")
    share = np.ones(len(x), dtype) if example_weight is None else example_weight
    share = np.asarray(share, dtype) / np.sum(share, dtype=dtype)
    delta = delta * share[:, None]

    grads: Params = {}
    names = layer_names(params)
    for name, below in reversed(list(zip(names, ["x", *names[:-1]], strict=True))):
        own: Layer = {}
        if norm == "layer" and name != "head":
            z = affine(params[name], activations[below])
            own, delta = layer_norm_back(params[name], z, delta)
        kernel = activations[below].T @ delta
        grads[name] = {"kernel": kernel, "bias": delta.sum(0), **own}
        if below != "x":
            delta = delta @ params[name]["kernel"].T
            delta = delta * slope(activation, pre_activations[below])
    return float(per_example @ share), {**activations, "logits": logits}, grads


def init_bound(init: str, activation: str, fan_in: int, fan_out: int) -> float:
    """Bound b of the uniform initialisation U(-b, b) of a layer's weights.

    `init` is 'kaiming' gain sqrt(3 / fan_in), 'xavier' gain sqrt(6 / (fan_in +
    fan_out)), 'lecun' sqrt(3 / fan_in) or 'default' (PyTorch) sqrt(1 / fan_in). The
    gain is PyTorch's for the activation, with elu and swish counted as relu; the head
    has gain 1, i.e. activation 'linear' (Dohare et al. 2024, released code).
    """
    gains = {
        "relu": np.sqrt(2),
        "elu": np.sqrt(2),
        "swish": np.sqrt(2),
        "leaky_relu": np.sqrt(2 / (1 + LEAK**2)),
        "tanh": 5 / 3,
        "sigmoid": 1.0,
        "linear": 1.0,
    }
    bounds = {
        "kaiming": gains[activation] * np.sqrt(3 / fan_in),
        "xavier": gains[activation] * np.sqrt(6 / (fan_in + fan_out)),
        "lecun": np.sqrt(3 / fan_in),
        "default": np.sqrt(1 / fan_in),
    }
    return float(bounds[init])
