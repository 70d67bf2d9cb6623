"""Convolutional networks' forward pass by hand, in numpy: one loop a position.

Shapes: images [B, H, W, C], kernels [h, w, C, U]. Everything is float64.
"""

from typing import Any

import numpy as np


def conv(x: Any, kernel: Any, stride: int = 1, padding: int = 0) -> np.ndarray:
    """Sum over the window of x times kernel, for each output position."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    h, w, _, size = kernel.shape
    high = (x.shape[1] - h) // stride + 1
    wide = (x.shape[2] - w) // stride + 1
    out = np.zeros((len(x), high, wide, size))
    for i in range(high):
        for j in range(wide):
            top, left = i * stride, j * stride
            window = x[:, top : top + h, left : left + w]
            out[:, i, j] = np.einsum("bhwc,hwcu->bu", window, kernel)
    return out


def max_pool(x: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Maxima of the windows [B, H', W', C], and the gradient of their sum."""
    x = np.asarray(x, np.float64)
    high, wide = x.shape[1] // size, x.shape[2] // size
    out = np.zeros((len(x), high, wide, x.shape[3]))
    gradient = np.zeros_like(x)
    for b, i, j, c in np.ndindex(*out.shape):
        window = x[b, i * size : (i + 1) * size, j * size : (j + 1) * size, c]
        row, column = divmod(int(np.argmax(window)), size)  # the first of equal ones
        out[b, i, j, c] = window[row, column]
        gradient[b, i * size + row, j * size + column, c] = 1.0
    return out, gradient


def cnn_forward(params: Any, x: Any, pool: int, conv_relu: bool = True) -> dict:
    """Logits and the activation of every layer: relu, then max-pool."""
    acts, h = {}, np.asarray(x, np.float64)
    for name in sorted(n for n in params if n[0] == "c"):
        z = conv(h, params[name]["kernel"]) + np.asarray(params[name]["bias"])
        acts[name] = h = max_pool(np.maximum(z, 0) if conv_relu else z, pool)[0]
    h = h.reshape(len(h), -1)
    for name in sorted(n for n in params if n[0] == "h" and n != "head"):
        z = h @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])
        acts[name] = h = np.maximum(z, 0)
    head = params["head"]
    acts["logits"] = h @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
    return acts


def resnet18_forward(params: Any, x: Any) -> dict:
    """Logits and stream activations, batch statistics, by the paper's figure."""

    def layer(name: str, h: np.ndarray, stride: int = 1) -> np.ndarray:
        own = {k: np.asarray(v, np.float64) for k, v in params[name].items()}
        z = conv(h, own["kernel"], stride, own["kernel"].shape[0] // 2) + own["bias"]
        z = (z - z.mean((0, 1, 2))) / np.sqrt(z.var((0, 1, 2)) + 1e-5)
        return own["scale"] * z + own["shift"]

    def block(h: np.ndarray, name: str, stride: int, skip: str | None) -> np.ndarray:
        inner = np.maximum(layer(f"{name}c1", h, stride), 0)
        shortcut = h if skip is None else layer(skip, h, stride)
        return np.maximum(layer(f"{name}c2", inner) + shortcut, 0)

    acts, h = {}, np.maximum(layer("stem", np.asarray(x, np.float64)), 0)
    for s, stride in [(1, 1), (2, 2), (3, 2), (4, 2)]:
        h = block(h, f"s{s}b1", stride, None if s == 1 else f"s{s}skip")
        acts[f"s{s}"] = h = block(h, f"s{s}b2", 1, None)
    head = params["head"]
    acts["logits"] = h.mean((1, 2)) @ np.asarray(head["kernel"]) + head["bias"]
    return acts
