"""Multi-layer perceptron; depth 0 is the linear baseline."""

import math

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.networks import _activations, _input_norm, _normalise
from cl_bench.networks._init import bias_bound, kernel_bound
from cl_bench.types import Key, NetState, Network, StreamSpec, Unit


def make(
    spec: StreamSpec,
    *,
    widths: tuple[int, ...] = (100, 100, 100),
    activation: str = "relu",
    init: str = "kaiming",
    spare_units: int = 0,
    norm: str = "none",
    norm_decays: tuple[float, float] = _normalise.DECAYS,
    dropout: float = 0.0,
    input_norm: str = "none",
    input_decay: float = 0.99,
) -> Network:
    """MLP with hidden layers 'h1', 'h2', ... and a linear 'head'.

    Args:
      spec: the stream's; inputs [B, ...] are flattened to [B, prod(input_shape)].
      widths: units of each hidden layer; () is a linear model. A unit of 'crelu' or
        'fourier' has two outputs, so that the next layer has twice the inputs.
      activation: a name of `_activations.NAMES`.
      init: 'kaiming', 'lecun', 'xavier' or 'pytorch' (`networks._init`).
      spare_units: capacity a layer holds beyond its width, not alive at the start.
      norm: 'none', 'batch', 'layer' or 'online' (`networks._normalise`), before the
        activation.
      norm_decays: forward and backward decay of norm 'online'.
      dropout: probability of dropping an output of a hidden unit in training, the
        others being divided by 1 - dropout (Srivastava et al., JMLR 2014).
      input_norm: 'none', or 'ema': inputs standardised by moving averages
        (`networks._input_norm`).
      input_decay: of these averages.

    Raises ValueError for an activation, init, width, norm, dropout or decay that does
    not exist, and for norm 'batch' where batches have one example.
    """
    _check(spec, widths, activation, spare_units, norm, norm_decays, dropout)
    _input_norm.check(input_norm, input_decay)
    names = [f"h{i + 1}" for i in range(len(widths))] + ["head"]
    outputs = [*(width + spare_units for width in widths), spec.num_outputs]
    rows = _activations.features(activation)
    inputs = [math.prod(spec.input_shape), *(rows * size for size in outputs[:-1])]
    gains = [activation] * len(widths) + ["linear"]
    units = tuple(
        Unit(names[i], outputs[i], (names[i],), (names[i + 1],), rows)
        for i in range(len(widths))
    )
    bounds = [
        (
            kernel_bound(init, gains[i], inputs[i], outputs[i]),
            bias_bound(init, inputs[i]),
        )
        for i in range(len(names))
    ]

    def init_net(key: Key) -> NetState:
        params = {}
        for i, (name, layer_key) in enumerate(
            zip(names, jax.random.split(key, len(names)), strict=True)
        ):
            w_key, b_key = jax.random.split(layer_key)
            w, b = bounds[i]
            shape = (inputs[i], outputs[i])
            kernel = jax.random.uniform(w_key, shape, minval=-w, maxval=w)
            bias = jax.random.uniform(b_key, shape[1:], minval=-b, maxval=b)
            params[name] = {
                "kernel": kernel,
                "bias": bias if b else jnp.zeros(shape[1]),
            }
        for unit in units:
            params[unit.name] |= _normalise.init_norm(norm, unit.size)[0]
            params[unit.name] |= _activations.init_leaves(activation, unit.size)
        stats = _normalise.init_stats(norm, {u.name: u.size for u in units})
        stats |= _input_norm.init_stats(input_norm, inputs[0])
        alive = {}
        if spare_units:
            alive = {u.name: jnp.arange(u.size) < u.size - spare_units for u in units}
        return NetState(params, stats, alive, None)

    def apply(net, x, *, train, key, taps=None, gates=None):
        taps, gates = taps or {}, gates or {}
        h = x.reshape(x.shape[0], -1)
        h, stats = _input_norm.of_inputs(
            input_norm, net.stats, h, train=train, decay=input_decay
        )
        acts = {"x": h}
        for i, unit in enumerate(units):
            z = _dense(net, unit.name, h)
            z = z + taps[unit.name] if unit.name in taps else z
            alive = net.alive.get(unit.name)
            z, stats = _normalise.of_module(
                norm, net, stats, unit.name, z,
                train=train, alive=alive, decays=norm_decays,
            )  # fmt: skip
            h = _activations.activate(activation, net.params[unit.name], z)
            if alive is not None:
                h = jnp.where(alive, h, 0.0)
            if unit.name in gates:
                gate = gates[unit.name]
                h = h * (gate if rows == 1 else gate[..., None, :])
            if dropout and train:
                h = _drop(jax.random.fold_in(key, i), h, dropout)
            acts[unit.name] = h
            h = h if rows == 1 else _activations.flatten_features(h)
        logits = _dense(net, "head", h)
        return logits + taps["logits"] if "logits" in taps else logits, acts, stats

    def columns(key, module, n):
        i = names.index(module)
        w = bounds[i][0]
        return jax.random.uniform(key, (inputs[i], n), minval=-w, maxval=w)

    return Network(init_net, apply, columns, units)


def _check(spec, widths, activation, spare_units, norm, norm_decays, dropout) -> None:
    _activations.check(activation)
    if any(width < 1 for width in widths) or spare_units < 0:
        raise ValueError(f"widths {widths} and spare_units {spare_units}: too small")
    _normalise.check(norm, spec.batch_size)
    if not all(0.0 <= decay < 1.0 for decay in norm_decays):
        raise ValueError(f"norm_decays {norm_decays}: must be at least 0 and below 1")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout {dropout}: must be at least 0 and below 1")


def _dense(net: NetState, name: str, h: Array) -> Array:
    layer = net.params[name]
    kernel = layer["kernel"]
    if net.edges is not None and name in net.edges:
        kernel = jnp.where(net.edges[name], kernel, 0.0)
    return h @ kernel + layer["bias"]


def _drop(key: Key, h: Array, rate: float) -> Array:
    """Each entry 0 with probability `rate`, else divided by 1 - rate."""
    kept = jax.random.bernoulli(key, 1.0 - rate, h.shape)
    return jnp.where(kept, h / (1.0 - rate), 0.0)
