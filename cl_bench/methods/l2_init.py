"""L2-Init: regularisation towards the initial parameters."""

from functools import partial
from typing import Any

import jax.numpy as jnp
import optax
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
NORMS = ("l2", "l1", "huber")
REFERENCES = ("initial", "resampled")
REGULARISED = ("kernel", "bias")


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """The strength that is best almost everywhere in the paper, as its code counts it.

    `convention`: what `strength` multiplies with norm 'l2': half of ||d||^2 ('code', in
    which the published values were tuned) or all of it ('paper', its equation). The
    other norms have one form.
    `huber_delta`: where the norm 'huber' turns from a square into a line.
    `reference`: 'initial', or 'resampled', an initialisation drawn anew at every step,
    which at batch 1 costs more than the rest of the step.
    `affine`: whether the parameters of normalisations and activations count too.
    """

    strength: float = 1e-2
    convention: str = struct.field(pytree_node=False, default="code")
    norm: str = struct.field(pytree_node=False, default="l2")
    huber_delta: float = 1.0
    reference: str = struct.field(pytree_node=False, default="initial")
    affine: bool = struct.field(pytree_node=False, default=False)


def check(hyper: Hyper) -> None:
    """Raise ValueError for a convention, norm or reference that is none."""
    if hyper.convention not in CONVENTIONS:
        raise ValueError(
            f"convention={hyper.convention!r} is none of {', '.join(CONVENTIONS)}"
        )
    if hyper.norm not in NORMS:
        raise ValueError(f"norm={hyper.norm!r} is none of {', '.join(NORMS)}")
    if hyper.reference not in REFERENCES:
        raise ValueError(
            f"reference={hyper.reference!r} is none of {', '.join(REFERENCES)}"
        )


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Loss + strength R(theta - theta_0) over all weights and biases.

    R(d) = ||d||_2^2, ||d||_1, or the sum of Huber's function: d^2 / 2 up to
    |d| = huber_delta and huber_delta (|d| - huber_delta / 2) beyond. theta_0 are the
    first parameters, or new ones at every step. In the code's convention, SGD with step
    size a is theta <- (1 - a strength) theta + a strength theta_0 - a g; the paper's has
    twice that strength. With Adam the penalty passes through the moments, as in the code.
    """
    check(hyper)
    halved = hyper.norm == "l2" and hyper.convention == "code"
    factor = 0.5 if halved else 1.0

    size = {
        "l2": jnp.square,
        "l1": jnp.abs,
        "huber": partial(optax.losses.huber_loss, delta=hyper.huber_delta),
    }[hyper.norm]

    def distance(params: PyTree, reference: PyTree) -> Array:
        total = jnp.zeros(())
        for name, layer in params.items():
            for leaf in layer if hyper.affine else _regularised(layer):
                total += jnp.sum(size(layer[leaf] - reference[name][leaf]))
        return hyper.strength * factor * total

    def penalty(params: PyTree, learner: Learner) -> Array:
        return distance(params, learner.extra["reference"])

    def to_a_new_one(key, clock, params, learner, batch, logits):
        drawn = learner.net._replace(params=net.init(key).params)
        return distance(params, _penalties.constrained(net, drawn))

    parts: dict[str, Any] = {"extra_loss": to_a_new_one}
    if hyper.reference == "initial":
        first = lambda state: {"reference": _penalties.constrained(net, state)}
        parts = {"extra": first, "penalty": penalty}
    return compose(net, spec, optimizers.make(hyper), **parts)


def _regularised(layer: dict[str, Array]) -> list[str]:
    return [leaf for leaf in REGULARISED if leaf in layer]
