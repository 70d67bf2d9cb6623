"""Low-rank adapters of kernels: which, how they start, what they do, their gradients.

W + s B A: for a kernel [..., in, out] taken as the matrix W^T [fan in, out] an adapter
is {'a': A [rank, fan in], 'b': B [out, rank]} (Hu et al. 2022); a convolution's kernel
[h, w, in, out] is the matrix [h w in, out].
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench import shapes
from cl_bench.methods import _penalties
from cl_bench.registry import nearest
from cl_bench.types import Key, NetState, Network, PyTree

Adapters = dict[str, dict[str, Array]]
Kernels = dict[str, Array]
SCALINGS = ("absolute", "by_rank")
GROUPS = ("hidden", "all")


def adapted(net: Network, layers: str | tuple[str, ...], rank: int) -> tuple[str, ...]:
    """The modules with an adapter: 'hidden' is all but the head, or the names given.

    Raises ValueError for a module that the network has not, for no module at all, and
    for a rank that a kernel's matrix cannot have.
    """
    known = shapes.params(net)
    if isinstance(layers, str) and layers not in GROUPS:
        raise ValueError(f"layers={layers!r} is none of hidden, all; or give names")
    names = tuple(known) if layers == "all" else _penalties.hidden(net, known)
    names = names if isinstance(layers, str) else layers
    for name in names:
        if name not in known:
            hint = nearest(name, tuple(known))
            raise ValueError(f"layers: the network has no module {name!r}.{hint}")
    if not names:
        raise ValueError(
            f"layers={layers!r}: there is no module to adapt; a network without hidden "
            "layers has a head only, layers='all' with train_head=False"
        )
    _check_rank(known, names, rank)
    return names


def _check_rank(known: dict[str, Any], names: tuple[str, ...], rank: int) -> None:
    if rank < 1:
        raise ValueError(f"rank={rank}: at least 1")
    limits = {n: min(_sides(known[n]["kernel"])) for n in names}
    smallest = min(names, key=lambda n: limits[n])
    if rank > limits[smallest]:
        rows, columns = _sides(known[smallest]["kernel"])
        raise ValueError(
            f"rank={rank}: the kernel of {smallest!r} is a {rows} x {columns} matrix; "
            f"rank={limits[smallest]} is the largest that fits all adapted layers "
            f"({', '.join(names)}), or leave {smallest!r} out of `layers`"
        )


def _sides(kernel: Any) -> tuple[int, int]:
    return _penalties.fan_in(kernel), kernel.shape[-1]


def scaling(kind: str, alpha: Array | float, rank: int) -> Array | float:
    """'absolute': alpha; 'by_rank': alpha / rank. Raises ValueError for others."""
    if kind not in SCALINGS:
        raise ValueError(f"scaling={kind!r} is none of {', '.join(SCALINGS)}")
    return alpha if kind == "absolute" else alpha / rank


def kernels(params: PyTree, names: tuple[str, ...]) -> Kernels:
    """The kernels of these modules."""
    return {name: params[name]["kernel"] for name in names}


def draw(key: Key, core: Mapping[str, Any], rank: int, std: Array | float) -> Adapters:
    """A ~ N(0, std^2), B = 0, for each kernel."""
    made = {}
    for i, (name, kernel) in enumerate(core.items()):
        rows, columns = _sides(kernel)
        a = std * jax.random.normal(jax.random.fold_in(key, i), (rank, rows))
        made[name] = {"a": a, "b": jnp.zeros((columns, rank))}
    return made


def blank(core: Mapping[str, Any], rank: int) -> Adapters:
    """A = B = 0."""
    sides = {name: _sides(kernel) for name, kernel in core.items()}
    return {
        name: {"a": jnp.zeros((rank, rows)), "b": jnp.zeros((columns, rank))}
        for name, (rows, columns) in sides.items()
    }


def effective(
    net: Network,
    state: NetState,
    core: Kernels,
    adapters: Adapters,
    factor: Array | float,
) -> NetState:
    """The network that acts: kernels core + factor (B A)^T, without what is masked."""
    params = dict(state.params)
    for name, kernel in core.items():
        change = adapters[name]["a"].T @ adapters[name]["b"].T  # (B A)^T, [fan in, out]
        new = kernel + factor * change.reshape(kernel.shape)
        params[name] = {**params[name], "kernel": new}
    state = state._replace(params=params)
    return state._replace(params=_penalties.constrained(net, state))


def gradients(grads: PyTree, adapters: Adapters, factor: Array | float) -> Adapters:
    """dL/dA = factor B^T G and dL/dB = factor G A^T, G [out, fan in] that of W."""
    found = {}
    for name, adapter in adapters.items():
        g = _penalties.matrix(grads[name]["kernel"]).T
        found[name] = {
            "a": factor * (adapter["b"].T @ g),
            "b": factor * (g @ adapter["a"].T),
        }
    return found


def check_head(net: Network, names: tuple[str, ...], train_head: bool) -> None:
    """Raise ValueError for a head that would be trained in full and adapted at once."""
    if train_head and net.head in names:
        raise ValueError(
            f"train_head=True trains {net.head!r} in full and `layers` adapts it too: "
            "take layers='hidden', or train_head=False"
        )
