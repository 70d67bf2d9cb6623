"""Bayesian gradient descent: the oracle over 50 steps, its limits, bad input."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import noise
from cl_bench.methods import backprop, bgd
from cl_bench.networks import mlp
from tests import tiny
from tests.reference import bgd as oracle
from tests.reference import mlp as oracle_mlp

STEPS = 50
NET = mlp.make(tiny.SPEC, widths=(8, 6))
close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=2e-6)


def problem():
    """Learnable labels, and padding in every third batch."""
    data = tiny.batches(STEPS)
    weight = data.weight.copy()
    weight[::3, 1] = 0.0
    y = data.x[..., : tiny.OUTPUTS].argmax(-1).astype(np.int32)
    return data._replace(y=y, weight=weight)


DATA = problem()


def draws_of(params, hyper):
    """The eps of every step, as the method draws them: leaves [STEPS, draws, ...]."""

    def of_step(i):
        key = jax.random.fold_in(tiny.step_key(i), 1)
        keys = jax.random.split(key, hyper.monte_carlo)
        draw = lambda k: noise.normal_like(jax.random.split(k)[0], params, hyper.noise)
        return jax.lax.map(draw, keys)

    every = tiny.quick_jit(lambda steps: jax.lax.map(of_step, steps))
    return oracle_mlp.cast(every(jnp.arange(STEPS)))


@pytest.mark.parametrize(
    "settings",
    [
        {"sigma_init": 0.1, "monte_carlo": 4},
        {"sigma_init": 0.3, "step_size": 2.0, "monte_carlo": 3, "noise": "pooled"},
        {"sigma_init": 0.5, "gradients": "mean", "monte_carlo": 2},
    ],
)
def test_fifty_steps_beside_the_oracle(settings):
    hyper = bgd.Hyper(**settings)
    first, learners, _ = tiny.run(bgd.make(NET, tiny.SPEC, hyper), DATA)
    mu = oracle_mlp.cast(first.net.params)
    sigma = oracle_mlp.map_params(lambda m: np.full_like(m, hyper.sigma_init), mu)
    draws = draws_of(first.net.params, hyper)
    for i in range(STEPS):
        eps = [tiny.at(tiny.at(draws, i), j) for j in range(hyper.monte_carlo)]
        mu, sigma = oracle.step(
            mu, sigma, eps, DATA.x[i], DATA.y[i], DATA.weight[i],
            eta=hyper.step_size, gradients=hyper.gradients,
        )  # fmt: skip
        found = tiny.at(learners, i)
        close(found.net.params, jax.tree.map(np.float32, mu))
        close(found.extra["sigma"], jax.tree.map(np.float32, sigma))
    spread = np.concatenate([s.ravel() for s in jax.tree.leaves(sigma)])
    assert spread.min() < 0.9 * hyper.sigma_init  # the run did move the spreads


def test_the_spread_by_hand():
    """a = sigma E[g eps] / 2 = 3/4: sqrt(1 + a^2) - a = 1/2; at -3/4 it is 2."""
    sigma = jnp.float32(0.5)
    close(bgd.new_sigma(sigma, jnp.float32(3.0)), np.float32(0.25))
    close(bgd.new_sigma(sigma, jnp.float32(-3.0)), np.float32(1.0))
    close(bgd.new_sigma(sigma, jnp.float32(0.0)), sigma)


def test_a_spread_never_reaches_0():
    """a = 10^5: sqrt(1 + a^2) - a = 1 / 2a, and 0 if the difference is taken."""
    found = bgd.new_sigma(jnp.float32(0.5), jnp.float32(4e5))
    close(found, np.float32(0.5 / 2e5), atol=0.0)


def test_what_no_example_uses_keeps_its_mean_and_its_spread():
    x = DATA.x.copy()
    x[..., :3] = 0.0
    hyper = bgd.Hyper(sigma_init=0.1)
    first, learners, _ = tiny.run(bgd.make(NET, tiny.SPEC, hyper), DATA._replace(x=x))
    last = tiny.at(learners, -1)
    sigma = last.extra["sigma"]["h1"]["kernel"]
    np.testing.assert_array_equal(sigma[:3], np.float32(0.1))
    np.testing.assert_array_equal(
        last.net.params["h1"]["kernel"][:3], first.net.params["h1"]["kernel"][:3]
    )
    assert np.any(sigma[3:] != np.float32(0.1))


def test_without_spread_it_is_gradient_descent():
    """sigma to 0 with eta sigma^2 = 0.1: sigma stands still, and theta is mu."""
    sigma = 1e-4
    hyper = bgd.Hyper(
        sigma_init=sigma, step_size=0.1 / sigma**2, gradients="mean", monte_carlo=2
    )
    _, found, signals = tiny.run(bgd.make(NET, tiny.SPEC, hyper), DATA)
    plain = backprop.make(NET, tiny.SPEC, backprop.Hyper(step_size=0.1))
    _, expected, theirs = tiny.run(plain, DATA)
    chex.assert_trees_all_close(
        found.net.params, expected.net.params, rtol=1e-2, atol=2e-3
    )
    np.testing.assert_allclose(signals.loss, theirs.loss, rtol=1e-2, atol=2e-3)


def test_it_predicts_and_is_seen_with_the_mean():
    method = bgd.make(NET, tiny.SPEC, bgd.Hyper(sigma_init=0.5, monte_carlo=2))
    learner = method.init(tiny.KEY)
    batch = jax.tree.map(jnp.asarray, tiny.at(DATA, 0))
    step = tiny.quick_jit(method.step)
    _, signals = step(tiny.step_key(0), tiny.clock(0), batch, learner)
    logits, _, _ = NET.apply(learner.net, batch.x, train=False, key=None)
    chex.assert_trees_all_close(method.predict(learner, batch)[0], logits)
    close(signals.logits, logits)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gradients": "total"}, "sum, mean"),
        ({"noise": "none"}, "exact, pooled"),
        ({"monte_carlo": 0}, "at least 1 sample"),
        ({"optimizer": "adam"}, "leave 'sgd'"),
    ],
)
def test_options_that_do_not_exist_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        bgd.make(NET, tiny.SPEC, bgd.Hyper(**settings))


def test_a_norm_with_a_backward_pass_of_its_own_is_refused():
    net = mlp.make(tiny.SPEC, widths=(8,), norm="online")
    with pytest.raises(ValueError, match="norm 'layer' or 'batch' works"):
        bgd.make(net, tiny.SPEC, bgd.Hyper())
