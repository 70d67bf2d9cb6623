"""Regularisers against the numpy oracles, step by step."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.methods import l2_init, nap, parseval, spectral, wasserstein
from cl_bench.methods._compose import LOSS_KEY
from cl_bench.networks import mlp
from cl_bench.types import Learner
from tests import tiny
from tests.exactness_setting import NET, OPTIMIZERS, close
from tests.reference import l2_init as oracle_l2_init
from tests.reference import parseval as oracle_parseval
from tests.reference import spectral as oracle_spectral
from tests.reference import wasserstein as oracle_wasserstein
from tests.regularisers_setting import assert_it_matters, compare, layers, made


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "settings",
    [
        {"convention": "paper", "norm": "l2"},
        {"convention": "code", "norm": "l2"},
    ],
    ids=["paper", "code"],
)
def test_l2_init(optimizer, settings):
    method = made(l2_init, optimizer, strength=0.3, **settings)
    move = partial(
        oracle_l2_init.step,
        optimizer=OPTIMIZERS[optimizer][1],
        strength=0.3,
        **settings,
    )
    assert_it_matters(compare(method, optimizer, oracle_l2_init.init, move), optimizer)


def test_l2_inits_default_is_the_setting_that_was_tuned():
    """The released code's loss: half of strength ||theta - theta_0||^2, at 1e-2."""
    default = l2_init.Hyper()
    assert (default.strength, default.convention) == (1e-2, "code")


def test_l2_init_towards_an_initialisation_of_every_step():
    method = made(l2_init, "adam", strength=0.3, reference="resampled")

    def move(params, grads, opt, i):
        fresh = NET.init(jax.random.fold_in(tiny.step_key(i), LOSS_KEY)).params
        params, opt, _ = oracle_l2_init.step(
            params, grads, opt, fresh, optimizer=OPTIMIZERS["adam"][1], strength=0.3,
            convention="code",
        )  # fmt: skip
        return params, opt, i + 1

    compare(method, "adam", lambda params: 0, move)
    assert "reference" not in method.init(tiny.KEY).extra


def gradient_of(monkeypatch, module, params, extra, **settings):
    """The penalty's own gradient on any tree of parameters."""
    found = []
    fake = lambda net, spec, optim, penalty, **rest: found.append(penalty)
    monkeypatch.setattr(module, "compose", fake)
    module.make(NET, tiny.SPEC, module.Hyper(strength=0.3, **settings))
    state = NET.init(tiny.KEY)._replace(params=params)
    learner = Learner(state._replace(alive={}, edges=None), (), extra)
    return jax.grad(lambda p: found[0](p, learner))(jax.tree.map(jnp.asarray, params))


