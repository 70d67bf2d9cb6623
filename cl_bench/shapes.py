"""A network's shapes without making one, and the check that its layers are dense."""

from collections.abc import Mapping
from typing import Any

import jax

from cl_bench.types import NetState, Network


def state(net: Network) -> NetState:
    """The network state, every leaf a `jax.ShapeDtypeStruct`."""
    return jax.eval_shape(net.init, jax.random.key(0, impl="threefry2x32"))


def params(net: Network) -> dict[str, Any]:
    """Module -> 'kernel', 'bias', ... -> shape."""
    return state(net).params


def kernels(net: Network) -> dict[str, jax.ShapeDtypeStruct]:
    """Module -> shape of its kernel."""
    return {name: layer["kernel"] for name, layer in params(net).items()}


def require_dense(kernels: Mapping[str, Any], who: str, instead: str = "") -> None:
    """Raise ValueError for a kernel, or its shape, that is not [in, out].

    `who` cannot use it; `instead` is what works beside another network.
    """
    for name, kernel in kernels.items():
        if len(kernel.shape) != 2:
            raise ValueError(
                f"{who} works on dense layers and {name!r} has a kernel of shape "
                f"{kernel.shape}: take the network mlp{instead}"
            )
