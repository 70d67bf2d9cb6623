"""Training a convolutional network with continual backprop, by hand, in numpy.

The network: convolutions c1, c2, ... (kernel [h, w, C, U], bias [U]; stride 1, valid),
each followed by relu and max-pool; the last one's [B, H, W, U] flattened in C order,
the channel fastest; dense relu layers h1, h2, ...; 'head'. Everything is float64.

Generate-and-test is Dohare et al.'s for convolutional networks (Nature 632:768-774,
2024, released code for Continual ImageNet). A unit of a convolution is an output
channel, its feature a map of positions after max-pool. Random numbers come in as
arguments.
"""

from itertools import pairwise
from typing import Any

import numpy as np

from tests.reference.continual_backprop import least_useful, number_to_replace
from tests.reference.conv import conv, max_pool
from tests.reference.mlp import Params, activate, cast, cross_entropy, slope
from tests.reference.utilities import State, Units


def layer_names(params: Params) -> list[str]:
    """All layers in order: 'c1', ..., 'h1', ..., 'head'."""
    hidden = [name for name in params if name != "head"]
    return [*sorted(hidden, key=lambda name: (name[0], int(name[1:]))), "head"]


def unpool(delta: np.ndarray, first: np.ndarray, size: int) -> np.ndarray:
    """Gradient before a max-pool from the one after it, delta [B, H', W', C].

    `first` [B, H, W, C] is 1 where a window has its first maximum and 0 elsewhere.
    """
    wide = delta.repeat(size, axis=1).repeat(size, axis=2)
    out = np.zeros_like(first)  # what lies outside the last full window stays 0
    out[:, : wide.shape[1], : wide.shape[2]] = wide
    return out * first


