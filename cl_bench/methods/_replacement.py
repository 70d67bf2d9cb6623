"""Which units continual backprop replaces at a step, and their replacement."""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench import units
from cl_bench.types import Key, NetState, Network


class Rules(Protocol):
    """The settings that decide how many units go (`continual_backprop.Hyper`)."""

    @property
    def replacement_rate(self) -> float: ...
    @property
    def variant(self) -> str: ...
    @property
    def accumulate(self) -> bool: ...
    @property
    def count(self) -> str: ...
    @property
    def max_replaced(self) -> int: ...


class Layer(NamedTuple):
    """What one layer replaces at this step: rank r is unit index[r], if due[r]."""

    index: Array  # [R] int32
    due: Array  # [R] bool
    owed: Array  # ()


def alive(net: Network, state: NetState) -> dict[str, Array]:
    """Which units are in use, for every layer: unit name -> [U] bool."""
    every = {u.name: jnp.ones(u.size, bool) for u in net.units}
    return {**every, **state.alive}


def choose(
    key: Key, net: Network, hyper: Rules, mature: Array, rank_by: Array, owed: Array
) -> list[Layer]:
    """The lowest-utility mature units of each layer, as many as are due."""
    scores = units.split(net.units, jnp.where(mature, rank_by, jnp.inf))
    eligible = units.count(net.units, mature)
    chance = None
    if not hyper.accumulate:
        chance = jax.random.uniform(jax.random.fold_in(key, 1), (len(net.units),))
    layers = []
    for i, unit in enumerate(net.units):
        number = eligible[i]
        counted = number if hyper.count == "eligible" else float(unit.size)
        # Nothing accrues while nobody is eligible: no burst at the first maturity.
        due = jnp.where(number > 0, hyper.replacement_rate * counted, 0.0)
        if chance is None:
            total = owed[i] + due
        else:
            total = jnp.where(due < 1.0, (chance[i] < due).astype(jnp.float32), due)
        index, rank = _lowest(scores[unit.name], min(hyper.max_replaced, unit.size))
        # Nature, Algorithm 1 replaces one unit where c > 1; the released code as many
        # as c holds, where c >= 1.
        strict = hyper.variant == "nature" and hyper.accumulate
        ready = (total > 1.0) & (rank == 0.0) if strict else total >= 1.0 + rank
        take = ready & (rank < number)
        left = total - jnp.sum(take) if chance is None else owed[i]
        layers.append(Layer(index, take, jnp.asarray(left)))
    return layers


def _lowest(scores: Array, count: int) -> tuple[Array, Array]:
    """Indices of the `count` lowest scores and their ranks 0, 1, ...: [count] each."""
    rank = jnp.arange(count, dtype=jnp.float32)
    if count == 1:  # arg-min is far cheaper than a sort
        return jnp.argmin(scores)[None], rank
    return jax.lax.top_k(-scores, count)[1], rank


def masks_of(net: Network, layers: list[Layer]) -> dict[str, Array]:
    """The replaced units of every layer: unit name -> [U] bool."""
    masks = {}
    for unit, layer in zip(net.units, layers, strict=True):
        hits = jnp.arange(unit.size)[None] == layer.index[:, None]
        masks[unit.name] = jnp.any(hits & layer.due[:, None], axis=0)
    return masks


def reinitialise(
    key: Key, net: Network, params: Any, layers: list[Layer]
) -> dict[str, Any]:
    """Fresh columns for the due units, all that reads them 0: params.

    The kernels are drawn, read and written only in a step that replaces a unit (where
    lanes are vmapped, in every step).
    """
    names = [(u, name) for u in net.units for name in u.incoming]
    pairs = list(zip(net.units, layers, strict=True))
    count = {unit.name: layer.due.shape[0] for unit, layer in pairs}
    each = [
        (unit, (jnp.arange(unit.size) == layer.index[r]) & layer.due[r], r)
        for unit, layer in pairs
        for r in range(layer.due.shape[0])
    ]

    def write(params: Any) -> Any:
        keys = jax.random.split(jax.random.fold_in(key, 2), len(names))
        fresh = {
            name: net.columns(k, name, count[u.name])
            for k, (u, name) in zip(keys, names, strict=True)
        }
        for unit, mask, _ in each:
            params = units.set_outgoing(params, unit, mask, 0.0)
        # After all rows, whatever the order of the table: a weight that joins two units
        # which go together is a fresh one, as in the released code.
        for unit, mask, r in each:
            kernels = {name: fresh[name][..., r : r + 1] for name in unit.incoming}
            params = units.set_incoming(params, unit, mask, kernels, 0.0)
        return params

    anything = jnp.any(jnp.concatenate([layer.due for layer in layers]))
    return jax.lax.cond(anything, write, lambda params: params, params)
