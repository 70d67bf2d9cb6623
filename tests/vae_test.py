"""The variational autoencoder: its loss, its gradient, what it draws, bad input."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.methods import _vae
from tests import tiny
from tests.oracle_setting import agrees, central_differences
from tests.reference import mlp as oracle_mlp
from tests.reference import vae as oracle

D, HIDDEN, Z, B = 5, (7, 6), 3, 4
close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=1e-6)
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.uniform(size=(B, D)), jnp.float32)
EPS = jnp.asarray(RNG.normal(size=(B, Z)), jnp.float32)
SHARE = np.array([0.5, 0.0, 1.0, 2.0])
PARAMS = _vae.init(tiny.KEY, D, HIDDEN, Z)


@pytest.mark.parametrize("decoder", _vae.DECODERS)
def test_the_oracle_s_gradient_is_that_of_its_loss(decoder):
    params = oracle_mlp.cast(PARAMS)
    numeric = central_differences(
        lambda p: SHARE @ oracle.losses(p, X, EPS, decoder), params
    )
    agrees(oracle.gradient(params, X, EPS, SHARE, decoder), numeric)


@pytest.mark.parametrize("decoder", _vae.DECODERS)
def test_loss_and_gradient_beside_the_oracle(decoder):
    def total(params):
        each = _vae.negative_elbo(params, X, EPS, decoder)
        return jnp.sum(each * SHARE), each

    grads, each = tiny.quick_jit(jax.grad(total, has_aux=True))(PARAMS)
    params = oracle_mlp.cast(PARAMS)
    close(each, oracle.losses(params, X, EPS, decoder).astype(np.float32))
    expected = oracle.gradient(params, X, EPS, SHARE, decoder)
    close(grads, jax.tree.map(np.float32, expected))


def test_the_loss_by_hand():
    """All weights 0: o = 0 and q = N(0, 1), so log 2 an input, and x^2 / 2."""
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    close(
        _vae.negative_elbo(zero, X, EPS, "bernoulli"),
        np.full(B, D * np.log(2.0), np.float32),
    )
    close(_vae.negative_elbo(zero, X, EPS, "gaussian"), (X**2).sum(axis=1) / 2)


def test_a_wider_posterior_costs_its_divergence():
    """log_var = 1, mean 2: KL = (4 + e - 1 - 1) / 2 for each of Z."""
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    zero["log_var"]["bias"] = jnp.ones(Z)
    zero["mean"]["bias"] = jnp.full(Z, 2.0)
    kl = Z * (2 + np.e) / 2
    found = _vae.negative_elbo(zero, X, EPS, "bernoulli")
    close(found, np.full(B, D * np.log(2.0) + kl, np.float32))


@pytest.mark.parametrize("decoder", _vae.DECODERS)
def test_draws_are_the_decoder_s_means(decoder):
    params = jax.tree.map(lambda p: 5.0 * p, PARAMS)
    found = _vae.sample(params, tiny.KEY, 8, decoder)
    z = np.asarray(jax.random.normal(tiny.KEY, (8, Z)))
    expected = oracle.sample(oracle_mlp.cast(params), z, decoder)
    close(found, expected.astype(np.float32), rtol=1e-4)
    assert np.std(expected, axis=0).max() > 0.1  # another z, another input


def test_an_input_out_of_range_is_not_trained_on():
    outside = X.at[1, 2].set(1.5)
    found = _vae.negative_elbo(PARAMS, outside, EPS, "bernoulli")
    np.testing.assert_array_equal(np.isnan(found), [False, True, False, False])
    assert np.all(np.isfinite(_vae.negative_elbo(PARAMS, outside, EPS, "gaussian")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (((8,), 2, "poisson"), "bernoulli, gaussian"),
        (((), 2, "bernoulli"), "at least one hidden layer"),
        (((8, 0), 2, "bernoulli"), "at least one hidden layer"),
        (((8,), 0, "bernoulli"), "at least one hidden layer"),
    ],
)
def test_sizes_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        _vae.check(*settings)
