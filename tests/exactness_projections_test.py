"""Projections and clipping against the numpy oracles, step by step."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.methods import backprop, nap, weight_clipping
from cl_bench.networks import mlp
from cl_bench.types import Clock
from tests import tiny
from tests.exactness_setting import NET, OPTIMIZERS, close
from tests.reference import nap as oracle_nap
from tests.reference import weight_clipping as oracle_clipping
from tests.regularisers_setting import assert_it_matters, compare, layers, made

NO_SIGNALS: Any = None


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("last", [False, True])
def test_weight_clipping(optimizer, last):
    method = made(weight_clipping, optimizer, zeta=0.7, clip_last_layer=last)

    def move(params, grads, opt, own):
        params, opt = oracle_clipping.step(
            params, grads, opt, optimizer=OPTIMIZERS[optimizer][1],
            zeta=0.7, clip_last=last,
        )  # fmt: skip
        return params, opt, own

    assert_it_matters(compare(method, optimizer, lambda params: None, move), optimizer)


def test_weight_clipping_of_norms_and_convolutions():
    params = layers(0)
    clip = weight_clipping.clip_weights(NET, weight_clipping.Hyper(zeta=0.4))
    state = NET.init(tiny.KEY)._replace(params=jax.tree.map(jnp.asarray, params))
    found, _, _ = clip.update(tiny.KEY, tiny.clock(0), NO_SIGNALS, state, ())
    expected = oracle_clipping.clip(params, zeta=0.4)
    close(found.params, jax.tree.map(np.float32, expected))


NORMED = mlp.make(tiny.SPEC, widths=(8, 6), norm="layer")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("period", [1, 3])
def test_nap(optimizer, period):
    method = made(nap, optimizer, net=NORMED, period=period)
    move = partial(
        oracle_nap.step,
        optimizer=OPTIMIZERS[optimizer][1],
        period=period,
        remove_bias=True,
    )
    learners = compare(method, optimizer, oracle_nap.init, move, norm="layer")
    assert_it_matters(learners, optimizer, NORMED)


def test_nap_without_projections_is_backprop_without_biases_bit_by_bit():
    """Op by op, from the first forward pass on; the initial biases are not 0."""
    net = mlp.make(tiny.SPEC, widths=(8, 6), norm="layer", init="pytorch")
    method = made(nap, "adam", net=net, period=2**31 - 1)
    plain = made(backprop, "adam", net=net)
    found, expected = method.init(tiny.KEY), plain.init(tiny.KEY)
    assert np.abs(expected.net.params["h1"]["bias"]).max() > 0.1
    params = dict(expected.net.params)
    for name in ("h1", "h2"):
        params[name] = {**params[name], "bias": 0 * params[name]["bias"]}
    expected = expected._replace(net=expected.net._replace(params=params))
    chex.assert_trees_all_equal(found.net, expected.net)
    for i in range(3):
        batch = jax.tree.map(jnp.asarray, tiny.at(tiny.batches(3), i))
        at = tiny.step_key(i), tiny.clock(i), batch
        found, _ = method.step(*at, found)
        expected, _ = plain.step(*at, expected)
        params = dict(expected.net.params)
        assert np.abs(params["h1"]["bias"]).max() > 1e-3
        for name in ("h1", "h2"):
            params[name] = {**params[name], "bias": 0 * params[name]["bias"]}
        expected = expected._replace(net=expected.net._replace(params=params))
    chex.assert_trees_all_equal(found.net, expected.net)
    chex.assert_trees_all_equal(found.opt, expected.opt)


def test_nap_projects_what_is_in_use():
    net = mlp.make(tiny.SPEC, widths=(8, 6), norm="layer", spare_units=3)
    method = made(nap, "sgd", net=net)
    norms = method.init(tiny.KEY).extra["transform_0"]
    np.testing.assert_allclose(
        [norms["h1"].affine, norms["h2"].affine], [8**0.5, 6**0.5]
    )
    kernel = np.asarray(net.init(tiny.KEY).params["h2"]["kernel"])[:8, :6]
    np.testing.assert_allclose(norms["h2"].kernel, np.linalg.norm(kernel), rtol=1e-6)


def test_a_period_counts_the_steps_of_the_run():
    transform = nap._project(NORMED, nap.Hyper(period=3))
    state = NORMED.init(tiny.KEY)
    own = transform.init(state)
    state = state._replace(params=jax.tree.map(lambda p: 2 * p, state.params))
    for step, scale in [(0, 2.0), (1, 2.0), (2, 1.0), (5, 1.0)]:
        clock = Clock(jnp.int32(step), jnp.int32(0), jnp.int32(step))
        found, _, _ = transform.update(tiny.KEY, clock, NO_SIGNALS, state, own)
        close(found.params["h1"]["scale"], jnp.full(8, scale))
