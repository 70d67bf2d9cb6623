"""Continual backpropagation: reinitialise the units that have been of least use."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import optimizers, shapes, units
from cl_bench.methods import _replacement, _unit_resets, _utility
from cl_bench.methods._compose import compose
from cl_bench.types import (
    Clock,
    Key,
    Method,
    NetState,
    NetTransform,
    Network,
    Signals,
    StreamSpec,
)

REFERENCE = (
    "Dohare et al., Nature 632 (2024) 768-774, Algorithm 1; arXiv 2306.13812v3; "
    "released code, shibhansh/loss-of-plasticity (GnT; ConvGnT and ResGnT from a "
    "description)"
)
NEEDS: frozenset[str] = frozenset()
NEUTRAL = {"replacement_rate": 0.0}

VARIANTS: dict[str, dict[str, Any]] = {
    # The released GnT as configured for online permuted MNIST.
    "released": {
        "utility": "adaptable_contribution",
        "correction": "current",
        "compensate_bias": False,  # the released code's transfer is always 0
    },
    # Nature, Algorithm 1: plain contribution, no bias correction, one unit at a time.
    # Departs from the paper: its arg-min is over all units, here over the mature ones.
    "nature": {
        "utility": "contribution",
        "correction": "none",
        "compensate_bias": False,
    },
    # arXiv v3 and the slides: eqs. 4 and 6 take the previous step's averages; the mean
    # that the utility leaves out goes to the readers' biases.
    "arxiv": {
        "utility": "adaptable_contribution",
        "correction": "previous",
        "compensate_bias": True,
    },
}


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """Dohare et al.: a rate of their grid, decay, maturity; None: as the variant has."""

    replacement_rate: float = 1e-4  # fraction of eligible units, per step and layer
    decay: float = 0.99  # eta, of utilities and mean activations
    maturity_threshold: int = 100  # updates for which a new unit is protected
    variant: str = struct.field(pytree_node=False, default="released")
    utility: str | None = struct.field(pytree_node=False, default=None)
    correction: str | None = struct.field(pytree_node=False, default=None)
    accumulate: bool = struct.field(pytree_node=False, default=True)
    count: str = struct.field(pytree_node=False, default="eligible")
    compensate_bias: bool | None = struct.field(pytree_node=False, default=None)
    moment_reset: str | None = struct.field(pytree_node=False, default=None)
    max_replaced: int = struct.field(pytree_node=False, default=1)


class State(NamedTuple):
    """Per unit, all layers joined in the order of the network's table: [sum of U]."""

    utility: Array  # u, raw moving average
    activation: Array  # f, raw moving average
    age: Array  # float32, updates since (re)initialisation
    owed: Array  # [layers], the fraction of a unit still to be replaced


def check(hyper: Hyper) -> None:
    """Raise ValueError for an option that does not exist or does not fit another."""
    allowed = {
        "variant": tuple(VARIANTS),
        "utility": (None, *_utility.UTILITIES),
        "correction": (None, *_utility.CORRECTIONS),
        "count": ("eligible", "total"),
    }
    for field, values in allowed.items():
        if getattr(hyper, field) not in values:
            raise ValueError(
                f"{field}={getattr(hyper, field)!r} is none of "
                f"{', '.join(map(str, values))}"
            )
    optimizers.check_moment_reset(_moment_reset(hyper), hyper.optimizer)
    if hyper.max_replaced < 1:
        raise ValueError(f"max_replaced={hyper.max_replaced}: at least 1")


def _moment_reset(hyper: Hyper) -> str:
    """As set, else as the variant has it.

    The released code keeps SGD's momentum; its Adam starts a weight's count anew too.
    """
    if hyper.moment_reset is not None:
        return hyper.moment_reset
    released = {"momentum": "none", "adam_gnt": "moments+count"}
    chosen = released if hyper.variant == "released" else {}
    return chosen.get(hyper.optimizer, "moments")


