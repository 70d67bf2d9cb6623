"""Lateral connections between the columns of progressive networks (dense layers).

Shapes: T columns (tasks), P = T - 1 places for the columns before one, B batch. What a
module of column k reads of earlier columns is `inputs[module]` [P, B, in], zero at the
places j >= k; what the connections add to its pre-activation is a tap of the network.
A column's connections are one `Row`; those of all columns are packed: the pair (k, j),
j < k, is number k (k - 1) / 2 + j, so that nothing is stored for j >= k.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench import shapes, units
from cl_bench.methods import _per_task
from cl_bench.types import Key, NetState, Network, PyTree

KINDS = ("linear", "adapter")
Inputs = dict[str, Array]


class Row(NamedTuple):
    """The connections into one column; a table has other leading axes.

    'linear': pairs kernel [P, in, out]. 'adapter': pairs alpha [P] and project
    [P, in, in]; column bias [in] and kernel [in, out].
    """

    pairs: dict[str, dict[str, Array]]  # table: [T (T - 1) / 2, ...]
    column: dict[str, dict[str, Array]]  # table: [T, ...]


def places(tasks: int) -> int:
    """P; 1 for a single task, whose place stays empty."""
    return max(tasks - 1, 1)


def readers(net: Network) -> dict[str, str]:
    """Module that reads a hidden layer -> the tap of what it writes."""
    taps = [*(unit.name for unit in net.units[1:]), "logits"]
    return {u.outgoing[0]: tap for u, tap in zip(net.units, taps, strict=True)}


def check(net: Network) -> None:
    """Raise ValueError for a network that is not a chain of dense layers."""
    writers = [*(unit.incoming for unit in net.units[1:]), (net.head,)]
    chain = all(u.outgoing == w for u, w in zip(net.units, writers, strict=True))
    for name, layer in shapes.params(net).items():
        axes = layer["kernel"].ndim
        if axes != 2 or not chain:
            kind = f"{name!r} has a kernel of {axes} axes" if axes != 2 else (
                "this one's layers are not one after another"
            )  # fmt: skip
            raise ValueError(
                f"progressive connects dense layers, and {kind}: take the network mlp, "
                "or the method independent"
            )


def _blank_row(net: Network, kind: str, lead: tuple[int, ...], own: tuple) -> Row:
    """Zeros: pairs [*lead, ...], columns [*own, ...]."""
    known, pairs, column = shapes.params(net), {}, {}
    for name in readers(net):
        rows, outputs = known[name]["kernel"].shape
        full = jnp.zeros((*own, rows, outputs))
        if kind == "linear":
            pairs[name] = {"kernel": jnp.zeros((*lead, rows, outputs))}
            column[name] = {}
        else:
            project = jnp.zeros((*lead, rows, rows))
            pairs[name] = {"alpha": jnp.zeros(lead), "project": project}
            column[name] = {"bias": jnp.zeros((*own, rows)), "kernel": full}
    return Row(pairs, column)


def blank(net: Network, kind: str, tasks: int) -> Row:
    """No connections into one column."""
    return _blank_row(net, kind, (places(tasks),), ())


def blank_table(net: Network, kind: str, tasks: int) -> Row:
    """No connections into any column."""
    pairs = max(tasks * (tasks - 1) // 2, 1)
    return _blank_row(net, kind, (pairs,), (tasks,))


def stored(net: Network, kind: str) -> Callable[[int], int]:
    """Number of tasks -> how many numbers all columns and all connections are."""
    column = shapes.state(net)
    row = jax.eval_shape(lambda: blank(net, kind, 2))  # one pair
    own, pair = (
        sum(leaf.size for leaf in jax.tree.leaves(tree))
        for tree in ((_per_task.kept(column), row.column), row.pairs)
    )
    return lambda tasks: tasks * own + max(tasks * (tasks - 1) // 2, 1) * pair


def draw(
    key: Key, net: Network, empty: Row, k: Array, scale: Array | float,
    alpha_std: Array | float,
) -> Row:  # fmt: skip
    """Connections into column k from the network's own initialiser.

    What is summed over the k earlier columns is divided by sqrt(k), so that a column
    starts alike however many there are; then U is times `scale`, and alpha is
    N(0, alpha_std^2). Biases are 0.
    """
    over = jnp.sqrt(jnp.maximum(k, 1).astype(jnp.float32))
    row = Row({}, {})
    for i, name in enumerate(empty.pairs):
        pairs, column = dict(empty.pairs[name]), dict(empty.column[name])
        summed, last, alphas = jax.random.split(jax.random.fold_in(key, i), 3)
        if column:
            pairs["project"] = _kernels(summed, net, name, pairs["project"]) / over
            pairs["alpha"] = alpha_std * jax.random.normal(alphas, pairs["alpha"].shape)
            kernel = net.columns(last, name, column["kernel"].shape[-1])
            column["kernel"] = jnp.where(k > 0, scale * kernel, 0.0)
        else:
            kernels = _kernels(summed, net, name, pairs["kernel"])
            pairs["kernel"] = scale * kernels / over
        row.pairs[name], row.column[name] = _before(k, pairs), column
    return row


def _kernels(key: Key, net: Network, name: str, like: Array) -> Array:
    """A kernel for each place, each as the network would draw one of that module."""
    keys = jax.random.split(key, len(like))
    return jax.vmap(lambda key: net.columns(key, name, like.shape[-1]))(keys)


def _before(k: Array, pairs: PyTree, other: PyTree = None) -> PyTree:
    """The places j < k of `pairs`, and of `other` (None: zeros) the rest."""
    other = jax.tree.map(jnp.zeros_like, pairs) if other is None else other

    def choose(new, old):
        here = jnp.arange(len(new)) < k
        return jnp.where(here.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

    return jax.tree.map(choose, pairs, other)


def take(table: Row, k: Array, count: int) -> Row:
    """The connections into column k, of `count` = P places."""
    pairs = jax.tree.map(
        lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, k * (k - 1) // 2, count),
        table.pairs,
    )
    return Row(_before(k, pairs), _per_task.take(table.column, k))


def put(table: Row, k: Array, row: Row) -> Row:
    """The table with these connections into column k."""

    def write(leaf, new):
        first, count = k * (k - 1) // 2, len(new)
        old = jax.lax.dynamic_slice_in_dim(leaf, first, count)
        new = _before(k, new, old)
        return jax.lax.dynamic_update_slice_in_dim(leaf, new, first, 0)

    pairs = jax.tree.map(write, table.pairs, row.pairs)
    return Row(pairs, _per_task.put(table.column, k, row.column))


def _frozen_row(table: Row, k: int) -> Row:
    """The connections into column k > 0, of k places: k is known at compile time."""
    first = k * (k - 1) // 2
    pairs = jax.tree.map(lambda leaf: leaf[first : first + k], table.pairs)
    return Row(pairs, _per_task.take(table.column, k))


def taps(net: Network, row: Row, inputs: Inputs) -> dict[str, Array]:
    """What the connections add to each pre-activation, [B, out].

    'linear': sum_j h_j U_j. 'adapter': relu(sum_j alpha_j h_j V_j + b) U.
    """
    added = {}
    for name, tap in readers(net).items():
        pairs, column, h = row.pairs[name], row.column[name], inputs[name]
        if column:
            h = pairs["alpha"][:, None, None] * h
            projected = jnp.einsum("jbi,jio->bo", h, pairs["project"])
            added[tap] = jax.nn.relu(projected + column["bias"]) @ column["kernel"]
        else:
            added[tap] = jnp.einsum("jbi,jio->bo", h, pairs["kernel"])
    return added


def earlier(
    net: Network, columns: PyTree, table: Row, task: Array, state: NetState, x: Array
) -> Inputs:
    """What the columns before `task` give to later ones, in evaluation mode.

    Columns are run one after another, each with its own connections; those from `task`
    on are skipped and leave zeros.
    """
    known, tasks = shapes.params(net), len(jax.tree.leaves(columns)[0])
    kernels: dict[str, Any] = {name: known[name]["kernel"] for name in readers(net)}
    inputs = {
        name: jnp.zeros((places(tasks), len(x), kernel.shape[0]))
        for name, kernel in kernels.items()
    }

    def run(k: int, inputs: Inputs) -> Inputs:
        before = {name: h[:k] for name, h in inputs.items()}
        added = taps(net, _frozen_row(table, k), before) if k else None
        column = state._replace(**_per_task.take(columns, k))
        acts = net.apply(column, x, train=False, key=None, taps=added)[1]
        read = units.layer_inputs(net.units, kernels, acts)
        return {name: h.at[k].set(read[name]) for name, h in inputs.items()}

    # Not a loop of the compiled program: each column has fewer products to do than the
    # next.
    for k in range(tasks - 1):
        inputs = jax.lax.cond(
            k < task, lambda now, k=k: run(k, now), lambda now: now, inputs
        )
    return inputs
