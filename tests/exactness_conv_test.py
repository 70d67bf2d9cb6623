"""Continual backprop on networks of convolutions against numpy."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import units
from cl_bench.methods import backprop, continual_backprop
from cl_bench.networks import cnn, resnet18
from tests import tiny
from tests.reference import conv_training as oracle
from tests.reference import mlp as oracle_mlp
from tests.reference.utilities import init_state

STEPS, STEP_SIZE = 50, 0.02
RATE, DECAY, MATURITY = 1 / 32, 0.9, 5  # a power of two: no floor can differ
SPEC = tiny.SPEC._replace(input_shape=(10, 9, 2))
# c2 has 4 channels at two positions, which h1 reads: rows 0 to 3, then 4 to 7.
NET = cnn.make(SPEC, channels=(3, 4), kernels=(3, 1), dense=(5,), pool=2)
NAMES = ("c1", "c2", "h1")
RULES = {"replacement_rate": RATE, "decay": DECAY, "max_replaced": 1}
close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=2e-6)
CASES = {
    "released": {},
    "zero contribution": {"utility": "zero_contribution"},
    "contribution": {"utility": "contribution"},
    "nobody corrects": {"correction": "none"},
    "eligible units count": {"count": "eligible"},
}


def pictures(spec, steps):
    """Random images and labels, one minibatch a step."""
    shape = (steps, tiny.BATCH, *spec.input_shape)
    x: Any = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    return tiny.batches(steps)._replace(x=x)


@pytest.mark.parametrize("case", CASES)
def test_continual_backprop_of_a_cnn(case):
    chosen = {"utility": "adaptable_contribution", "correction": "current"}
    chosen |= {"count": "total", **CASES[case]}
    hyper = continual_backprop.Hyper(
        step_size=STEP_SIZE, maturity_threshold=MATURITY, **RULES, **chosen
    )
    data = pictures(SPEC, STEPS)
    method = continual_backprop.make(NET, SPEC, hyper)
    first, learners, _ = tiny.run(method, data)
    params = jax.tree.map(np.float64, first.net.params)
    state, rows, replaced = init_state(params), [], np.zeros(len(NAMES))
    options = {"bias_correction" if k == "correction" else k: chosen[k] for k in chosen}
    for i in range(STEPS):
        _, acts, grads = oracle.loss_and_grads(params, data.x[i], data.y[i], 2)
        params = oracle_mlp.map_params(lambda p, g: p - STEP_SIZE * g, params, grads)
        fresh = tiny.at(learners, i).net.params
        params, state, masks = oracle.generate_and_test(
            params, state, acts, maturity=MATURITY, **RULES, **options,
            fresh={name: fresh[name]["kernel"] for name in NAMES},
        )  # fmt: skip
        replaced += [masks[name].sum() for name in NAMES]
        rows.append(params)
    close(
        learners.net.params,
        jax.tree.map(lambda *p: np.stack(p).astype(np.float32), *rows),
    )
    own = tiny.at(learners.extra["transform_0"], -1)
    np.testing.assert_array_equal(
        own.age, np.concatenate([state.age[n] for n in NAMES])
    )
    worth = np.concatenate([state.utility[n] for n in NAMES])
    close(own.utility, np.float32(worth), rtol=1e-4)
    assert (replaced >= 3).all()


def by_hand(net, state, acts):
    """Contribution of each unit: mean |h| times mean |w| over all that reads it."""
    found = {}
    for unit in net.units:
        h = np.abs(np.asarray(acts[unit.name], np.float64)).reshape(-1, unit.size)
        readers = [np.asarray(state.params[n]["kernel"]) for n in unit.outgoing]
        flat = [np.moveaxis(np.abs(k), -2, 0).reshape(unit.size, -1) for k in readers]
        found[unit.name] = h.mean(axis=0) * np.hstack(flat).mean(axis=1)
    return found


def test_continual_backprop_of_a_residual_network():
    """One replacement in each layer, beside the same step of backprop."""
    spec = tiny.SPEC._replace(input_shape=(5, 5, 2))
    net = resnet18.make(spec, width=2)
    rate = {"replacement_rate": 1.0, "maturity_threshold": 0, "count": "total"}
    hyper = continual_backprop.Hyper(
        step_size=STEP_SIZE, utility="contribution", correction="none", **rate
    )
    method = continual_backprop.make(net, spec, hyper)
    plain = backprop.make(net, spec, backprop.Hyper(step_size=STEP_SIZE))
    batch = tiny.at(jax.tree.map(jnp.asarray, pictures(spec, 1)), 0)
    start = method.init(tiny.KEY)
    at = tiny.step_key(0), tiny.clock(0), batch
    left, signals = tiny.quick_jit(plain.step)(*at, plain.init(tiny.KEY))
    found, _ = tiny.quick_jit(method.step)(*at, start)
    worth = by_hand(net, left.net, signals.acts)
    ages = units.split(net.units, found.extra["transform_0"].age)
    gone = {name: np.arange(len(u)) == np.argmin(u) for name, u in worth.items()}
    for name, mask in gone.items():
        np.testing.assert_array_equal(ages[name] == 0.0, mask, err_msg=name)
    # Outgoing weights of all that goes are 0, incoming ones drawn after that.
    expected: Any = jax.tree.map(np.array, left.net.params)
    for unit in net.units:
        for name in unit.outgoing:
            expected[name]["kernel"][..., gone[unit.name], :] = 0.0
    stats: Any = jax.tree.map(np.array, left.net.stats)
    for unit in net.units:
        mask = gone[unit.name]
        for name in unit.incoming:
            new = np.asarray(found.net.params[name]["kernel"])[..., mask]
            old = np.asarray(left.net.params[name]["kernel"])[..., mask]
            assert np.all(np.any(new != old, axis=-2))
            expected[name]["kernel"][..., mask] = new
            expected[name]["bias"][mask] = expected[name]["shift"][mask] = 0.0
            expected[name]["scale"][mask] = 1.0
            stats[name]["mean"][mask], stats[name]["var"][mask] = 0.0, 1.0
    chex.assert_trees_all_close(found.net.params, expected, rtol=1e-6, atol=1e-7)
    chex.assert_trees_all_close(found.net.stats, stats, rtol=1e-6, atol=1e-7)
