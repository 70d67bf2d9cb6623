"""Per-unit tools: magnitudes, masks, re-initialisation, capacity.

A unit of layer `u` is one column of every module in `u.incoming` (its weights and its
bias) and `u.repeat` rows of every module in `u.outgoing`. Everything that resets,
grows or prunes units goes through this file, so that indexing is written once.
Masks are dicts: `Unit.name` -> [U] bool.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cl_bench.types import Learner, NetState, PyTree, Unit

# What a unit's own parameters and statistics are when it starts anew.
NEUTRAL_LEAVES = {"bias": 0.0, "scale": 1.0, "shift": 0.0, "prelu": 0.25, "adalin": 0.0}
NEUTRAL_STATISTICS = {"var": 1.0}  # every other one is 0


def _rows(kernel: Array, unit: Unit) -> Array:
    """Kernel [..., in, out] with its input axis split into [..., repeat, U, out].

    A flatten of [B, H, W, U] puts the unit index fastest, hence this order.
    """
    return kernel.reshape(*kernel.shape[:-2], unit.repeat, unit.size, kernel.shape[-1])


def incoming_magnitude(params: PyTree, unit: Unit) -> Array:
    """Mean |w| over the inputs of each unit, biases excluded: [U]."""
    kernels = [jnp.abs(params[name]["kernel"]) for name in unit.incoming]
    totals = [k.sum(axis=tuple(range(k.ndim - 1))) for k in kernels]
    return sum(totals[1:], totals[0]) / sum(k.size // unit.size for k in kernels)


def outgoing_magnitude(params: PyTree, unit: Unit) -> Array:
    """Mean |w| over what reads each unit, for each of its rows: [repeat, U]."""
    # XLA's one loop for the sums over rows and over columns of the same |w| takes twice
    # as long on a CPU as two loops (jaxlib 0.10.2): the barrier keeps them apart.
    read = [jax.lax.optimization_barrier(params[n]["kernel"]) for n in unit.outgoing]
    kernels = [_rows(jnp.abs(kernel), unit) for kernel in read]
    totals = [k.sum(axis=(*range(k.ndim - 3), k.ndim - 1)) for k in kernels]
    count = sum(k.size // (unit.size * unit.repeat) for k in kernels)
    return sum(totals[1:], totals[0]) / count


def mean_over_batch(activation: Array) -> Array:
    """Mean over batch and positions of an activation [B, ..., U]: [U]."""
    return activation.mean(axis=tuple(range(activation.ndim - 1)))


def mean_by_row(activation: Array, unit: Unit) -> Array:
    """Mean of an activation [B, ..., U] for each row that reads a unit: [repeat, U]."""
    return activation.reshape(-1, unit.repeat, unit.size).mean(axis=0)


def join(units: Sequence[Unit], values: Mapping[str, Array]) -> Array:
    """Per-layer vectors as one vector [sum of U]: one fused loop, not one a layer."""
    return jnp.concatenate([values[u.name] for u in units])


def split(units: Sequence[Unit], joined: Array) -> dict[str, Array]:
    """The inverse of `join`."""
    parts, start = {}, 0
    for unit in units:
        parts[unit.name] = joined[start : start + unit.size]
        start += unit.size
    return parts


def count(units: Sequence[Unit], joined: Array) -> Array:
    """How many units of each layer a joined mask holds: [layers] float32."""
    sizes = np.array([unit.size for unit in units])
    layer = np.repeat(np.arange(len(units)), sizes)
    # One small product: XLA's integer reductions cost several kernels each on a CPU.
    return joined.astype(jnp.float32) @ np.eye(len(units), dtype=np.float32)[layer]


def mask_incoming(kernel: Array, mask: Array) -> Array:
    """Unit mask [U] as a mask that broadcasts over a kernel's columns."""
    return mask.reshape((1,) * (kernel.ndim - 1) + mask.shape)


def mask_outgoing(kernel: Array, unit: Unit, mask: Array) -> Array:
    """Unit mask [U] as a mask that broadcasts over a kernel's rows."""
    rows = jnp.tile(mask, unit.repeat)
    return rows.reshape((1,) * (kernel.ndim - 2) + (rows.shape[0], 1))


def set_incoming(
    params: PyTree,
    unit: Unit,
    mask: Array,
    kernels: Mapping[str, Array],
    bias: float | Mapping[str, Array],
) -> PyTree:
    """Masked units get the columns of `kernels` (module -> broadcastable) and `bias`.

    `bias` is one value, or module -> [U] for modules that have one. Their other parameters (of a normalisation, of the activation) become neutral.
    """
    params = dict(params)
    for name in unit.incoming:
        layer = params[name]
        chosen = mask_incoming(layer["kernel"], mask)
        new = {"kernel": jnp.where(chosen, kernels[name], layer["kernel"])}
        for leaf in layer.keys() - {"kernel"}:
            value = NEUTRAL_LEAVES[leaf]
            if leaf == "bias":
                value = bias[name] if isinstance(bias, Mapping) else bias
            new[leaf] = jnp.where(mask, value, layer[leaf])
        params[name] = {**layer, **new}
    return params


