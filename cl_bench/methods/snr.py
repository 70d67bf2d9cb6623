"""SNR, self-normalised resets: a unit starts anew when it is silent for unusually long."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import optimizers, shapes, units
from cl_bench.methods import _unit_resets
from cl_bench.methods._compose import compose
from cl_bench.methods._replacement import alive
from cl_bench.methods._surgery import apply_if, moment_mask, reset_units
from cl_bench.schedule import schedule
from cl_bench.types import Method, NetState, NetTransform, Network, StreamSpec

REFERENCE = (
    "Farias and Jozefiak, ICLR 2025 (arXiv 2410.20098); written from a secondary "
    "source, a description of the released code, ajozefiak/SelfNormalizedResets"
)
NEEDS: frozenset[str] = frozenset()
NEUTRAL = {"threshold_scale": float("inf")}
WINDOW_TASKS = 16  # the released code sets the thresholds anew every 16 tasks


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """Settings of the released code; ages and thresholds count examples."""

    percentile: float = 0.99  # eta
    min_threshold: float = 100.0  # hard-coded in the released code
    threshold_scale: float = 1.0  # a unit starts anew at this times tau; inf: never
    max_threshold: int = struct.field(pytree_node=False, default=20_000)  # tau_max
    period: int | None = struct.field(pytree_node=False, default=None)  # steps
    moment_reset: str = struct.field(pytree_node=False, default="moments")


class State(NamedTuple):
    """Per unit, all layers joined in the order of the network's table: [sum of U]."""

    age: Array  # examples since the unit last fired
    threshold: Array  # tau, examples
    histogram: Array  # [sum of U, bins] ages at which it fired or was reset


def check(hyper: Hyper) -> None:
    """Raise ValueError for an option that does not exist or does not fit another."""
    optimizers.check_moment_reset(hyper.moment_reset, hyper.optimizer)
    if hyper.max_threshold < 1:
        raise ValueError(f"max_threshold={hyper.max_threshold}: at least 1 example")
    if hyper.period is not None and hyper.period < 1:
        raise ValueError(f"period={hyper.period}: at least 1 step, or None")


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """After every step, units whose age has reached their threshold start anew.

    A unit fires if any of its activations in the batch is positive; its age is then
    noted and starts at 0, else it grows by the batch size. Every `period` steps
    (None: 16 tasks, as released) each threshold becomes the `percentile` of the noted
    ages of at least 1 if that is lower, else twice itself, within [min_threshold,
    max_threshold]; a unit that fired at every step has no such age and gets
    min_threshold. Before the first period thresholds are max_threshold (a choice of
    ours: our sources do not tell).
    # Departs from the released code: fresh weights come from the network's own
    # initialiser, there from LeCun's.
    # Departs from the paper: ages are multiples of the batch size, and noted as such;
    # activations are looked at, not pre-activations: with an activation that is
    # positive below 0 (sigmoid, softplus) every unit fires at every step, and none is
    # ever reset.

    Raises ValueError for a network without hidden layers, and for one whose units have
    two features: of 'crelu' one is always positive, of 'fourier' the sign says nothing.
    """
    _unit_resets.require_hidden_layer(net, "snr")
    _require_one_feature(net, spec)
    check(hyper)
    return compose(
        net,
        spec,
        optimizers.make(hyper),
        transforms=(_reset_silent(net, spec, hyper),),
        moment_reset=hyper.moment_reset,
    )


def _reset_silent(net: Network, spec: StreamSpec, hyper: Hyper) -> NetTransform:
    total = sum(u.size for u in net.units)
    bins = hyper.max_threshold // spec.batch_size + 2
    period = hyper.period or WINDOW_TASKS * int(schedule(spec).lengths.max())
    with_moments = hyper.optimizer != "sgd" and hyper.moment_reset != "none"

    def init(state: NetState) -> State:
        del state
        zeros = jnp.zeros(total)
        return State(zeros, zeros + hyper.max_threshold, jnp.zeros((total, bins)))

    def update(key, clock, signals, state, own):
        fired = units.join(net.units, _fired(net, signals.acts))
        older = jnp.where(fired, own.age, own.age + spec.batch_size)
        silent = ~fired & (older >= hyper.threshold_scale * own.threshold)
        if state.alive:  # units not in use do not age
            in_use = units.join(net.units, alive(net, state))
            silent &= in_use
            older = jnp.where(in_use, older, 0.0)
        noted = fired | silent
        bin_of = jnp.minimum(older / spec.batch_size, bins - 1).astype(jnp.int32)
        histogram = own.histogram.at[jnp.arange(total), bin_of].add(
            noted.astype(jnp.float32), mode="promise_in_bounds", unique_indices=True
        )
        new = State(jnp.where(noted, 0.0, older), own.threshold, histogram)
        due = (clock.step + 1) % period == 0
        new = apply_if(due, lambda _, own: _renew(own, spec, hyper), new)
        masks = units.split(net.units, silent)
        state = reset_units(key, net, state, masks)
        mask = moment_mask(net, state.params, masks) if with_moments else None
        return state, new, mask

    return NetTransform(init, update)


def _require_one_feature(net: Network, spec: StreamSpec) -> None:
    """Raise ValueError for units of two features."""
    if layer := shapes.two_featured_layer(net, spec):
        raise ValueError(
            f"snr resets units that do not fire, and those of layer {layer!r} have two "
            "features (activation 'crelu' or 'fourier'), whose signs do not tell; "
            "activation 'relu', or redo or continual_backprop, work"
        )


def _fired(net: Network, acts: dict[str, Array]) -> dict[str, Array]:
    return {
        u.name: jnp.any(acts[u.name] > 0.0, axis=tuple(range(acts[u.name].ndim - 1)))
        for u in net.units
    }


def _renew(own: State, spec: StreamSpec, hyper: Hyper) -> State:
    """New thresholds from the ages noted in this period, and an empty histogram."""
    ages = own.histogram.at[:, 0].set(0.0)  # age 0: fired twice in a row
    reached = jnp.cumsum(ages, axis=1)
    total = reached[:, -1:]
    short = jnp.sum(reached < hyper.percentile * total, axis=1)
    quantile = jnp.where(total[:, 0] > 0.0, short * spec.batch_size, 0.0)
    doubled = 2.0 * own.threshold
    threshold = jnp.where(quantile < own.threshold, quantile, doubled)
    threshold = jnp.clip(threshold, hyper.min_threshold, hyper.max_threshold)
    return State(own.age, threshold, jnp.zeros_like(own.histogram))
