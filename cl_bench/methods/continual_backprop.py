"""Continual backpropagation: reinitialise the units that have been of least use."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import optimizers, units
from cl_bench.methods import _utility
from cl_bench.methods._compose import compose
from cl_bench.optimizers import AGED, MOMENT_RESETS
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
    "released code, shibhansh/loss-of-plasticity (GnT)"
)
NEEDS: frozenset[str] = frozenset()
NEUTRAL = {"replacement_rate": 0.0}

VARIANTS: dict[str, dict[str, Any]] = {
    # The released GnT as configured for online permuted MNIST.
    "released": {"utility": "adaptable_contribution", "correction": "current"},
    # Nature, Algorithm 1: plain contribution, no bias correction, one unit at a time.
    "nature": {"utility": "contribution", "correction": "none"},
    # arXiv v3 and the slides: eqs. 4 and 6 take the previous step's averages.
    "arxiv": {"utility": "adaptable_contribution", "correction": "previous"},
}


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """Rate, decay and maturity of Dohare et al.; None means: as the variant has it."""

    replacement_rate: float = 1e-4  # fraction of eligible units, per step and layer
    decay: float = 0.99  # eta, of utilities and mean activations
    maturity_threshold: int = 100  # updates for which a new unit is protected
    variant: str = struct.field(pytree_node=False, default="released")
    utility: str | None = struct.field(pytree_node=False, default=None)
    correction: str | None = struct.field(pytree_node=False, default=None)
    accumulate: bool = struct.field(pytree_node=False, default=True)
    count: str = struct.field(pytree_node=False, default="eligible")
    compensate_bias: bool = struct.field(pytree_node=False, default=False)
    moment_reset: str = struct.field(pytree_node=False, default="moments")
    max_replaced: int = struct.field(pytree_node=False, default=1)


class State(NamedTuple):
    """Per unit, all layers joined in the order of the network's table: [sum of U]."""

    utility: Array  # u, raw moving average
    activation: Array  # f, raw moving average
    age: Array  # float32, updates since (re)initialisation
    owed: Array  # [layers], the fraction of a unit still to be replaced


class _Layer(NamedTuple):
    """What one layer replaces at this step: rank r is unit index[r], if due[r]."""

    index: Array  # [R] int32
    due: Array  # [R] bool
    owed: Array  # ()