def _compensates(hyper: Hyper) -> bool:
    """As set, else as the variant has it."""
    if hyper.compensate_bias is not None:
        return hyper.compensate_bias
    return VARIANTS[hyper.variant]["compensate_bias"]


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Generate-and-test after every optimiser step, on every hidden layer.

    It sees the features of the step's forward pass and the weights after its update.
    At most `max_replaced` units a layer and step are replaced; with `accumulate` the
    rest stays owed, without it the count is Bernoulli and the rest is dropped. A
    replaced unit gets fresh incoming weights, bias 0 and outgoing weights 0.
    # Departs from the released code (ResGnT) on residual networks: the magnitudes are
    # means that decay and are reset with their unit, where its mean |h| only grows; a
    # stream is one layer of units, replaced with all that writes and reads it, where
    # it takes convolutions one by one and leaves the shortcut's share.
    """
    _unit_resets.require_hidden_layer(net, "continual_backprop")
    check(hyper)
    if _compensates(hyper):
        _check_compensation(net, spec)
    transform = replace_units(net, hyper)
    return compose(
        net,
        spec,
        optimizers.make(hyper),
        transforms=(transform,),
        moment_reset=_moment_reset(hyper),
    )


def _check_compensation(net: Network, spec: StreamSpec) -> None:
    """Raise ValueError where a unit's readers do not all read one and the same mean."""
    reason = ""
    if layer := shapes.two_featured_layer(net, spec):
        reason = f"those of layer {layer!r} have two outputs ('crelu' or 'fourier')"
    for unit in net.units:
        if len(unit.incoming) > 1:
            reason = f"those of {unit.name!r} read a residual stream at several points"
    if reason:
        raise ValueError(
            "compensate_bias moves a unit's mean output to its readers' biases, and "
            f"{reason}: compensate_bias=False works"
        )


def replace_units(net: Network, hyper: Hyper) -> NetTransform:
    """The generate-and-test transform alone, for composition with other methods."""
    chosen = VARIANTS[hyper.variant]
    utility = hyper.utility or chosen["utility"]
    correction = hyper.correction or chosen["correction"]
    compensate = _compensates(hyper)
    needs_reset_mask = hyper.optimizer != "sgd" and _moment_reset(hyper) != "none"

    def init(state: NetState) -> State:
        del state
        zeros = jnp.zeros(sum(u.size for u in net.units))
        return State(zeros, zeros, zeros, jnp.zeros(len(net.units)))

    def update(
        key: Key, clock: Clock, signals: Signals, state: NetState, own: State
    ) -> tuple[NetState, State, Any]:
        del clock
        tracked = _utility.track(
            jax.random.fold_in(key, 0), net.units, state.params, signals.acts, own, hyper.decay,
            utility, correction,
        )  # fmt: skip
        mature = tracked.age > hyper.maturity_threshold
        if state.alive:
            mature &= units.join(net.units, _replacement.alive(net, state))
        layers = _replacement.choose(key, net, hyper, mature, tracked.rank_by, own.owed)
        masks = _replacement.masks_of(net, layers)
        params = state.params
        if compensate:
            means = units.split(net.units, tracked.mean_activation)
            params = units.transfer_mean(params, net.units, masks, means)
        params = _replacement.reinitialise(key, net, params, layers)
        stats = state.stats
        for unit in net.units:
            stats = units.reset_statistics(stats, unit, masks[unit.name])
        gone = units.join(net.units, masks)
        if state.alive:  # units not in use have no age and no averages: 0 / 0 of theirs
            gone |= ~units.join(net.units, _replacement.alive(net, state))
        new = State(
            jnp.where(gone, 0.0, tracked.utility),
            jnp.where(gone, 0.0, tracked.activation),
            jnp.where(gone, 0.0, tracked.age),
            jnp.stack([layer.owed for layer in layers]),
        )
        reset = units.param_mask(params, net.units, masks) if needs_reset_mask else None
        return state._replace(params=params, stats=stats), new, reset

    return NetTransform(init, update)