def conv_gradients(
    x: np.ndarray, kernel: np.ndarray, delta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of x and of the kernel from the one of conv(x, kernel)."""
    to_x, to_kernel = np.zeros_like(x), np.zeros_like(kernel)
    high, wide = delta.shape[1:3]
    for i, j in np.ndindex(*kernel.shape[:2]):
        seen = x[:, i : i + high, j : j + wide]
        to_kernel[i, j] = np.einsum("bhwc,bhwu->cu", seen, delta)
        to_x[:, i : i + high, j : j + wide] += delta @ kernel[i, j].T
    return to_x, to_kernel


def loss_and_grads(
    params: Any, x: Any, y: Any, pool: int
) -> tuple[float, Units, Params]:
    """Mean cross-entropy with integer labels y [B], activations, and gradients.

    Activations are {'c1': [B, H, W, U] after the pool, ..., 'h1': [B, U], ...}. Of
    equal maxima of a window the first gets the gradient.
    """
    params = cast(params)
    names = layer_names(params)
    activations: Units = {}
    inputs: Units = {}
    before: Units = {}  # pre-activations
    firsts: Units = {}
    h = np.asarray(x, np.float64)
    for name in names:
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        if name[0] == "c":
            inputs[name], before[name] = h, conv(h, kernel) + bias
            h, firsts[name] = max_pool(activate("relu", before[name]), pool)
        else:
            inputs[name] = h = h.reshape(len(h), -1)
            before[name] = h = h @ kernel + bias
            h = h if name == "head" else activate("relu", h)
        if name != "head":
            activations[name] = h
    per_example, delta = cross_entropy(before["head"], np.asarray(y))
    delta = delta / len(per_example)

    grads: Params = {}
    for name in reversed(names):
        kernel = params[name]["kernel"]
        if name[0] == "c":
            delta = delta.reshape(activations[name].shape)
            delta = unpool(delta, firsts[name], pool)
        if name != "head":
            delta = delta * slope("relu", before[name])
        bias_gradient = delta.sum(axis=tuple(range(delta.ndim - 1)))
        if name[0] == "c":
            delta, kernel_gradient = conv_gradients(inputs[name], kernel, delta)
        else:
            kernel_gradient = inputs[name].T @ delta
            delta = delta @ kernel.T
        grads[name] = {"kernel": kernel_gradient, "bias": bias_gradient}
    return float(per_example.mean()), activations, grads


def outgoing_magnitude(kernel: np.ndarray, size: int) -> np.ndarray:
    """Mean |w| [P, U] out of `size` units, from the kernel of the layer that reads them.

    A dense layer has weights of its own for each of the P positions of a unit (one
    position for a dense unit). A convolution has the same for all positions: P = 1, the
    mean is over window and output channels.
    """
    if kernel.ndim == 4:
        return np.abs(kernel).mean(axis=(0, 1, 3))[None]
    return np.abs(kernel).mean(axis=1).reshape(-1, size)


def instantaneous_utility(
    kind: str, h: np.ndarray, f_hat: np.ndarray, w_in: np.ndarray, w_out: np.ndarray
) -> np.ndarray:
    """y [U] from h [B, P, U], f_hat [U] and the kernels into and out of the layer.

    The mean over the batch of |h| or |h - f_hat| is multiplied by the outgoing
    magnitude for each position, then averaged over positions. Biases do not count.
    """
    out = outgoing_magnitude(w_out, h.shape[-1])
    if kind == "contribution":
        return (out * np.abs(h).mean(axis=0)).mean(axis=0)
    centred = (out * np.abs(h - f_hat).mean(axis=0)).mean(axis=0)
    if kind == "zero_contribution":
        return centred
    if kind == "adaptable_contribution":
        return centred / np.abs(w_in).mean(axis=tuple(range(w_in.ndim - 1)))
    raise ValueError(f"unknown utility {kind!r}")


def generate(params: Params, replaced: Units, fresh: Units) -> Params:
    """New parameters in which the units of the masks `replaced` are made new.

    Incoming weights: those of fresh[layer] [..., D, U]; bias 0; outgoing weights 0, for
    a channel that a dense layer reads those of all its positions. From the input on, so
    that a weight between two replaced units is zeroed first and then redrawn.
    """
    params = cast(params)
    for name, above in pairwise(layer_names(params)):
        outgoing = params[above]["kernel"]
        for j in np.flatnonzero(replaced[name]):
            params[name]["kernel"][..., j] = fresh[name][..., j]
            params[name]["bias"][j] = 0
            if outgoing.ndim == 4:
                outgoing[:, :, j, :] = 0
            else:
                outgoing[j :: len(replaced[name]), :] = 0
    return params


def generate_and_test(
    params: Any,
    state: State,
    activations: Units,
    *,
    fresh: Units,
    replacement_rate: float,
    decay: float,
    maturity: int,
    utility: str = "contribution",
    bias_correction: str = "current",
    count: str = "total",
    max_replaced: int | None = None,
) -> tuple[Params, State, Units]:
    """One generate-and-test step; new parameters, new state, masks of what was replaced.

    `params` are the updated weights, `activations` those of before the update. With a
    the age, this step counted, f and u are divided by 1 - decay^a ('current') or not
    ('none'). f of a channel is its mean over batch and positions. Units of age >
    `maturity` can be replaced. All layers choose before any weight changes.
    """
    if bias_correction not in ("current", "none"):
        raise ValueError(f"unknown bias_correction {bias_correction!r}")
    params = cast(params)
    state = State(*(dict(field) for field in vars(state).values()))
    replaced: Units = {}
    for name, above in pairwise(layer_names(params)):
        w_in, w_out = params[name]["kernel"], params[above]["kernel"]
        h = np.asarray(activations[name], np.float64)
        h = h.reshape(len(h), -1, h.shape[-1])
        age = state.age[name] + 1
        kappa = 1 - decay**age if bias_correction == "current" else np.ones_like(age)
        f = decay * state.mean_activation[name] + (1 - decay) * h.mean(axis=(0, 1))
        y = instantaneous_utility(utility, h, f / kappa, w_in, w_out)
        u = decay * state.utility[name] + (1 - decay) * y
        eligible = age > maturity
        k, state.accumulator[name] = number_to_replace(
            state.accumulator[name],
            eligible,
            replacement_rate=replacement_rate,
            count=count,
            max_replaced=max_replaced,
        )
        replaced[name] = least_useful(u / kappa, eligible, k)
        state.utility[name] = np.where(replaced[name], 0, u)
        state.mean_activation[name] = np.where(replaced[name], 0, f)
        state.age[name] = np.where(replaced[name], 0, age)
    return generate(params, replaced, fresh), state, replaced
