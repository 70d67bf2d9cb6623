"""Resetting whole units, for the methods that reset many at once and seldom."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench import units
from cl_bench.types import Key, NetState, Network, PyTree, Unit

T = TypeVar("T")


def reset_units(
    key: Key,
    net: Network,
    state: NetState,
    masks: Mapping[str, Array],
    params: PyTree | None = None,
) -> NetState:
    """The masked units start anew: nothing reads them yet, and they read afresh.

    `masks`: unit name -> [U] bool. Incoming weights are drawn from the network's own
    initialiser and biases are 0, or both are those of `params` (a copy of the initial
    network, say); normalisation and its statistics neutral, outgoing weights 0. The
    readers' biases stay. Nothing is drawn where no unit is masked (vmapped: in no lane).
    """

    def reset(turn: Array, state: NetState) -> NetState:
        drawn = jax.random.fold_in(key, turn)
        source = net.init(drawn).params if params is None else params
        new, stats = state.params, state.stats
        # Rows before columns, as continual backprop: where units of two neighbouring
        # layers go together, the weight that joins them is a fresh one.
        for unit in net.units:
            new = units.set_outgoing(new, unit, masks[unit.name], 0.0)
        for unit in net.units:
            mask = masks[unit.name]
            kernels = {name: source[name]["kernel"] for name in unit.incoming}
            bias = 0.0 if params is None else _biases(params, unit)
            new = units.set_incoming(new, unit, mask, kernels, bias)
            stats = units.reset_statistics(stats, unit, mask)
        return state._replace(params=new, stats=stats)

    return apply_if(jnp.any(units.join(net.units, masks)), reset, state)


def _biases(params: PyTree, unit: Unit) -> dict[str, Array]:
    layers = {name: params[name] for name in unit.incoming}
    return {name: layer["bias"] for name, layer in layers.items() if "bias" in layer}


def apply_if(due: Array, change: Callable[[Array, T], T], value: T) -> T:
    """`change(0, value)` where `due` (), else `value`: for rare changes of large values.

    A loop of one turn or none: XLA works in place on what a loop carries, and would
    copy it at every step for a conditional. Vmapped, it turns where any lane is due.
    XLA computes whatever does not depend on the loop beforehand, at every step:
    something dear must depend on the turn (0) or on the value.
    """
    return jax.lax.fori_loop(0, jnp.asarray(due).astype(jnp.int32), change, value)


def moment_mask(net: Network, params: PyTree, masks: Mapping[str, Array]) -> PyTree:
    """What of the optimiser's moments belongs to the masked units: see `Optim.reset`."""
    return units.param_mask(params, net.units, masks)
