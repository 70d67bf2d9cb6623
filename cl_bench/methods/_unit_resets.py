"""Resets of every unit whose score is a small share of its layer's mean score."""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench import optimizers, units
from cl_bench.methods._surgery import moment_mask, reset_units
from cl_bench.types import (
    NetState,
    NetTransform,
    Network,
    PyTree,
    Signals,
    StreamSpec,
    Unit,
)

STATISTICS = ("batch", "average")
SOURCES = ("fresh", "initial")
Score = Callable[[Signals], dict[str, Array]]  # unit name -> [U], at least 0


class Rules(Protocol):
    """The settings of a reset by score (`redo.Hyper`, `grama.Hyper`)."""

    @property
    def threshold(self) -> Array | float: ...
    @property
    def decay(self) -> Array | float: ...
    @property
    def period(self) -> int: ...
    @property
    def statistics(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def moment_reset(self) -> str: ...
    @property
    def optimizer(self) -> str: ...


def check(hyper: Rules) -> None:
    """Raise ValueError for an option that does not exist or does not fit another."""
    for field, values in (
        ("statistics", STATISTICS),
        ("source", SOURCES),
    ):
        if getattr(hyper, field) not in values:
            raise ValueError(
                f"{field}={getattr(hyper, field)!r} is none of {', '.join(values)}"
            )
    optimizers.check_moment_reset(hyper.moment_reset, hyper.optimizer)
    if hyper.period < 1:
        raise ValueError(f"period={hyper.period}: at least 1 step")


def low_scores(
    net: Network, state: NetState, scores: dict[str, Array], threshold: Array | float
) -> dict[str, Array]:
    """Units with score / (mean score of the layer) <= threshold: unit name -> [U] bool.

    In a layer of zeros every unit is low, but below a negative threshold none is.
    """
    masks = {}
    for unit in net.units:
        score, mean = scores[unit.name], _mean_in_use(state, unit, scores[unit.name])
        low = (score <= threshold * mean) & (jnp.asarray(threshold) >= 0.0)
        masks[unit.name] = low & state.alive.get(unit.name, True)
    return masks


def _mean_in_use(state: NetState, unit: Unit, score: Array) -> Array:
    """Mean score of the units of a layer that are in use: ()."""
    alive = state.alive.get(unit.name, jnp.ones(unit.size, bool))
    return jnp.sum(score * alive) / jnp.maximum(jnp.sum(alive), 1)


def reset_by_score(net: Network, hyper: Rules, score: Score) -> NetTransform:
    """Every `period` steps: units of low score start anew (`_surgery.reset_units`).

    'batch' takes the scores of that step's mini-batch, 'average' a moving average of
    all steps' scores, in which a unit that starts anew has its layer's mean; `source`
    'initial' gives a unit the incoming weights and biases it began the run with.
    """
    averaged, initial = hyper.statistics == "average", hyper.source == "initial"
    with_moments = hyper.optimizer != "sgd" and hyper.moment_reset != "none"

    def init(state: NetState) -> dict[str, PyTree]:
        own: dict[str, PyTree] = {}
        if averaged:
            own["scores"] = {u.name: jnp.zeros(u.size) for u in net.units}
        if initial:
            own["initial"] = state.params
        return own

    def update(key, clock, signals, state, own):
        due = (clock.step + 1) % hyper.period == 0
        if averaged:
            scores = jax.tree.map(
                lambda old, now: hyper.decay * old + (1.0 - hyper.decay) * now,
                own["scores"],
                score(signals),
            )
            own = {**own, "scores": scores}

        def low():
            at = own["scores"] if averaged else score(signals)
            return low_scores(net, state, at, hyper.threshold)

        def nobody():
            return {u.name: jnp.zeros(u.size, bool) for u in net.units}

        masks = jax.lax.cond(due, low, nobody)
        if averaged:  # else its old score would have it reset again at once
            means = {
                u.name: _mean_in_use(state, u, own["scores"][u.name]) for u in net.units
            }
            own["scores"] = jax.tree.map(jnp.where, masks, means, own["scores"])
        state = reset_units(key, net, state, masks, own.get("initial"))
        mask = moment_mask(net, state.params, masks) if with_moments else None
        return state, own, mask

    return NetTransform(init, update)


def require_hidden_layer(net: Network, method: str) -> None:
    """Raise ValueError for a network without units to reset."""
    if not net.units:
        raise ValueError(
            f"{method} needs a hidden layer, and the network has none: give it widths, "
            "such as widths=(100,)"
        )


def require_several(spec: StreamSpec, hyper: Rules) -> None:
    """Raise ValueError for the statistics of a mini-batch of one example.

    A unit that is silent on one example is not dormant: about half of them are.
    """
    if spec.batch_size == 1 and hyper.statistics == "batch":
        raise ValueError(
            "batch_size=1 and statistics='batch': units that are silent on one single "
            "example would be reset, about half of a ReLU layer; statistics='average' "
            "(over the steps) works, and so does a larger batch"
        )


def mean_magnitude(net: Network, acts: dict[str, Array]) -> dict[str, Array]:
    """Mean |h| over batch and positions: unit name -> [U]."""
    return {u.name: units.mean_over_batch(jnp.abs(acts[u.name])) for u in net.units}