def check(hyper: Hyper) -> None:
    """Raise ValueError for an option that does not exist or does not fit another."""
    allowed = {
        "variant": tuple(VARIANTS),
        "utility": (None, *_utility.UTILITIES),
        "correction": (None, *_utility.CORRECTIONS),
        "count": ("eligible", "total"),
        "moment_reset": MOMENT_RESETS,
    }
    for field, values in allowed.items():
        if getattr(hyper, field) not in values:
            raise ValueError(
                f"{field}={getattr(hyper, field)!r} is none of "
                f"{', '.join(map(str, values))}"
            )
    if hyper.moment_reset == "moments+count" and hyper.optimizer not in AGED:
        raise ValueError(
            f"moment_reset='moments+count' needs a step count per weight: optimizer "
            f"{' or '.join(map(repr, AGED))}, not {hyper.optimizer!r}"
        )
    if hyper.max_replaced < 1:
        raise ValueError(f"max_replaced={hyper.max_replaced}: at least 1")


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Generate-and-test after every optimiser step, on every hidden layer.

    It sees the features of the step's forward pass and the weights after its update.
    At most `max_replaced` units a layer and step are replaced; with `accumulate` the
    rest stays owed, without it the count is Bernoulli and the rest is dropped. A
    replaced unit gets fresh incoming weights, bias 0 and outgoing weights 0.
    """
    if not net.units:
        raise ValueError(
            "continual_backprop needs a hidden layer; the network has none"
        )
    check(hyper)
    transform = replace_units(net, hyper)
    return compose(
        net,
        spec,
        optimizers.make(hyper),
        transforms=(transform,),
        moment_reset=hyper.moment_reset,
    )


def replace_units(net: Network, hyper: Hyper) -> NetTransform:
    """The generate-and-test transform alone, for composition with other methods."""
    chosen = VARIANTS[hyper.variant]
    utility = hyper.utility or chosen["utility"]
    correction = hyper.correction or chosen["correction"]
    needs_reset_mask = hyper.optimizer != "sgd" and hyper.moment_reset != "none"

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
            mature &= units.join(net.units, _alive(net, state))
        layers = _choose(key, net, hyper, mature, tracked.rank_by, own.owed)
        masks = _masks(net, layers)
        params = state.params
        if hyper.compensate_bias:
            means = units.split(net.units, tracked.mean_activation)
            params = units.transfer_mean(params, net.units, masks, means)
        params = _reinitialise(key, net, params, layers)
        gone = units.join(net.units, masks)
        if state.alive:  # units not in use have no age and no averages: 0 / 0 of theirs
            gone |= ~units.join(net.units, _alive(net, state))
        new = State(
            jnp.where(gone, 0.0, tracked.utility),
            jnp.where(gone, 0.0, tracked.activation),
            jnp.where(gone, 0.0, tracked.age),
            jnp.stack([layer.owed for layer in layers]),
        )
        reset = units.param_mask(params, net.units, masks) if needs_reset_mask else None
        return state._replace(params=params), new, reset

    return NetTransform(init, update)


def _alive(net: Network, state: NetState) -> dict[str, Array]:
    every = {u.name: jnp.ones(u.size, bool) for u in net.units}
    return {**every, **state.alive}


def _choose(
    key: Key, net: Network, hyper: Hyper, mature: Array, rank_by: Array, owed: Array
) -> list[_Layer]:
    """The lowest-utility mature units of each layer, as many as are due."""
    scores = units.split(net.units, jnp.where(mature, rank_by, jnp.inf))
    eligible = units.count(net.units, mature)
    chance = None
    if not hyper.accumulate:
        chance = jax.random.uniform(jax.random.fold_in(key, 1), (len(net.units),))
    layers = []
    for i, unit in enumerate(net.units):
        number = eligible[i]
        counted = number if hyper.count == "eligible" else float(unit.size)
        # Nothing accrues while nobody is eligible: no burst at the first maturity.
        due = jnp.where(number > 0, hyper.replacement_rate * counted, 0.0)
        if chance is None:
            total, limit = owed[i] + due, 0.0
        else:
            limit = owed[i]
            total = jnp.where(due < 1.0, (chance[i] < due).astype(jnp.float32), due)
        index, rank = _lowest(scores[unit.name], min(hyper.max_replaced, unit.size))
        # Nature, Algorithm 1 replaces one unit where c > 1; the released code as many
        # as c holds, where c >= 1.
        strict = hyper.variant == "nature" and hyper.accumulate
        ready = (total > 1.0) & (rank == 0.0) if strict else total >= 1.0 + rank
        take = ready & (rank < number)
        left = limit if chance is not None else total - jnp.sum(take)
        layers.append(_Layer(index, take, jnp.asarray(left)))
    return layers


def _lowest(scores: Array, count: int) -> tuple[Array, Array]:
    """Indices of the `count` lowest scores and their ranks 0, 1, ...: [count] each."""
    rank = jnp.arange(count, dtype=jnp.float32)
    if count == 1:  # arg-min is far cheaper than a sort
        return jnp.argmin(scores)[None], rank
    return jax.lax.top_k(-scores, count)[1], rank


def _masks(net: Network, layers: list[_Layer]) -> dict[str, Array]:
    masks = {}
    for unit, layer in zip(net.units, layers, strict=True):
        hits = jnp.arange(unit.size)[None] == layer.index[:, None]
        masks[unit.name] = jnp.any(hits & layer.due[:, None], axis=0)
    return masks


def _reinitialise(
    key: Key, net: Network, params: Any, layers: list[_Layer]
) -> dict[str, Any]:
    """Write fresh columns into the due units; drawn only in a step that needs them."""
    names = [(u, name) for u in net.units for name in u.incoming]
    count = {
        u.name: layer.due.shape[0] for u, layer in zip(net.units, layers, strict=True)
    }

    def draw() -> list[Array]:
        keys = jax.random.split(jax.random.fold_in(key, 2), len(names))
        return [
            net.columns(k, name, count[u.name])
            for k, (u, name) in zip(keys, names, strict=True)
        ]

    def none() -> list[Array]:
        return [jnp.zeros(shape.shape, shape.dtype) for shape in jax.eval_shape(draw)]

    anything = jnp.any(jnp.concatenate([layer.due for layer in layers]))
    drawn = jax.lax.cond(anything, draw, none)
    fresh: dict[str, Array] = {
        name: columns for (_, name), columns in zip(names, drawn, strict=True)
    }
    for unit, layer in zip(net.units, layers, strict=True):
        for r in range(layer.due.shape[0]):
            mask = (jnp.arange(unit.size) == layer.index[r]) & layer.due[r]
            kernels = {name: fresh[name][..., r : r + 1] for name in unit.incoming}
            params = units.set_incoming(params, unit, mask, kernels, 0.0)
            params = units.set_outgoing(params, unit, mask, 0.0)
    return params
