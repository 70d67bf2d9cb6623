"""Gradient optimisers: optax, plus the two Adams whose bias correction has an age.

An `Optim` is (init, update, reset): `reset` zeroes exactly the moments (and ages) of
the masked parameters and nothing else that happens to be shaped like them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array

from cl_bench.types import PyTree

MOMENT_RESETS = ("none", "moments", "moments+count")


@struct.dataclass
class OptimHyper:
    """Settings of the optimiser, shared by every method that takes gradient steps."""

    step_size: float = 0.003
    momentum: float = 0.9  # 'momentum' only; heavy ball, m = momentum * m + g
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0  # 'adamw': decoupled, scaled by the step size
    optimizer: str = struct.field(pytree_node=False, default="sgd")
    coupled_decay: bool = struct.field(pytree_node=False, default=False)


class Optim(NamedTuple):
    """An optimiser over parameter trees."""

    init: Callable[[PyTree], PyTree]
    update: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]
    # (gradients, state, parameters) -> updates to add, state
    reset: Callable[[PyTree, PyTree, str], PyTree]
    # (state, bool tree shaped like the parameters, one of MOMENT_RESETS) -> state


class AgedAdamState(NamedTuple):
    """Adam's moments with one step count per parameter."""

    count: PyTree
    mu: PyTree
    nu: PyTree


def make(hyper: OptimHyper) -> Optim:
    """The optimiser that `hyper.optimizer` names.

    'sgd', 'momentum' (heavy ball), 'adam' (Kingma & Ba 2015, Algorithm 1), 'adamw'
    (Loshchilov & Hutter 2019, Algorithm 2), 'aged_adam' (Adam, step count per
    parameter, so that a replaced unit's bias correction starts anew) and 'adam_gnt'
    (the optimiser of Dohare et al.'s released code: see `_released_step`).
    With `coupled_decay` (PyTorch's `weight_decay`) weight_decay * theta is added to the
    gradient of every parameter before the optimiser, so that any method can be run on
    top of L2. Raises ValueError for any other name, and for a coupled 'adamw'.
    """
    h = hyper
    adam = {"b1": h.beta1, "b2": h.beta2, "eps": h.epsilon}
    made: dict[str, Callable[[], Optim]] = {
        "sgd": lambda: _stateless(h.step_size),
        "momentum": lambda: _from_optax(optax.sgd(h.step_size, momentum=h.momentum)),
        "adam": lambda: _from_optax(optax.adam(h.step_size, **adam)),
        "adamw": lambda: _from_optax(
            optax.adamw(h.step_size, weight_decay=h.weight_decay, **adam)
        ),
        "aged_adam": lambda: _aged_adam(h, _adam_step),
        "adam_gnt": lambda: _aged_adam(h, _released_step),
    }
    if h.optimizer not in made:
        raise ValueError(f"optimizer {h.optimizer!r} is none of {sorted(made)}")
    if not h.coupled_decay:
        return made[h.optimizer]()
    if h.optimizer == "adamw":
        raise ValueError(
            "optimizer='adamw' decouples its weight decay: coupled_decay=True goes with "
            "'adam' and the others"
        )
    return _decayed(made[h.optimizer](), h.weight_decay)


NAMES = ("sgd", "momentum", "adam", "adamw", "aged_adam", "adam_gnt")
AGED = ("aged_adam", "adam_gnt")


def check(hyper: OptimHyper) -> None:
    """Raise ValueError for a weight decay that nothing reads."""
    if hyper.weight_decay and hyper.optimizer != "adamw" and not hyper.coupled_decay:
        raise ValueError(
            f"weight_decay={hyper.weight_decay}: optimizer={hyper.optimizer!r} does not "
            "read it. 'adamw' does, and any other with coupled_decay=True (PyTorch's "
            "weight_decay); weight_decay=0 is none"
        )


def check_moment_reset(moment_reset: str, optimizer: str) -> None:
    """Raise ValueError for a reset of moments that the optimiser cannot do."""
    if moment_reset not in MOMENT_RESETS:
        raise ValueError(
            f"moment_reset={moment_reset!r} is none of {', '.join(MOMENT_RESETS)}"
        )
    if moment_reset == "moments+count" and optimizer not in AGED:
        raise ValueError(
            "moment_reset='moments+count' needs a step count per weight: optimizer "
            f"{' or '.join(map(repr, AGED))}, not {optimizer!r}"
        )


def _stateless(step_size: float) -> Optim:
    def update(grads, state, params):
        del params
        return jax.tree.map(lambda g: -step_size * g, grads), state

    return Optim(lambda params: (), update, lambda state, mask, what: state)


def _from_optax(transform: optax.GradientTransformation) -> Optim:
    def reset(state, mask, what):
        if what == "none":
            return state
        return optax.tree_utils.tree_map_params(
            transform.init, lambda leaf, m: jnp.where(m, 0.0, leaf), state, mask
        )

    return Optim(transform.init, transform.update, reset)


def _decayed(base: Optim, weight_decay: Array | float) -> Optim:
    def update(grads, state, params):
        grads = jax.tree.map(lambda g, p: g + weight_decay * p, grads, params)
        return base.update(grads, state, params)

    return Optim(base.init, update, base.reset)


def _adam_step(h: OptimHyper, count: Array, m: Array, v: Array) -> Array:
    corrected = v / _one_minus_power(h.beta2, count)
    debiased = m / _one_minus_power(h.beta1, count)
    return -h.step_size * debiased / (jnp.sqrt(corrected) + h.epsilon)


def _released_step(h: OptimHyper, count: Array, m: Array, v: Array) -> Array:
    # Departs from the paper: the released AdamGnT discards its first bias correction
    # (loss-of-plasticity issue #12), a warm-up of 1 / (1 - beta2) steps in effect.
    scale = h.step_size * _one_minus_power(h.beta2, count)
    return -scale * m / (jnp.sqrt(v) + h.epsilon)


def _one_minus_power(beta: Array | float, count: Array) -> Array:
    """1 - beta^count per weight, by exponentials: powers take a CPU 4 times as long."""
    return -jnp.expm1(count * jnp.log1p(jnp.asarray(beta) - 1.0))


def _aged_adam(h: OptimHyper, step: Callable[..., Array]) -> Optim:
    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AgedAdamState(zeros, zeros, zeros)

    def update(grads, state, params):
        del params
        count = jax.tree.map(lambda c: c + 1.0, state.count)
        mu = jax.tree.map(
            lambda m, g: h.beta1 * m + (1.0 - h.beta1) * g, state.mu, grads
        )
        nu = jax.tree.map(
            lambda v, g: h.beta2 * v + (1.0 - h.beta2) * g * g, state.nu, grads
        )
        updates = jax.tree.map(lambda c, m, v: step(h, c, m, v), count, mu, nu)
        return updates, AgedAdamState(count, mu, nu)

    def reset(state, mask, what):
        if what == "none":
            return state
        zero = lambda tree: jax.tree.map(
            lambda leaf, m: jnp.where(m, 0.0, leaf), tree, mask
        )
        count = zero(state.count) if what == "moments+count" else state.count
        return AgedAdamState(count, zero(state.mu), zero(state.nu))

    return Optim(init, update, reset)
