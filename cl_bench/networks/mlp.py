"""Multi-layer perceptron; depth 0 is the linear baseline."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.networks._init import bias_bound, kernel_bound
from cl_bench.types import Key, NetState, Network, StreamSpec, Unit

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,  # slope 0 at 0, as in PyTorch; that of jnp.maximum is 1/2
    "leaky_relu": lambda z: jnp.where(z > 0.0, z, 0.01 * z),
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "elu": jax.nn.elu,
    "swish": jax.nn.swish,
    "linear": lambda z: z,
}


def make(
    spec: StreamSpec,
    *,
    widths: tuple[int, ...] = (100, 100, 100),
    activation: str = "relu",
    init: str = "kaiming",
    spare_units: int = 0,
) -> Network:
    """MLP with hidden layers 'h1', 'h2', ... and a linear 'head'.

    Args:
      spec: the stream's; inputs [B, ...] are flattened to [B, prod(input_shape)].
      widths: units of each hidden layer; () is a linear model.
      activation: a name of `ACTIVATIONS`.
      init: 'kaiming', 'lecun', 'xavier' or 'pytorch' (`networks._init`).
      spare_units: capacity a layer holds beyond its width, not alive at the start.

    Raises ValueError for an activation, init or width that does not exist.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r} is none of {sorted(ACTIVATIONS)}")
    if any(width < 1 for width in widths) or spare_units < 0:
        raise ValueError(f"widths {widths} and spare_units {spare_units}: too small")
    names = [f"h{i + 1}" for i in range(len(widths))] + ["head"]
    sizes = [math.prod(spec.input_shape), *(width + spare_units for width in widths)]
    sizes.append(spec.num_outputs)
    gains = [activation] * len(widths) + ["linear"]
    units = tuple(
        Unit(names[i], sizes[i + 1], (names[i],), (names[i + 1],))
        for i in range(len(widths))
    )
    bounds = [
        (
            kernel_bound(init, gains[i], sizes[i], sizes[i + 1]),
            bias_bound(init, sizes[i]),
        )
        for i in range(len(names))
    ]
    phi = ACTIVATIONS[activation]

    def init_net(key: Key) -> NetState:
        params = {}
        for i, (name, layer_key) in enumerate(
            zip(names, jax.random.split(key, len(names)), strict=True)
        ):
            w_key, b_key = jax.random.split(layer_key)
            w, b = bounds[i]
            shape = (sizes[i], sizes[i + 1])
            kernel = jax.random.uniform(w_key, shape, minval=-w, maxval=w)
            bias = jax.random.uniform(b_key, shape[1:], minval=-b, maxval=b)
            params[name] = {
                "kernel": kernel,
                "bias": bias if b else jnp.zeros(shape[1]),
            }
        alive = {}
        if spare_units:
            alive = {u.name: jnp.arange(u.size) < u.size - spare_units for u in units}
        return NetState(params, {}, alive, None)

    def apply(net, x, *, train, key, taps=None, gates=None):
        del train, key  # no dropout, no statistics
        taps, gates = taps or {}, gates or {}
        h = x.reshape(x.shape[0], -1)
        acts = {"x": h}
        for unit in units:
            z = _dense(net, unit.name, h)
            h = phi(z + taps[unit.name] if unit.name in taps else z)
            if unit.name in net.alive:
                h = jnp.where(net.alive[unit.name], h, 0.0)
            if unit.name in gates:
                h = h * gates[unit.name]
            acts[unit.name] = h
        logits = _dense(net, "head", h)
        return logits + taps["logits"] if "logits" in taps else logits, acts, net.stats

    def columns(key, module, n):
        i = names.index(module)
        w = bounds[i][0]
        return jax.random.uniform(key, (sizes[i], n), minval=-w, maxval=w)

    return Network(init_net, apply, columns, units)


def _dense(net: NetState, name: str, h: Array) -> Array:
    layer = net.params[name]
    kernel = layer["kernel"]
    if net.edges is not None and name in net.edges:
        kernel = jnp.where(net.edges[name], kernel, 0.0)
    return h @ kernel + layer["bias"]
