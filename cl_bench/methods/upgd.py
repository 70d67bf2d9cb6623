"""UPGD: utility-based perturbed gradient descent; useful weights are left in peace."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import noise, optimizers
from cl_bench.methods._compose import compose
from cl_bench.types import (
    Clock,
    GradTransform,
    Key,
    Method,
    NetState,
    Network,
    PyTree,
    StreamSpec,
)

REFERENCE = (
    "Elsayed and Mahmood, ICLR 2024 (arXiv 2404.00781), Algorithms 1 and 3 with "
    "first-order utility; released code"
)
NEEDS: frozenset[str] = frozenset()
NEUTRAL = {"protect": False, "noise_std": 0.0, "shrink": 0.0, "ada": False}
SCOPES = ("global", "local")


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """UPGD-W's best setting of the paper on input-permuted MNIST.

    `beta_utility` is of the utility trace, `shrink` the weight decay. With `ada`, Adam's
    direction with beta1, beta2 and epsilon takes the gradient's place.
    """

    step_size: float = 0.01
    noise_std: float = 0.1
    beta_utility: float = 0.9999
    shrink: float = 0.01
    scope: str = struct.field(pytree_node=False, default="global")
    protect: bool = struct.field(pytree_node=False, default=True)
    ada: bool = struct.field(pytree_node=False, default=False)
    noise: str = struct.field(pytree_node=False, default="exact")


class State(NamedTuple):
    """The trace of utilities, and Adam's moments (empty without `ada`)."""

    utility: PyTree
    mu: PyTree
    nu: PyTree


def check(hyper: Hyper) -> None:
    """Raise ValueError for an option that does not exist, or another optimiser."""
    if hyper.scope not in SCOPES:
        raise ValueError(f"scope={hyper.scope!r} is none of {', '.join(SCOPES)}")
    if hyper.noise not in noise.KINDS:
        raise ValueError(f"noise={hyper.noise!r} is none of {', '.join(noise.KINDS)}")
    if hyper.optimizer != "sgd":
        raise ValueError(
            f"upgd is an optimiser itself, optimizer={hyper.optimizer!r} cannot be "
            "another: leave 'sgd'; ada=True gives it Adam's moments"
        )


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """One step of UPGD, with U the scaled utility of each weight or bias, in (0, 1).

    theta <- (1 - a shrink) theta - a (g + noise_std xi) (1 - U), a the step size; without
    `protect`, the noise alone is gated: - a (g + noise_std xi (1 - U)).
    """
    check(hyper)
    return compose(net, spec, optimizers.make(hyper), grad_transforms=(gate(hyper),))


def gate(hyper: Hyper) -> GradTransform:
    """g -> what SGD has to follow to make UPGD's step: see `make`."""

    def init(state: NetState) -> State:
        zeros = jax.tree.map(jnp.zeros_like, state.params)
        moments = zeros if hyper.ada else ()
        return State(zeros, moments, moments)

    def update(
        key: Key, clock: Clock, grads: PyTree, state: NetState, own: State
    ) -> tuple[PyTree, State]:
        steps = (clock.step + 1).astype(jnp.float32)
        beta = hyper.beta_utility
        utility = jax.tree.map(
            lambda u, g, w: beta * u - (1.0 - beta) * (g * w),
            own.utility, grads, state.params,
        )  # fmt: skip
        free = _one_minus_utility(utility, _correction(beta, steps), hyper.scope)
        direction, mu, nu = _direction(hyper, grads, own, steps)
        xi = noise.normal_like(key, grads, hyper.noise)

        def gated(w, g, x, f):
            moved = f * (g + hyper.noise_std * x)
            if not hyper.protect:
                moved = g + hyper.noise_std * x * f
            return moved + hyper.shrink * w

        used = jax.tree.map(gated, state.params, direction, xi, free)
        return used, State(utility, mu, nu)

    return GradTransform(init, update)


def _correction(beta: Array | float, steps: Array) -> Array:
    """1 - beta^t, without the cancellation that a beta of 0.9999 has in float32."""
    return -jnp.expm1(steps * jnp.log(beta))


def _one_minus_utility(utility: PyTree, correction: Array, scope: str) -> PyTree:
    """1 - U = sigmoid(-scaled utility).

    'global': the corrected trace over the largest trace of the whole network, signed
    and not corrected, as in the released code: the ratio is 1 / (1 - beta^t) too large
    at first. 'local': the corrected trace of a unit's incoming weights over its L2
    norm; biases are one vector.
    # Departs from the paper: for convolutions the released code's last axis is the
    # width of the window alone; here it is all that a unit reads.
    """
    if scope == "local":
        return jax.tree.map(
            lambda u: jax.nn.sigmoid(-_unit_norm(u, correction)), utility
        )
    largest = jnp.stack([jnp.max(u) for u in jax.tree.leaves(utility)]).max()
    # Departs from the paper: where no weight has a positive utility, the released code's
    # ratio is turned round (the worst weights are protected) or 0 / 0; here it is 0.
    useful = largest > 0
    factor = jnp.where(
        useful, -1.0 / (correction * jnp.where(useful, largest, 1.0)), 0.0
    )
    return jax.tree.map(lambda u: jax.nn.sigmoid(factor * u), utility)


def _unit_norm(utility: Array, correction: Array) -> Array:
    # The released code normalises along the last axis of PyTorch's [out, in].
    corrected = utility / correction
    axes = tuple(range(max(utility.ndim - 1, 1)))
    norm = jnp.sqrt(jnp.sum(jnp.square(corrected), axes, keepdims=True))
    return corrected / jnp.maximum(norm, 1e-12)


def _direction(hyper: Hyper, grads: PyTree, own: State, steps: Array):
    """The gradient, or Adam's m / (sqrt(v) + epsilon) with both corrected; m and v."""
    if not hyper.ada:
        return grads, own.mu, own.nu
    b1, b2 = hyper.beta1, hyper.beta2
    mu = jax.tree.map(lambda m, g: b1 * m + (1.0 - b1) * g, own.mu, grads)
    nu = jax.tree.map(lambda v, g: b2 * v + (1.0 - b2) * g * g, own.nu, grads)
    c1, c2 = _correction(b1, steps), _correction(b2, steps)
    adam = jax.tree.map(
        lambda m, v: m / c1 / (jnp.sqrt(v / c2) + hyper.epsilon), mu, nu
    )
    return adam, mu, nu