@pytest.mark.parametrize("norm", ["l2", "l1", "huber"])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("convention", ["paper", "code"])
def test_l2_init_of_every_kind_of_leaf(monkeypatch, norm, affine, convention):
    params, reference = layers(0), layers(1)
    settings = {"norm": norm, "affine": affine, "huber_delta": 0.2}
    settings["convention"] = convention  # of norm 'l2': the others have one form
    found = gradient_of(
        monkeypatch, l2_init, params, {"reference": reference}, **settings
    )
    skip = () if affine else oracle_l2_init.NORM_LEAVES
    expected = oracle_l2_init.gradient(
        params, reference, strength=0.3, norm=norm, delta=0.2, skip=skip,
        convention=convention,
    )  # fmt: skip
    close(found, jax.tree.map(np.float32, expected))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_wasserstein(optimizer):
    method = made(wasserstein, optimizer, strength=0.3)
    move = partial(
        oracle_wasserstein.step, optimizer=OPTIMIZERS[optimizer][1], strength=0.3
    )
    assert_it_matters(
        compare(method, optimizer, oracle_wasserstein.init, move), optimizer
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("power", [1, 2])
def test_spectral(optimizer, power):
    method = made(spectral, optimizer, strength=0.05, power=power)
    vectors = method.init(tiny.KEY).extra["transform_0"]
    # The method is one iteration ahead, so that what it keeps fits the next weights; a
    # step's own iteration from there is the same, but for one more of them at first.
    right = {name: np.float64(v.right) for name, v in vectors.items()}

    def move(params, grads, opt, own):
        if own is None:  # the first step: the method's vectors as they are
            own, now = right, first_gradient(params, right)
            grads = jax.tree.map(np.add, grads, now)
            return *OPTIMIZERS[optimizer][1](params, grads, opt), own
        return oracle_spectral.step(
            params, grads, opt, own, optimizer=OPTIMIZERS[optimizer][1],
            strength=0.05, k=power,
        )  # fmt: skip

    def first_gradient(params, right):
        grads = oracle_spectral.gradient(params, right, strength=0.05, k=power)[0]
        for name, vector in vectors.items():
            w = oracle_spectral.matrix(params[name]["kernel"])
            u, v = np.float64(vector.left), right[name]
            sigma = u @ w @ v
            factor = 2 * (sigma**power - 1) * power * sigma ** (power - 1)
            grads[name]["kernel"] = 0.05 * factor * np.outer(u, v).T
        return grads

    assert_it_matters(compare(method, optimizer, lambda params: None, move), optimizer)


def test_spectral_of_norms_and_convolutions(monkeypatch):
    params = layers(0)
    before = oracle_spectral.init(params, np.random.default_rng(2))
    vectors = {
        name: spectral.power_iteration(
            jnp.asarray(oracle_spectral.matrix(layer["kernel"]).T),
            spectral.Vectors(jnp.zeros(layer["bias"].shape), jnp.float32(before[name])),
        )
        for name, layer in params.items()
    }
    found = gradient_of(monkeypatch, spectral, params, {"transform_0": vectors})
    expected, after = oracle_spectral.gradient(
        params, before, strength=0.3, norm_form="squared"
    )
    close(found, jax.tree.map(np.float32, expected))
    close({n: v.right for n, v in vectors.items()}, jax.tree.map(np.float32, after))


def test_spectral_finds_the_largest_singular_value_and_survives_zeros():
    w = jnp.asarray(np.random.default_rng(0).normal(size=(7, 5)), jnp.float32)
    at = spectral.Vectors(jnp.zeros(5), jnp.ones(7) / jnp.sqrt(7.0))
    zero = spectral.power_iteration(jnp.zeros((7, 5)), at)
    chex.assert_trees_all_equal(zero, at)
    for _ in range(100):
        at = spectral.power_iteration(w, at)
    sigma = at.right @ w @ at.left
    np.testing.assert_allclose(sigma, np.linalg.norm(w, 2), rtol=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("by_width", [False, True])
def test_parseval(optimizer, by_width):
    strength = 1e-3 if by_width else 0.03
    method = made(
        parseval, optimizer, strength=strength, s=1.5, scale_by_width=by_width
    )

    def move(params, grads, opt, own):
        params, opt = oracle_parseval.step(
            params, grads, opt, optimizer=OPTIMIZERS[optimizer][1],
            strength=strength, s=1.5, width_scaling=by_width,
        )  # fmt: skip
        return params, opt, own

    assert_it_matters(compare(method, optimizer, lambda params: None, move), optimizer)


def test_parseval_of_convolutions(monkeypatch):
    params = layers(0)
    found = gradient_of(monkeypatch, parseval, params, {}, scale_by_width=False)
    expected = oracle_parseval.gradient(params, strength=0.3)
    close(found, jax.tree.map(np.float32, expected))


def test_what_is_refused_names_what_would_work():
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (l2_init, {"convention": "both"}, "none of paper, code"),
        (l2_init, {"norm": "l3"}, "none of l2, l1, huber"),
        (l2_init, {"reference": "last"}, "none of initial, resampled"),
        (spectral, {"power": 0}, "at least 1"),
        (nap, {"period": 0}, "at least 1"),
        (nap, {}, "in h1, h2: give the network norm='layer'"),
    ]
    for module, settings, message in cases:
        with pytest.raises(ValueError, match=message):
            module.make(NET, tiny.SPEC, module.Hyper(**settings))
    linear = mlp.make(tiny.SPEC, widths=())
    hidden: tuple[Any, ...] = (parseval, nap)
    for module in hidden:
        with pytest.raises(ValueError, match="hidden layer"):
            module.make(linear, tiny.SPEC, module.Hyper())
