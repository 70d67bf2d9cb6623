"""FIRE: at a boundary every kernel goes to the nearest isometry."""

import math

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import optimizers
from cl_bench.methods import _unit_resets
from cl_bench.methods._compose import compose
from cl_bench.types import Method, Network, StreamSpec

REFERENCE = (
    "Han et al., ICLR 2026 (arXiv 2602.08040); written from a secondary description, "
    "the released code could not be read"
)
NEEDS = frozenset({"boundaries"})
NEUTRAL = {"mix": 0.0}


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """`mix` 1 is the method: W <- (1 - mix) W + mix isometry(W)."""

    mix: float = 1.0
    iterations: int = struct.field(pytree_node=False, default=10)


def check(hyper: Hyper) -> None:
    """Raise ValueError for a number of iterations that cannot be."""
    if hyper.iterations < 1:
        raise ValueError(f"iterations={hyper.iterations}: at least 1")


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """At every boundary but the first, for every hidden kernel: see `isometry`.

    Convolutions are taken position by position. Biases, the output layer and the
    optimiser's moments stay.
    # Departs from the paper: our description of it names no exception for the output
    # layer, which other methods of its kind reset apart; here it stays.
    """
    _unit_resets.require_hidden_layer(net, "fire")
    check(hyper)
    modules = {name for unit in net.units for name in unit.incoming}

    def start_task(key, clock, train, learner):
        del key, train
        mix = jnp.where(clock.step > 0, hyper.mix, 0.0)
        params = dict(learner.net.params)
        for name in sorted(modules):
            kernel = params[name]["kernel"]
            moved = kernel + mix * (isometry(kernel, hyper.iterations) - kernel)
            params[name] = {**params[name], "kernel": moved}
        return learner._replace(net=learner.net._replace(params=params))

    return compose(net, spec, optimizers.make(hyper), start_task=start_task)


def isometry(kernel: Array, iterations: int) -> Array:
    """NS(W / ||W||_F) sqrt(d_out / d_in) / (kh kw), kernel [..., d_in, d_out].

    NS is the Newton-Schulz iteration X <- 1.5 X - 0.5 X X^T X towards the nearest
    (semi-)orthogonal matrix. A kernel of zeros stays.
    """
    rows, columns = kernel.shape[-2:]
    x = kernel if rows >= columns else jnp.swapaxes(kernel, -1, -2)
    norm = jnp.sqrt(jnp.sum(jnp.square(x), axis=(-2, -1), keepdims=True))
    x = x / jnp.where(norm > 0.0, norm, 1.0)

    def body(_: int, x: Array) -> Array:
        gram = jnp.swapaxes(x, -1, -2) @ x  # the smaller of the two Gram matrices
        return 1.5 * x - 0.5 * x @ gram

    x = jax.lax.fori_loop(0, iterations, body, x)
    x = x if rows >= columns else jnp.swapaxes(x, -1, -2)
    return x * math.sqrt(columns / rows) / math.prod(kernel.shape[:-2])
