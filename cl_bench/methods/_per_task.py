"""A network of its own for each task: a table [T, ...] of parameters and statistics."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.types import Key, NetState, Network, PyTree


def kept(state: NetState) -> dict[str, Any]:
    """What a network of the table has to itself; dead units and edges are shared."""
    return {"params": state.params, "stats": state.stats}


def networks(net: Network, key: Key, tasks: int, first: NetState) -> PyTree:
    """The table of all tasks' initial networks: `first`, and others from `key`."""
    keys = jax.vmap(lambda task: jax.random.fold_in(key, task))(jnp.arange(1, tasks))
    others = kept(jax.vmap(net.init)(keys))
    return jax.tree.map(
        lambda own, rest: jnp.concatenate([own[None], rest]), kept(first), others
    )


def take(table: PyTree, task: Array | int) -> PyTree:
    """Row `task` of a table."""
    return jax.tree.map(lambda leaf: leaf[task], table)


def put(table: PyTree, task: Array, row: PyTree) -> PyTree:
    """The table with another row `task`."""
    return jax.tree.map(lambda leaf, new: leaf.at[task].set(new), table, row)


def either(condition: Array, here: PyTree, there: PyTree) -> PyTree:
    """`here` where the condition () holds, else `there`."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), here, there)


def begun(table: PyTree, task: Array, state: NetState) -> NetState:
    """The network a task starts with.

    That of the first stays as it is: the benchmark may have reset its head.
    """
    row = either(task > 0, take(table, task), kept(state))
    return state._replace(**row)


def answering(table: PyTree, now: Array, task: Array, state: NetState) -> NetState:
    """The network of a task: `state` for the one that trains `now`."""
    row = either(now == task, kept(state), take(table, task))
    return state._replace(**row)
