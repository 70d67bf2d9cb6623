"""L2 regularisation: weight decay coupled to the gradient, biases included."""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import optimizers
from cl_bench.methods import _penalties
from cl_bench.methods._compose import compose
from cl_bench.types import Method, Network, PyTree, StreamSpec

REFERENCE = (
    "Dohare et al., Nature 632 (2024) 768-774; released code (torch weight_decay)"
)
NEEDS: frozenset[str] = frozenset()
NEUTRAL = {"strength": 0.0}


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """The default strength is the paper's on online permuted MNIST."""

    strength: float = 1e-4


def half_square(params: PyTree) -> Array:
    """1/2 ||theta||^2 over all parameters, whose gradient is theta."""
    squares = [jnp.sum(jnp.square(p)) for p in jax.tree.leaves(params)]
    return 0.5 * sum(squares, jnp.zeros(()))


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """g <- g + strength * theta for every parameter, before the optimiser.

    For SGD: theta <- (1 - step_size * strength) theta - step_size * g. With Adam the
    decay passes through the moments; for decoupled decay take backprop with 'adamw'.
    """

    def penalty(params, learner):
        in_use = _penalties.in_use(net, learner, params)
        return hyper.strength * half_square(in_use)

    return compose(net, spec, optimizers.make(hyper), penalty=penalty)
