"""TRAC: a parameter-free tuner on top of any optimiser, anchored at the first weights."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from cl_bench import optimizers
from cl_bench.methods._compose import compose
from cl_bench.optimizers import Optim
from cl_bench.types import Method, Network, PyTree, StreamSpec

REFERENCE = (
    "Muppidi, Zhang and Yang, NeurIPS 2024 (arXiv 2405.16642), read in the released "
    "code, ComputationalRobotics/TRAC"
)
NEEDS: frozenset[str] = frozenset()
NEUTRAL = {"mix": 0.0}
DISCOUNTS = (0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """The released code's: 1e-8 for the first scale and in the denominators.

    `mix` 1 is the method, 0 the base optimiser: updates are weighted by it (ours).
    """

    step_size: float = 0.001
    small: float = 1e-8
    mix: float = 1.0
    optimizer: str = struct.field(pytree_node=False, default="adam")


class State(NamedTuple):
    """The base optimiser's state and the tuners'."""

    base: PyTree
    reference: PyTree  # theta_ref, the first parameters
    moved: PyTree  # D: theta = theta_ref + S D, S the sum of the scales, if positive
    variance: Array  # v, [6]
    sigma: Array  # [6]
    scale: Array  # s, [6]


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """`wrap` around the optimiser that the settings name.

    Raises ValueError where the benchmark has a schedule of step sizes: it belongs to the
    optimiser's step, and would scale the way from the first weights.
    """
    if spec.step_schedule:
        raise ValueError(
            "trac tunes the optimiser's steps, and the benchmark scales them by a "
            "schedule: step_schedule=() on the stream works"
        )
    return compose(net, spec, wrap(optimizers.make(hyper), hyper.small, hyper.mix))


def wrap(base: Optim, small: Array | float = 1e-8, mix: Array | float = 1.0) -> Optim:
    """The base optimiser's path, rescaled about the first parameters.

    With u the base's update and g the gradient, D = (theta - theta_ref) / (S + small)
    and h = <D, g>; for each discount b: v <- b^2 v + h^2, sigma <- b sigma - h,
    s = small erfi(sigma / (sqrt(2 v) + small)) / erfi(1 / sqrt 2). Then
    theta <- theta_ref + max(S, 0) (D + u) with S the sum of the new s. `mix` is of
    this update and u.
    """

    def init(params: PyTree) -> State:
        zeros, number = jax.tree.map(jnp.zeros_like, params), len(DISCOUNTS)
        return State(
            base.init(params),
            params,
            zeros,
            jnp.zeros(number),
            jnp.full(number, 1.0) * small,
            jnp.zeros(number),
        )

    def update(grads, state, params):
        step, inner = base.update(grads, state.base, params)
        old = jnp.sum(state.scale)
        path = _path(state, params, old, small)
        h = _dot(path, grads)
        discounts = jnp.array(DISCOUNTS)
        variance = jnp.square(discounts) * state.variance + jnp.square(h)
        sigma = discounts * state.sigma - h
        at = sigma / (jnp.sqrt(2.0 * variance) + small)
        scale = small / erfi(jnp.sqrt(0.5)) * erfi(at)
        total = jnp.maximum(jnp.sum(scale), 0.0)
        moved = jax.tree.map(lambda d, u: d + u, path, step)

        def weighted(p, r, d, u):
            both = mix * (r + total * d - p) + (1.0 - mix) * u
            return jnp.where(mix > 0.0, both, u)  # the scale may overflow unused

        updates = jax.tree.map(weighted, params, state.reference, moved, step)
        return updates, State(inner, state.reference, moved, variance, sigma, scale)

    def reset(state, mask, what):
        return state._replace(base=base.reset(state.base, mask, what))

    return Optim(init, update, reset)


def _path(state: State, params: PyTree, scale: Array, small: Array | float) -> PyTree:
    """D = (theta - theta_ref) / (S + small), for every parameter.

    S D is below theta's last digit for many steps, so that the released code's
    float32 difference is mostly 0; D itself is kept instead. Where the weights are
    not where D says (a benchmark's reset of the head), the difference is right.
    """

    def of(theta, reference, moved):
        kept = jnp.maximum(scale, 0.0) * moved
        known = jnp.abs(theta - (reference + kept)) <= 1e-6 * (
            jnp.abs(reference) + jnp.abs(kept)
        )
        difference = theta - reference
        return jnp.where(known, kept, difference) / (scale + small)

    return jax.tree.map(of, params, state.reference, state.moved)


def _dot(a: PyTree, b: PyTree) -> Array:
    parts = jax.tree.map(lambda x, y: jnp.sum(x * y), a, b)
    return sum(jax.tree.leaves(parts), jnp.zeros(()))


def erfi(x: Array) -> Array:
    """The imaginary error function, 2 / sqrt(pi) times the integral of exp(t^2).

    Rybicki's sum for Dawson's integral (Press et al., Numerical Recipes, 6.10) times
    exp(x^2): erfi(x) = 4 / pi sum over odd n of exp(-(n h)^2) sinh(2 n h x) / n, whose
    error falls like exp(-(pi / 2h)^2). To 1e-5 of it in float32 up to |x| = 9.2, where
    it overflows.
    """
    size = jnp.abs(x)[..., None]
    odd = np.arange(1, 62, 2, dtype=np.float32)
    step = odd * np.float32(0.25)
    # exp(-a^2) sinh(2 a x) without overflow, and without cancellation near 0.
    terms = jnp.exp(step * (2.0 * size - step)) * -jnp.expm1(-4.0 * step * size) / odd
    return jnp.sign(x) * (2.0 / np.pi) * jnp.sum(terms, axis=-1)
