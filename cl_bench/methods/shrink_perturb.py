"""Shrink and perturb at every step: three published variants, by name."""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import noise, optimizers, units
from cl_bench.methods import _penalties
from cl_bench.methods._compose import compose
from cl_bench.methods.l2 import half_square
from cl_bench.types import (
    GradTransform,
    Method,
    NetTransform,
    Network,
    StreamSpec,
)

REFERENCE = (
    "'dohare': Dohare et al., Nature 632 (2024) 768-774, released code; 'kumar': Kumar, "
    "Marklund and Van Roy, CoLLAs 2024, released code; 'upgd': Elsayed and Mahmood, "
    "ICLR 2024, released code. The original, at task boundaries: boundary_shrink_perturb"
)
NEEDS: frozenset[str] = frozenset()
NEUTRAL = {"shrink": 0.0, "noise_std": 0.0}
VARIANTS = ("dohare", "kumar", "upgd")


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """Defaults of Dohare et al. on online permuted MNIST.

    `shrink` is the weight decay of 'dohare' and 'upgd' and s of 'kumar'.
    """

    shrink: float = 1e-4
    noise_std: float = 1e-5
    variant: str = struct.field(pytree_node=False, default="dohare")
    noise: str = struct.field(pytree_node=False, default="exact")


def check(hyper: Hyper) -> None:
    """Raise ValueError for a variant or a kind of noise that does not exist."""
    if hyper.variant not in VARIANTS:
        raise ValueError(f"variant={hyper.variant!r} is none of {', '.join(VARIANTS)}")
    if hyper.noise not in noise.KINDS:
        raise ValueError(f"noise={hyper.noise!r} is none of {', '.join(noise.KINDS)}")
    if hyper.variant == "kumar" and hyper.noise == "pooled":
        raise ValueError(
            "variant='kumar' draws fresh networks, not noise: noise='exact'"
        )


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """One variant, xi ~ N(0, 1) for every weight and bias, a the step size.

    dohare: theta <- optimiser(g + shrink theta) + noise_std xi.
    kumar: theta <- (1 - shrink) theta + noise_std theta_fresh, after the optimiser.
    upgd: theta <- optimiser(g + shrink theta + noise_std xi); with SGD that is
    (1 - a shrink) theta - a (g + noise_std xi).
    """
    check(hyper)

    def penalty(params, learner):
        in_use = _penalties.in_use(net, learner, params)
        return hyper.shrink * half_square(in_use)

    optim = optimizers.make(hyper)
    if hyper.variant == "upgd":
        return compose(
            net,
            spec,
            optim,
            penalty=penalty,
            grad_transforms=(add_noise_to_grads(net, hyper.noise_std, hyper.noise),),
        )
    if hyper.variant == "kumar":
        return compose(
            net,
            spec,
            optim,
            transforms=(towards_fresh(net, hyper.shrink, hyper.noise_std),),
        )
    return compose(net, spec, optim, penalty=penalty, transforms=(_add_noise(hyper),))


def add_noise_to_grads(
    net: Network, noise_std: Array | float, kind: str
) -> GradTransform:
    """g <- g + noise_std xi, xi ~ N(0, 1) for every parameter; `kind` as in `noise`.

    What is not in use (dead units, forbidden edges) gets none: an optimiser would keep
    it in its moments, where the runner's zeros do not reach.
    """

    def update(key, clock, grads, state, own):
        del clock
        xi = noise.normal_like(key, grads, kind)
        in_use = units.counted(state, net.units)
        noisy = jax.tree.map(
            lambda g, x, used: jnp.where(used, g + noise_std * x, g), grads, xi, in_use
        )
        return noisy, own

    return GradTransform(lambda state: (), update)


def _add_noise(hyper: Hyper) -> NetTransform:
    def update(key, clock, signals, state, own):
        del clock, signals
        xi = noise.normal_like(key, state.params, hyper.noise)
        params = jax.tree.map(lambda p, x: p + hyper.noise_std * x, state.params, xi)
        return state._replace(params=params), own, None

    return NetTransform(lambda state: (), update)


def towards_fresh(
    net: Network, shrink: Array | float, share: Array | float
) -> NetTransform:
    """theta <- (1 - shrink) theta + share theta_fresh, a new network at every step."""

    def update(key, clock, signals, state, own):
        del clock, signals
        params = jax.tree.map(
            lambda p, q: (1.0 - shrink) * p + share * q,
            state.params,
            net.init(key).params,
        )
        return state._replace(params=params), own, None

    return NetTransform(lambda state: (), update)
