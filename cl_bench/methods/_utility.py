"""Utilities of hidden units, as continual backpropagation ranks them."""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench import units as per_unit
from cl_bench.types import Key, PyTree, Unit

UTILITIES = (
    "weight",
    "contribution",
    "zero_contribution",
    "adaptation",
    "adaptable_contribution",
    "feature_by_input",
    "random",
)
CORRECTIONS = ("current", "previous", "none")


class Averages(Protocol):
    """The running averages that `track` moves on."""

    @property
    def utility(self) -> Array: ...
    @property
    def activation(self) -> Array: ...
    @property
    def age(self) -> Array: ...


class Tracked(NamedTuple):
    """All joined over layers: [sum of U]."""

    utility: Array  # u_t
    activation: Array  # f_t
    age: Array  # a_t
    rank_by: Array  # u-hat, what the units are ranked by
    mean_activation: Array  # f-hat


def track(
    key: Key,
    units: tuple[Unit, ...],
    params: PyTree,
    acts: dict[str, Array],
    own: Averages,
    decay: float,
    utility: str,
    correction: str,
) -> Tracked:
    """One update of utilities, mean activations and ages.

    u_t = eta u_{t-1} + (1 - eta) y_t, likewise f_t of the mean activation; `correction`
    'current' divides u_t and f_t by 1 - eta^{a_t} (released code), 'previous' divides
    u_{t-1} and f_{t-1} by the same (arXiv v3, eqs. 4 and 6), 'none' divides nothing.
    Source: Dohare et al. 2024.
    """
    age = own.age + 1.0
    batch_mean = per_unit.join(
        units, {u.name: per_unit.mean_over_batch(acts[u.name]) for u in units}
    )
    f = decay * own.activation + (1.0 - decay) * batch_mean
    # eta^a as an exponential: XLA vectorises exp, not pow, on a CPU.
    kappa = 1.0 if correction == "none" else 1.0 - jnp.exp(age * jnp.log(decay))
    f_hat = (own.activation if correction == "previous" else f) / kappa
    y = _instantaneous(units, params, acts, f_hat, utility)
    u = decay * own.utility + (1.0 - decay) * y
    rank_by = (own.utility if correction == "previous" else u) / kappa
    if utility == "random":
        rank_by = jax.random.uniform(key, u.shape)
    return Tracked(u, f, age, rank_by, f_hat)


def _instantaneous(
    units: tuple[Unit, ...],
    params: PyTree,
    acts: dict[str, Array],
    f_hat: Array,
    utility: str,
) -> Array:
    """y_t of one utility type, joined over layers.

    Magnitudes are means, where the papers print sums: the ranking in a layer is equal.
    Of a unit that several rows read (a channel at several positions, two features)
    activation and weights are multiplied row by row, then averaged (ConvGnT).
    """
    if utility == "random":
        return jnp.zeros_like(f_hat)
    rows = jnp.ones(sum(u.repeat * u.size for u in units))
    if utility == "contribution":
        rows = _mean_abs(units, acts, None)
    elif utility in ("zero_contribution", "adaptable_contribution", "feature_by_input"):
        rows = _mean_abs(units, acts, f_hat)
    if utility in (
        "weight", "contribution", "zero_contribution", "adaptable_contribution",
    ):  # fmt: skip
        rows = rows * _magnitudes(units, params, per_unit.outgoing_magnitude)
    y = _mean_of_rows(units, rows)
    if utility in ("adaptation", "adaptable_contribution", "feature_by_input"):
        y = y / _magnitudes(units, params, per_unit.incoming_magnitude)
    return y


def _magnitudes(units, params, magnitude) -> Array:
    return per_unit.join(units, {u.name: magnitude(params, u).ravel() for u in units})


def _mean_abs(units, acts, center: Array | None) -> Array:
    """Mean over the batch of |h|, or of |h - center|, for each row that reads a unit."""
    centers = None if center is None else per_unit.split(units, center)
    values = {}
    for unit in units:
        h = acts[unit.name]
        h = h if centers is None else h - centers[unit.name]
        values[unit.name] = per_unit.mean_by_row(jnp.abs(h), unit).ravel()
    return per_unit.join(units, values)


def _mean_of_rows(units, rows: Array) -> Array:
    """Rows of all layers joined as units of all layers joined."""
    if all(u.repeat == 1 for u in units):
        return rows
    values, start = {}, 0
    for unit in units:
        own = rows[start : start + unit.repeat * unit.size]
        values[unit.name] = own.reshape(unit.repeat, unit.size).mean(axis=0)
        start += unit.repeat * unit.size
    return per_unit.join(units, values)
