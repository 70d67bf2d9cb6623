"""Comparisons of trees that say which leaf differs and how."""

from typing import Any

import jax
import numpy as np
from jax.extend import core

from cl_bench.types import NetState, PyTree


class ConformanceError(AssertionError):
    """A component breaks its contract; the message says which part, and how."""


def require(ok: Any, message: str) -> None:
    """Raise ConformanceError with the message unless `ok`."""
    if not ok:
        raise ConformanceError(message)


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """Path -> leaf, as in `.net.params['h1']['kernel']`."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path) or "itself": leaf for path, leaf in flat}


def require_same_structure(expected: PyTree, found: PyTree, what: str) -> None:
    """The same leaves, shapes and dtypes; `what` opens the message."""
    old, new = named_leaves(expected), named_leaves(found)
    for path in old.keys() ^ new.keys():
        change = "lost" if path in old else "gained"
        raise ConformanceError(f"{what}: the tree {change} the leaf {path}.")
    for path in old:
        before, after = _described(old[path]), _described(new[path])
        require(before == after, f"{what}: {path} was {before} and became {after}.")
    require(
        jax.tree.structure(expected) == jax.tree.structure(found),
        f"{what}: the containers changed, {jax.tree.structure(expected)} became "
        f"{jax.tree.structure(found)}.",
    )


def _described(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def require_equal(expected: PyTree, found: PyTree, what: str, atol: float = 0) -> None:
    """Equal numbers (NaN equals NaN), bit for bit or to within `atol`."""
    require_same_structure(expected, found, what)
    old, new = named_leaves(host(expected)), named_leaves(host(found))
    for path in old:
        a, b = old[path], new[path]
        if a.dtype.kind not in "fc" or not atol:
            same = np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
        else:
            same = np.allclose(a, b, rtol=0, atol=atol, equal_nan=True)
        if not same:
            gap = np.max(np.abs(a.astype(float) - b.astype(float)), initial=0)
            raise ConformanceError(f"{what}: {path} differs by up to {gap:.3g}.")


def differ(a: PyTree, b: PyTree) -> bool:
    """Whether any number differs."""
    pairs = zip(jax.tree.leaves(host(a)), jax.tree.leaves(host(b)), strict=True)
    return any(
        not np.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in pairs
    )


def host(tree: PyTree) -> PyTree:
    """Every leaf as a numpy array, random keys as their data."""

    def one(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return np.asarray(leaf)

    return jax.tree.map(one, tree)


def net_states(tree: PyTree) -> dict[str, NetState]:
    """Path -> every NetState of a learner, its copies included."""

    def is_net(node):
        return isinstance(node, NetState)

    flat = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_net)[0]
    found = ((jax.tree_util.keystr(path), leaf) for path, leaf in flat)
    return {path: leaf for path, leaf in found if is_net(leaf)}


def primitives(jaxpr: core.Jaxpr) -> set[str]:
    """Names of all primitives of a program, those of its inner programs included."""
    found = set()
    for eqn in jaxpr.eqns:
        found.add(eqn.primitive.name)
        for inner in jax.tree.leaves(eqn.params, is_leaf=_is_jaxpr):
            if _is_jaxpr(inner):
                found |= primitives(getattr(inner, "jaxpr", inner))
    return found


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)


def require_no_callback(jaxpr: core.Jaxpr, what: str) -> None:
    """No primitive that talks to the host from inside the program."""
    talking = sorted(
        name
        for name in primitives(jaxpr)
        if "callback" in name or name in ("infeed", "outfeed", "debug_print")
    )
    require(
        not talking,
        f"{what} calls the host from inside a run ({', '.join(talking)}): remove "
        "jax.debug.print, pure_callback and io_callback; report numbers by a metric.",
    )
