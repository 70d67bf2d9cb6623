"""A network's shapes without making one, and the check that its layers are dense."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from cl_bench.types import NetState, Network, StreamSpec


def state(net: Network) -> NetState:
    """The network state, every leaf a `jax.ShapeDtypeStruct`."""
    return jax.eval_shape(net.init, jax.random.key(0, impl="threefry2x32"))


def params(net: Network) -> dict[str, Any]:
    """Module -> 'kernel', 'bias', ... -> shape."""
    return state(net).params


def kernels(net: Network) -> dict[str, jax.ShapeDtypeStruct]:
    """Module -> shape of its kernel."""
    return {name: layer["kernel"] for name, layer in params(net).items()}


def activations(net: Network, spec: StreamSpec) -> dict[str, jax.ShapeDtypeStruct]:
    """Name -> shape of what `apply` returns as activations, for one example."""
    x = jax.ShapeDtypeStruct((1, *spec.input_shape), jnp.float32)
    apply = partial(net.apply, train=False, key=None)
    return jax.eval_shape(apply, state(net), x)[1]


def two_featured_layer(net: Network, spec: StreamSpec) -> str | None:
    """A layer of `net.units` whose activations are [B, ..., 2, U], two a unit.

    So they are with the activations 'crelu' and 'fourier'. None where there is none.
    """
    acts, names = activations(net, spec), [unit.name for unit in net.units]
    # One a unit is [B, U] or [B, H, W, U].
    return next((name for name in names if acts[name].ndim % 2 == 1), None)


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
