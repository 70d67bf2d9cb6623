"""Spectral regularisation: the largest singular value of every layer is pulled to 1."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import optimizers
from cl_bench.methods import _penalties
from cl_bench.methods._compose import compose
from cl_bench.types import (
    Key,
    Learner,
    Method,
    NetState,
    NetTransform,
    Network,
    PyTree,
    StreamSpec,
)

REFERENCE = (
    "Lewandowski, Bortkiewicz, Kumar, Gyorgy, Schuurmans, Ostaszewski and Machado, ICLR "
    "2025 (arXiv 2406.06811); no code released, written from a secondary description"
)
NEEDS: frozenset[str] = frozenset()
NEUTRAL = {"strength": 0.0}


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """k is `power`; 1e-4 is the paper's typical strength."""

    strength: float = 1e-4
    power: int = struct.field(pytree_node=False, default=2)


class Vectors(NamedTuple):
    """Estimates of a kernel's first singular vectors."""

    left: Array  # u, [out]
    right: Array  # v, [fan in]


def check(hyper: Hyper) -> None:
    """Raise ValueError for a power below 1."""
    if hyper.power < 1:
        raise ValueError(f"power={hyper.power}: at least 1")


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Loss + strength sum_l [(sigma_1(W_l)^k - 1)^2 + ||b_l||^(2k) + norm's terms].

    sigma_1 = u' W v after one power iteration a step, u <- W v / |W v| and v <- W' u /
    |W' u| from the last step's v; the gradient goes through W alone. A convolution is
    the matrix out x (kh kw in). Scales of a normalisation are pulled to 1 and shifts to
    0, (scale - 1)^2 + shift^2 summed; slopes of an activation are left alone.
    """
    check(hyper)

    def penalty(params: PyTree, learner: Learner) -> Array:
        params = _penalties.in_use(net, learner, params)
        vectors = learner.extra["transform_0"]
        total = jnp.zeros(())
        for name, layer in params.items():
            total += _of_layer(layer, vectors[name], hyper.power)
        return hyper.strength * total

    return compose(
        net, spec, optimizers.make(hyper), penalty=penalty, transforms=(_iterate(net),)
    )


def _of_layer(layer: dict[str, Array], at: Vectors, power: int) -> Array:
    sigma = at.right @ _penalties.matrix(layer["kernel"]) @ at.left
    total = jnp.square(sigma**power - 1.0)
    if "bias" in layer:
        total += jnp.sum(jnp.square(layer["bias"])) ** power
    if "scale" in layer:
        total += jnp.sum(jnp.square(layer["scale"] - 1.0))
        total += jnp.sum(jnp.square(layer["shift"]))
    return total


def _iterate(net: Network) -> NetTransform:
    """Keeps the vectors: those that the next step uses, of the weights it will see."""

    def start(key: Key, kernel: Array) -> Vectors:
        # The same first vector for every seed: a random direction is all it has to be.
        w = _penalties.matrix(kernel)
        right = jax.random.normal(key, w.shape[:1])
        blank = Vectors(jnp.zeros(w.shape[1]), right / jnp.linalg.norm(right))
        return power_iteration(w, blank)

    def init(state: NetState) -> dict[str, Vectors]:
        params, key = _penalties.constrained(net, state), jax.random.key(0)
        return {
            name: start(jax.random.fold_in(key, i), layer["kernel"])
            for i, (name, layer) in enumerate(params.items())
        }

    def update(key, clock, signals, state, own):
        del key, clock, signals
        new = {
            name: power_iteration(_penalties.matrix(layer["kernel"]), own[name])
            for name, layer in _penalties.constrained(net, state).items()
        }
        return state, new, None

    return NetTransform(init, update)


def power_iteration(w: Array, at: Vectors) -> Vectors:
    """One iteration on w [fan in, out]; vectors stay as they are where w is 0."""
    left = _normalise(at.right @ w, at.left)
    return Vectors(left, _normalise(w @ left, at.right))


def _normalise(x: Array, otherwise: Array) -> Array:
    norm = jnp.linalg.norm(x)
    return jnp.where(norm > 0, x / jnp.where(norm > 0, norm, 1.0), otherwise)
