"""Convolutional network: convolutions, each with a max-pool, then dense layers."""

import math
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cl_bench.networks import _activations, _conv, _input_norm, _normalise
from cl_bench.networks._init import bias_bound, kernel_bound
from cl_bench.types import Key, NetState, Network, StreamSpec, Unit

# max(phi(z)) = phi(max(z)) for these, so that pooling first gives the same output and
# gradient with pool^2 times fewer biases and activations. Others pool z by phi(z).
MONOTONE = ("relu", "leaky_relu", "tanh", "sigmoid", "elu", "linear")


class Layer(NamedTuple):
    """One module: its kernel, how it is drawn, and what follows it."""

    name: str
    shape: tuple[int, ...]  # of the kernel, [h, w, in, out] or [in, out]
    activation: str
    w_bound: float
    b_bound: float


def make(
    spec: StreamSpec,
    *,
    channels: tuple[int, ...] = (32, 64, 128),
    kernels: tuple[int, ...] = (5, 3, 3),
    pool: int = 2,
    dense: tuple[int, ...] = (128, 128),
    activation: str = "relu",
    conv_activation: str | None = None,
    init: str = "pytorch",
    norm: str = "none",
    norm_decays: tuple[float, float] = _normalise.DECAYS,
    spare_units: int = 0,
    conv: str = "patches",
    input_norm: str = "none",
    input_decay: float = 0.99,
) -> Network:
    """CNN with convolutions 'c1', ..., hidden layers 'h1', ... and a linear 'head'.

    A unit of a convolution is an output channel; its activation is the one after
    max-pooling, [B, H, W, U]. The defaults are the network of Continual ImageNet
    (Dohare et al., Nature 2024). Kumar et al. 2023: channels (16, 16), kernels (5, 5),
    dense (100, 100). UPGD (Elsayed and Mahmood, ICLR 2024): channels (6, 16), kernels
    (5, 5), dense (120, 84), conv_activation 'linear'.

    Args:
      spec: the stream's, of images [H, W, C] or [H, W]; inputs [B, D] are reshaped.
      channels: of each convolution (stride 1, no padding).
      kernels: height and width of each convolution's kernel.
      pool: size and stride of the max-pool after each activation; 1 is none.
      dense: units of each hidden layer after the convolutions.
      activation: a name of `_activations.NAMES`.
      conv_activation: that of the convolutions; None: `activation`.
      init: 'kaiming', 'lecun', 'xavier' or 'pytorch' (`networks._init`).
      norm: 'none', 'batch', 'layer' or 'online' (`networks._normalise`), of all hidden
        layers, before the activation.
      norm_decays: forward and backward decay of norm 'online'.
      spare_units: capacity a layer holds beyond its width, not alive at the start.
      conv: 'patches' or 'direct' (`networks._conv`).
      input_norm: that of 'mlp', of each pixel of each colour by itself.
      input_decay: of its averages.

    Taps of dense layers are added before a norm, those of convolutions after it: to the
    pre-activations that win the max-pool, so that they have the activation's shape (not
    with two features a unit: there to all pre-activations, [B, H, W, U]).

    Raises ValueError for a setting that does not exist, for inputs that are no images
    or are too small for the kernels and pools, and for norm 'batch' with batch size 1.
    """
    conv_phi = activation if conv_activation is None else conv_activation
    _check(spec, channels, kernels, pool, dense, spare_units, norm, norm_decays)
    for name in (activation, conv_phi):
        _activations.check(name)
    _conv.check(conv)
    _input_norm.check(input_norm, input_decay)
    image = (*spec.input_shape, 1)[:3]
    sizes = [c + spare_units for c in channels], [d + spare_units for d in dense]
    positions = _positions(image, kernels, pool)
    layers = _layers(
        image[2], sizes, kernels, positions, (conv_phi, activation), spec, init
    )
    units = _units(layers)
    by_name = {layer.name: layer for layer in layers}

    def init_net(key: Key) -> NetState:
        params = {}
        for layer, k in zip(layers, jax.random.split(key, len(layers)), strict=True):
            w_key, b_key = jax.random.split(k)
            w, b, size = layer.w_bound, layer.b_bound, layer.shape[-1]
            kernel = jax.random.uniform(w_key, layer.shape, minval=-w, maxval=w)
            bias = jax.random.uniform(b_key, (size,), minval=-b, maxval=b)
            params[layer.name] = {
                "kernel": kernel,
                "bias": bias if b else jnp.zeros(size),
            }
        for unit in units:
            params[unit.name] |= _normalise.init_norm(norm, unit.size)[0]
            phi = by_name[unit.name].activation
            params[unit.name] |= _activations.init_leaves(phi, unit.size)
        stats = _normalise.init_stats(norm, {u.name: u.size for u in units})
        stats |= _input_norm.init_stats(input_norm, math.prod(image))
        alive = {}
        if spare_units:
            alive = {u.name: jnp.arange(u.size) < u.size - spare_units for u in units}
        return NetState(params, stats, alive, None)

    def normalise(net, stats, name, z, train):
        return _normalise.of_module(
            norm, net, stats, name, z,
            train=train, alive=net.alive.get(name), decays=norm_decays,
        )  # fmt: skip

    def convolve(net, stats, layer, h, train, tap):
        """The layer's pooled activations [B, H, W, ..., U], and new statistics."""
        name, phi, params = layer.name, layer.activation, net.params[layer.name]
        z = _conv.conv(conv, h, _conv.kernel_of(net, name))
        early = norm == "none" and phi in MONOTONE
        z = _conv.max_pool(z, pool) if early else z
        z, stats = normalise(net, stats, name, z + params["bias"], train)
        if _activations.features(phi) > 1:  # each feature has a maximum of its own
            h = _activations.activate(phi, params, z + tap)
            return _conv.max_pool(h, pool), stats
        if not early:
            by = z if phi in MONOTONE else _activations.activate(phi, params, z)
            z = _conv.max_pool(z, pool, by=by)
        return _activations.activate(phi, params, z + tap), stats

    def apply(net, x, *, train, key, taps=None, gates=None):
        del key  # no dropout
        taps, gates = taps or {}, gates or {}
        flat = x.reshape(x.shape[0], -1)
        flat, stats = _input_norm.of_inputs(
            input_norm, net.stats, flat, train=train, decay=input_decay
        )
        h = flat.reshape(-1, *image)
        acts = {"x": h}
        for layer in layers[:-1]:
            name, tap = layer.name, taps.get(layer.name, 0.0)
            if len(layer.shape) == 4:
                h, stats = convolve(net, stats, layer, h, train, tap)
            else:
                z = h.reshape(h.shape[0], -1) @ _conv.kernel_of(net, name)
                z = z + net.params[name]["bias"] + tap
                z, stats = normalise(net, stats, name, z, train)
                h = _activations.activate(layer.activation, net.params[name], z)
            if name in net.alive:
                h = jnp.where(net.alive[name], h, 0.0)
            if name in gates:
                h = h * _per_unit(gates[name], h.ndim)
            acts[name] = h
            if _activations.features(layer.activation) > 1:
                h = _activations.flatten_features(h)
        h = h.reshape(h.shape[0], -1)
        logits = h @ _conv.kernel_of(net, "head") + net.params["head"]["bias"]
        return logits + taps.get("logits", 0.0), acts, stats

    def columns(key, module, n):
        layer = by_name[module]
        w, shape = layer.w_bound, (*layer.shape[:-1], n)
        return jax.random.uniform(key, shape, minval=-w, maxval=w)

    return Network(init_net, apply, columns, units)


