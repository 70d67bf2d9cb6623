"""L2-Init: regularisation towards the initial parameters."""

import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import optimizers
from cl_bench.methods import _penalties
from cl_bench.methods._compose import compose
from cl_bench.types import Learner, Method, Network, PyTree, StreamSpec

REFERENCE = (
    "Kumar, Marklund and Van Roy, CoLLAs 2024 (arXiv 2308.11958), eq. 1, and released "
    "code"
)
NEEDS: frozenset[str] = frozenset()
NEUTRAL = {"strength": 0.0}
CONVENTIONS = ("paper", "code")
NORMS = ("l2", "l1")
REGULARISED = ("kernel", "bias")


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """The strength that is best almost everywhere in the paper.

    `convention`: what `strength` multiplies, ||d||^2 ('paper') or half of it ('code').
    `affine`: whether the parameters of normalisations and activations count too.
    """

    strength: float = 1e-2
    convention: str = struct.field(pytree_node=False, default="paper")
    norm: str = struct.field(pytree_node=False, default="l2")
    affine: bool = struct.field(pytree_node=False, default=False)


def check(hyper: Hyper) -> None:
    """Raise ValueError for a convention or a norm that does not exist or does not fit."""
    if hyper.convention not in CONVENTIONS:
        raise ValueError(
            f"convention={hyper.convention!r} is none of {', '.join(CONVENTIONS)}"
        )
    if hyper.norm not in NORMS:
        raise ValueError(f"norm={hyper.norm!r} is none of {', '.join(NORMS)}")
    if hyper.norm == "l1" and hyper.convention == "code":
        raise ValueError(
            "convention='code' halves the square of norm='l2'; with norm='l1' take "
            "convention='paper'"
        )


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Loss + strength R(theta - theta_0) over all weights and biases.

    R(d) = ||d||_2^2 or ||d||_1. In the code's convention, SGD with step size a is
    theta <- (1 - a strength) theta + a strength theta_0 - a g; the paper's has twice
    that strength. With Adam the penalty passes through the moments, as in the code.
    """
    check(hyper)
    factor = 0.5 if hyper.convention == "code" else 1.0

    def penalty(params: PyTree, learner: Learner) -> Array:
        reference = learner.extra["reference"]
        total = jnp.zeros(())
        for name, layer in params.items():
            for leaf in layer if hyper.affine else _regularised(layer):
                moved = layer[leaf] - reference[name][leaf]
                size = jnp.square(moved) if hyper.norm == "l2" else jnp.abs(moved)
                total += jnp.sum(size)
        return hyper.strength * factor * total

    return compose(
        net,
        spec,
        optimizers.make(hyper),
        extra=lambda state: {"reference": _penalties.constrained(net, state)},
        penalty=penalty,
    )


def _regularised(layer: dict[str, Array]) -> list[str]:
    return [leaf for leaf in REGULARISED if leaf in layer]
