"""Continual backprop on residual networks against numpy, over fifty steps.

Rounding errors of float32 grow fast in a batch-normalised network: a relative error of
1e-7 a step makes other units go within ten steps. So each step of the oracle starts
from the parameters and normalisation statistics that the method itself had before that
step; JAX's plain backprop, compiled alike, takes the gradient step from there, the
oracle the rest. Ages, utilities, mean activations and the numbers of units due are the
oracle's own through all fifty steps; the new columns are those that the method drew.
"""

from functools import cache, partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.methods import backprop, continual_backprop
from cl_bench.networks import resnet18
from tests import tiny
from tests.reference import residual_replacement as oracle

STEPS, STEP_SIZE = 50, 0.02
# Multiples of a power of two add up without rounding: no floor can differ. At this
# rate more units of the last stage are due than may go.
RATE, DECAY, MATURITY = 1 / 8, 0.9, 5
SPEC = tiny.SPEC._replace(input_shape=(5, 5, 2))
NET = resnet18.make(SPEC, width=2)
RULES = {"replacement_rate": RATE, "decay": DECAY, "max_replaced": 1}
close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=2e-6)
CASES = {
    "released": ("adaptable_contribution", "current", "total"),
    "contribution": ("contribution", "none", "eligible"),
}


def pictures() -> Any:
    """Random images and labels, one minibatch a step."""
    shape = (STEPS, tiny.BATCH, *SPEC.input_shape)
    x: Any = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    return tiny.batches(STEPS)._replace(x=x)


def biased(learner: Any) -> Any:
    """The learner with random biases: before a norm they stay 0 if they start there."""
    rng, params = np.random.default_rng(4), dict(learner.net.params)
    for name, leaves in params.items():
        bias = rng.normal(size=leaves["bias"].shape).astype(np.float32)
        params[name] = leaves | {"bias": jnp.asarray(bias)}
    return learner._replace(net=learner.net._replace(params=params))


@cache
def learned(case: str) -> tuple[Any, Any]:
    """The method's network before the first step, and its learner after each step."""
    utility, correction, count = CASES[case]
    hyper = continual_backprop.Hyper(
        step_size=STEP_SIZE, maturity_threshold=MATURITY, utility=utility,
        correction=correction, count=count, **RULES,
    )  # fmt: skip
    method = continual_backprop.make(NET, SPEC, hyper)
    method = method._replace(init=lambda key, init=method.init: biased(init(key)))
    first, learners, _ = tiny.run(method, pictures())
    return first.net, learners


def joined(fields: dict[str, Any]) -> np.ndarray:
    """One vector of all layers, in the order of the unit table."""
    return np.concatenate([np.atleast_1d(fields[unit.name]) for unit in NET.units])


def new_units(learner: Any) -> dict[str, np.ndarray]:
    """Masks [U] of the units that the step before has replaced."""
    ends = np.cumsum([unit.size for unit in NET.units])
    ages = np.split(learner.extra["transform_0"].age, ends[:-1])
    return {unit.name: a == 0 for unit, a in zip(NET.units, ages, strict=True)}


@pytest.mark.parametrize("case", CASES)
def test_continual_backprop_of_a_residual_network_over_steps(case):
    before, learners = learned(case)
    utility, correction, count = CASES[case]
    data = jax.tree.map(jnp.asarray, pictures())
    plain = backprop.make(NET, SPEC, backprop.Hyper(step_size=STEP_SIZE))
    start, plain_step = plain.init(tiny.KEY), tiny.quick_jit(plain.step)
    state = oracle.init_state(NET.units)
    replaced = dict.fromkeys(state.age, 0)
    for i in range(STEPS):
        now, at = tiny.at(learners, i), (tiny.step_key(i), tiny.clock(i))
        learner = start._replace(net=jax.tree.map(jnp.asarray, before))
        left, signals = plain_step(*at, tiny.at(data, i), learner)
        params, stats, state, masks = oracle.generate_and_test(
            left.net.params, left.net.stats, state, signals.acts, NET.units,
            fresh={name: leaf["kernel"] for name, leaf in now.net.params.items()},
            maturity=MATURITY, utility=utility, bias_correction=correction,
            count=count, **RULES,
        )  # fmt: skip
        replaced = {name: n + masks[name].sum() for name, n in replaced.items()}
        own, step = now.extra["transform_0"], f"step {i}"
        np.testing.assert_array_equal(own.age, joined(state.age), step)
        np.testing.assert_array_equal(own.owed, joined(state.accumulator), step)
        for mine, theirs in (
            (own.utility, state.utility),
            (own.activation, state.mean_activation),
        ):
            close(mine, np.float32(joined(theirs)), rtol=1e-4, atol=1e-7)
        close(now.net.params, jax.tree.map(np.float32, params))
        close(now.net.stats, jax.tree.map(np.float32, stats))
        before = now.net
    assert all(n >= 3 for n in replaced.values()), replaced
    assert own.owed.max() >= 1  # the most that may go at once was reached


def test_new_columns_are_drawn_from_the_initialiser_of_each_convolution():
    """Mean 0 and deviation sqrt(2 / fan_in), over all steps."""
    before, learners = learned("released")
    found: dict[str, list[np.ndarray]] = {}
    for i in range(STEPS):
        now = tiny.at(learners, i)
        masks = new_units(now)
        for unit in NET.units:
            for name in unit.incoming:
                new = now.net.params[name]["kernel"][..., masks[unit.name]]
                old = before.params[name]["kernel"][..., masks[unit.name]]
                assert np.all((new != old) & (new != 0)), f"{name}, step {i}"
                scaled = new.ravel() * np.sqrt(np.prod(new.shape[:-1]) / 2)
                found.setdefault(name, []).append(scaled)
        before = now.net
    numbers = {name: np.concatenate(parts) for name, parts in found.items()}
    for name, drawn in numbers.items():
        error = 5 / np.sqrt(len(drawn))  # five standard errors of the mean
        assert abs(drawn.mean()) < error and abs(drawn.std() - 1) < error, name
    every = np.concatenate(list(numbers.values()))
    assert len(np.unique(every)) > 0.9 * len(every)


def test_a_weight_that_joins_two_new_units_is_a_drawn_one():
    """Rows of all that goes are zeroed before columns of all that goes are drawn."""
    _, learners = learned("released")
    drawn, zero = set(), set()
    for i in range(STEPS):
        now = tiny.at(learners, i)
        masks = new_units(now)
        for reads in NET.units:
            for writes in NET.units:
                for name in set(reads.outgoing) & set(writes.incoming):
                    rows = now.net.params[name]["kernel"][..., masks[reads.name], :]
                    weights = rows[..., masks[writes.name]]
                    if weights.size:
                        (drawn if np.all(weights != 0) else zero).add(name)
    assert drawn and not zero, f"drawn {sorted(drawn)}, zero {sorted(zero)}"