def _check(spec, channels, kernels, pool, dense, spare_units, norm, decays) -> None:
    if len(spec.input_shape) not in (2, 3):
        raise ValueError(
            f"cnn needs images [H, W, C] or [H, W], and the stream's inputs have shape "
            f"{list(spec.input_shape)}; network 'mlp' takes any shape"
        )
    if not channels or len(channels) != len(kernels):
        raise ValueError(
            f"channels {channels} and kernels {kernels}: one of each for every "
            "convolution, and at least one"
        )
    if min(*channels, *kernels, pool, *dense) < 1 or spare_units < 0:
        raise ValueError(
            f"channels {channels}, kernels {kernels}, pool {pool}, dense {dense} and "
            f"spare_units {spare_units}: too small"
        )
    _normalise.check(norm, spec.batch_size)
    if not all(0.0 <= decay < 1.0 for decay in decays):
        raise ValueError(f"norm_decays {decays}: must be at least 0 and below 1")


def _positions(image, kernels, pool) -> list[tuple[int, int]]:
    """Height and width after each convolution and its pool."""
    found, (high, wide) = [], image[:2]
    for i, size in enumerate(kernels):
        before = high, wide
        high, wide = ((n - size + 1) // pool for n in before)
        if min(high, wide) < 1:
            raise ValueError(
                f"layer c{i + 1}: a {size} x {size} kernel and a {pool} x {pool} pool "
                f"leave nothing of its {before[0]} x {before[1]} input (the images are "
                f"{image[0]} x {image[1]}): use fewer or smaller kernels, or pool=1"
            )
        found.append((high, wide))
    return found


def _layers(in_channels, sizes, kernels, positions, phis, spec, init) -> list[Layer]:
    """All modules in order, the head last."""

    def layer(name, window, inputs, outputs, phi):
        area = math.prod(window)
        gain = phi if name != "head" else "linear"
        w = kernel_bound(init, gain, area * inputs, area * outputs)
        bias = bias_bound(init, area * inputs)
        return Layer(name, (*window, inputs, outputs), phi, w, bias)

    layers, inputs = [], in_channels
    for i, (size, side) in enumerate(zip(sizes[0], kernels, strict=True)):
        layers.append(layer(f"c{i + 1}", (side, side), inputs, size, phis[0]))
        inputs = _activations.features(phis[0]) * size
    inputs *= math.prod(positions[-1])
    for i, size in enumerate(sizes[1]):
        layers.append(layer(f"h{i + 1}", (), inputs, size, phis[1]))
        inputs = _activations.features(phis[1]) * size
    return [*layers, layer("head", (), inputs, spec.num_outputs, "linear")]


def _units(layers: list[Layer]) -> tuple[Unit, ...]:
    """The table: `repeat` is the features of a unit times the positions of a flatten."""
    return tuple(
        Unit(
            layer.name,
            layer.shape[-1],
            (layer.name,),
            (reader.name,),
            reader.shape[-2] // layer.shape[-1],
        )
        for layer, reader in pairwise(layers)
    )


def _per_unit(gate: jax.Array, ndim: int) -> jax.Array:
    """A gate [U] or [B, U] that broadcasts over [B, ..., U]."""
    if gate.ndim == 1:
        return gate
    return gate.reshape(gate.shape[0], *(1,) * (ndim - 2), gate.shape[-1])
