"""TRAC against the numpy oracle, and its parts by hand."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from cl_bench import units
from cl_bench.methods import backprop, trac
from tests import tiny
from tests.exactness_setting import HYPER, NET, OPTIMIZERS, compare
from tests.reference import mlp as oracle_mlp
from tests.reference import trac as oracle_trac


def test_erfi_is_scipys_up_to_where_float32_ends():
    x = np.concatenate([np.linspace(-9.1, 9.1, 2001), 10.0 ** np.arange(-30, 1)])
    x = x.astype(np.float32)
    found = jax.jit(trac.erfi)(x)
    np.testing.assert_allclose(found, special.erfi(x.astype(np.float64)), rtol=1e-5)
    small = x[np.abs(x) < 2]
    expected = special.erfi(small.astype(np.float64))
    np.testing.assert_allclose(trac.erfi(jnp.asarray(small)), expected, rtol=1e-6)
    np.testing.assert_array_equal(
        trac.erfi(jnp.array([0.0, 12.0, -40.0])), [0, np.inf, -np.inf]
    )
    assert np.isnan(trac.erfi(jnp.float32(np.nan)))


@pytest.mark.parametrize(
    ("optimizer", "step_size", "small"),
    [
        ("sgd", 0.01, 1e-8),
        ("sgd", 0.1, 0.3),
        ("adam", 0.01, 1e-8),
        ("adam", 0.01, 1e-2),
    ],
)
def test_trac(optimizer, step_size, small):
    """At 1e-8 weights move by less than the tolerance, at the others by 3 % and more.

    The path of the base optimiser, D, does not depend on the scale: it is compared too.
    """
    settings = {**HYPER, "step_size": step_size}
    hyper = trac.Hyper(**settings, optimizer=optimizer, small=small)
    start, update = OPTIMIZERS[optimizer]
    update = partial(update, step_size=step_size)

    def begin(params):
        return start(params), oracle_trac.init(params, eps=small)

    def move(i, params, grads, own):
        opt, state = own
        before = params
        params, opt, state = oracle_trac.step(
            params, grads, opt, state, optimizer=update, eps=small
        )
        total = max(float(np.sum(state["s"])), 0.0)
        paths.append(
            oracle_mlp.map_params(
                lambda p, r: (p - r) / total, params, state["reference"]
            )
        )
        assert before is not params and total > 0
        return params, (opt, state)

    paths: list[Any] = []
    method = trac.make(NET, tiny.SPEC, hyper)
    learners, (_, last) = compare(method, begin, move)
    found = tiny.at(learners.opt, -1)
    for name, value in {"variance": "v", "sigma": "sigma", "scale": "s"}.items():
        np.testing.assert_allclose(
            getattr(found, name), last[value], rtol=1e-3, err_msg=name
        )
    expected = jax.tree.map(lambda *d: np.stack(d).astype(np.float32), *paths)
    chex.assert_trees_all_close(learners.opt.moved, expected, rtol=1e-4, atol=2e-5)
    scales = learners.opt.scale.sum(axis=1)
    assert scales.max() > 2 * scales[0] or scales.min() < scales[0] / 1.5  # it tunes
    if small > 1e-8:
        assert share_moved(method.init(tiny.KEY).net.params, learners.net.params) > 0.03


def test_trac_where_the_benchmark_starts_every_task_with_a_head_of_zeros():
    spec = tiny.SPEC._replace(reset_head=True)
    start, update = OPTIMIZERS["sgd"]
    update = partial(update, step_size=0.1)
    hyper = trac.Hyper(**{**HYPER, "step_size": 0.1}, optimizer="sgd", small=0.3)
    method = trac.make(NET, spec, hyper)

    def init(key):  # as the runner before the first step
        learner = method.init(key)
        return learner._replace(net=units.reset_head(learner.net, NET.head))

    def move(i, params, grads, own):
        params, opt, state = oracle_trac.step(
            params, grads, own[0], own[1], optimizer=update, eps=0.3
        )
        return params, (opt, state)

    learners, _ = compare(
        method._replace(init=init),
        lambda params: (start(params), oracle_trac.init(params, eps=0.3)),
        move,
    )
    assert np.abs(learners.net.params["head"]["kernel"][-1]).max() > 1e-3


def test_trac_does_not_take_a_schedule_of_step_sizes():
    spec = tiny.SPEC._replace(step_schedule=((0.5, 0.1),))
    with pytest.raises(ValueError, match=r"step_schedule=\(\) on the stream works"):
        trac.make(NET, spec, trac.Hyper())


def share_moved(first, path):
    """||theta - theta_0|| / ||theta_0|| at the end of a path of parameters."""
    moved = jax.tree.map(lambda p, q: np.sum((q[-1] - p) ** 2), first, path)
    whole = jax.tree.map(lambda p: np.sum(p**2), first)
    return np.sqrt(sum(jax.tree.leaves(moved)) / sum(jax.tree.leaves(whole)))


def test_trac_takes_weights_that_something_else_moved_as_it_finds_them():
    optim = trac.wrap(oracle_free_sgd(), 1e-3)
    params = {"w": jnp.array([1.0, -2.0])}
    state = optim.init(params)._replace(scale=jnp.full(6, 0.1))
    state = state._replace(moved={"w": jnp.array([0.5, 0.5])})
    moved = {"w": jnp.array([1.3, 0.0])}  # 1 + .6 * .5, and a reset
    found = trac._path(state, moved, jnp.float32(0.6), 1e-3)["w"]
    np.testing.assert_allclose(found, np.array([0.3, 2.0]) / 0.601, rtol=1e-5)


def oracle_free_sgd():
    return backprop.optimizers.make(backprop.Hyper(step_size=0.1))


def test_trac_resets_the_moments_and_not_its_own_copies():
    optim = trac.wrap(backprop.optimizers.make(backprop.Hyper(optimizer="adam")))
    params = {"w": jnp.array([1.0, -2.0])}
    _, state = optim.update({"w": jnp.array([0.3, 0.4])}, optim.init(params), params)
    reset = optim.reset(state, {"w": jnp.array([True, True])}, "moments")
    chex.assert_trees_all_equal(reset._replace(base=()), state._replace(base=()))
    mu = jax.tree.leaves(reset.base)
    assert all(np.all(leaf == 0) for leaf in mu if jnp.ndim(leaf))