def reset_statistics(stats: PyTree, unit: Unit, mask: Array) -> PyTree:
    """Masked units get neutral statistics wherever their modules keep some."""

    def neutral(path: tuple, leaf: Array) -> Array:
        return jnp.where(mask, NEUTRAL_STATISTICS.get(path[-1].key, 0.0), leaf)

    def of_modules(tree: PyTree) -> PyTree:
        modules = {name: tree[name] for name in unit.incoming if name in tree}
        return {**tree, **jax.tree_util.tree_map_with_path(neutral, modules)}

    stats = of_modules(stats)
    if "backward" in stats:
        stats = {**stats, "backward": of_modules(stats["backward"])}
    return stats


def set_outgoing(params: PyTree, unit: Unit, mask: Array, value: float) -> PyTree:
    """Everything that reads the masked units gets weight `value`; biases stay."""
    params = dict(params)
    for name in unit.outgoing:
        layer = params[name]
        chosen = mask_outgoing(layer["kernel"], unit, mask)
        params[name] = {**layer, "kernel": jnp.where(chosen, value, layer["kernel"])}
    return params


def reset_head(net: NetState, head: str) -> NetState:
    """Weights and biases of the output layer set to 0: a benchmark's own reset."""
    zeros = jax.tree.map(jnp.zeros_like, net.params[head])
    return net._replace(params={**net.params, head: zeros})


def param_mask(
    params: PyTree, units: Sequence[Unit], masks: Mapping[str, Array]
) -> PyTree:
    """Unit masks as a tree of bools shaped like `params`: all that touches a unit."""
    full = jax.tree.map(lambda p: jnp.zeros(p.shape, bool), params)
    for unit in units:
        mask = masks[unit.name]
        for name in unit.incoming:
            kernel = full[name]["kernel"] | mask_incoming(full[name]["kernel"], mask)
            layer = {
                key: leaf | mask for key, leaf in full[name].items() if key != "kernel"
            }
            full = {**full, name: {**layer, "kernel": kernel}}
        for name in unit.outgoing:
            kernel = full[name]["kernel"]
            kernel = kernel | mask_outgoing(kernel, unit, mask)
            full = {**full, name: {**full[name], "kernel": kernel}}
    return full


def counted(net: NetState, units: Sequence[Unit]) -> PyTree:
    """Which parameters count: a tree of bools like `net.params`.

    Not those of units that are not alive, nor edges that are not allowed.
    """
    layers = [unit for unit in units if unit.name in net.alive]
    if layers:
        dead = {unit.name: ~net.alive[unit.name] for unit in layers}
        masks = jax.tree.map(jnp.logical_not, param_mask(net.params, layers, dead))
    else:
        masks = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), net.params)
    for name, edges in (net.edges or {}).items():
        kernel = masks[name]["kernel"] & edges
        masks = {**masks, name: {**masks[name], "kernel": kernel}}
    return masks


def layer_inputs(
    units: Sequence[Unit], kernels: Mapping[str, Array], acts: Mapping[str, Array]
) -> dict[str, Array]:
    """Module -> what its dense kernel [in, out] reads, [B, in], from `apply`'s acts."""
    read = {module: unit.name for unit in units for module in unit.outgoing}
    return {
        name: acts[read.get(name, "x")].reshape(-1, kernel.shape[0])
        for name, kernel in kernels.items()
    }


def constrain_net(net: NetState, units: Sequence[Unit]) -> NetState:
    """Zero the weights of units that are not alive and of edges that are not allowed."""
    params = net.params
    for unit in units:
        if unit.name in net.alive:
            dead = ~net.alive[unit.name]
            zeros = {name: jnp.zeros(()) for name in unit.incoming}
            params = set_incoming(params, unit, dead, zeros, 0.0)
            params = set_outgoing(params, unit, dead, 0.0)
    for name, allowed in (net.edges or {}).items():
        kernel = jnp.where(allowed, params[name]["kernel"], 0.0)
        params = {**params, name: {**params[name], "kernel": kernel}}
    return net._replace(params=params)


def constrain(learner: Learner, units: Sequence[Unit]) -> Learner:
    """`constrain_net` on every NetState that a learner holds (copies included)."""

    def is_net(x):
        return isinstance(x, NetState)

    return jax.tree.map(
        lambda x: constrain_net(x, units) if is_net(x) else x, learner, is_leaf=is_net
    )


def transfer_mean(
    params: PyTree,
    units: Sequence[Unit],
    masks: Mapping[str, Array],
    means: Mapping[str, Array],
) -> PyTree:
    """Give the readers of the masked units their mean output: bias += mean @ W_out."""
    params = dict(params)
    for unit in units:
        lost = jnp.where(masks[unit.name], means[unit.name], 0.0)
        for name in unit.outgoing:
            layer = params[name]
            shift = jnp.einsum("...ruo,u->o", _rows(layer["kernel"], unit), lost)
            params[name] = {**layer, "bias": layer["bias"] + shift}
    return params
