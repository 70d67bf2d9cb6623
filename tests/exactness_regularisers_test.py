"""Regularisers, projections and clipping against the numpy oracles, step by step."""

from functools import cache, partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.methods import (
    backprop,
    l2_init,
    nap,
    parseval,
    spectral,
    wasserstein,
    weight_clipping,
)
from cl_bench.methods._compose import LOSS_KEY
from cl_bench.networks import mlp
from cl_bench.types import Clock, Learner, Network
from tests import tiny
from tests.reference import l2_init as oracle_l2_init
from tests.reference import mlp as oracle_mlp
from tests.reference import nap as oracle_nap
from tests.reference import optimizers as oracle
from tests.reference import parseval as oracle_parseval
from tests.reference import spectral as oracle_spectral
from tests.reference import wasserstein as oracle_wasserstein
from tests.reference import weight_clipping as oracle_clipping

STEPS = 50
NET = mlp.make(tiny.SPEC, widths=(8, 6), init="pytorch")  # biases that are not 0
HYPER = {"beta1": 0.8, "beta2": 0.99, "epsilon": 1e-6, "step_size": 0.01}
ADAM = {"b1": 0.8, "b2": 0.99, "eps": 1e-6}
OPTIMIZERS = {
    "sgd": (oracle.init_sgd, partial(oracle.sgd, step_size=0.01)),
    "adam": (oracle.init_adam, partial(oracle.adam, step_size=0.01, **ADAM)),
}
NO_SIGNALS: Any = None
close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=2e-6)


def compare(method, optimizer, start, step, norm="none"):
    """`step(params, grads, opt, own) -> params, opt, own`, from `start(params)`."""
    data = tiny.batches(STEPS)
    first, learners, _ = tiny.run(method, data)
    params = oracle_mlp.cast(first.net.params)
    opt, own, rows = OPTIMIZERS[optimizer][0](params), start(params), []
    for i in range(STEPS):
        _, _, grads = oracle_mlp.loss_and_grads(params, data.x[i], data.y[i], norm=norm)
        params, opt, own = step(params, grads, opt, own)
        rows.append(params)
    expected = jax.tree.map(lambda *p: np.stack(p).astype(np.float32), *rows)
    close(learners.net.params, expected)
    return learners


def made(module: Any, optimizer: str, net: Network = NET, **settings: Any):
    hyper = module.Hyper(**HYPER, optimizer=optimizer, **settings)
    return module.make(net, tiny.SPEC, hyper)


@cache
def plain(optimizer, net=NET):
    """The last parameters of backprop on the same data."""
    _, learners, _ = tiny.run(made(backprop, optimizer, net), tiny.batches(STEPS))
    return tiny.at(learners.net.params, -1)


def assert_it_matters(learners, optimizer, net=NET):
    """The last parameters are not those of backprop."""
    pairs = zip(
        jax.tree.leaves(tiny.at(learners.net.params, -1)),
        jax.tree.leaves(plain(optimizer, net)),
        strict=True,
    )
    assert max(np.abs(a - b).max() for a, b in pairs) > 1e-3


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


def layers(seed, biases=0.5):
    """Parameters with every leaf, and a convolution, far from neutral ones."""
    rng = np.random.default_rng(seed)
    shapes = {"h1": (3, 2, 2, 5), "h2": (5, 4), "head": (4, 3)}
    params = {}
    for name, shape in shapes.items():
        params[name] = {"kernel": 0.3 * rng.normal(size=shape)}
        params[name]["bias"] = biases * rng.normal(size=shape[-1])
        if name != "head":
            params[name]["scale"] = 1 + 0.2 * rng.normal(size=shape[-1])
            params[name]["shift"] = 0.2 * rng.normal(size=shape[-1])
    return jax.tree.map(np.float32, params)


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
    """Op by op: what is left of the method, and why no setting of it is neutral."""
    method = made(nap, "adam", net=NORMED, period=2**31 - 1)
    plain = made(backprop, "adam", net=NORMED)
    found, expected = method.init(tiny.KEY), plain.init(tiny.KEY)
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


def test_a_period_counts_the_steps_of_the_run():
    transform = nap._project(NORMED, 3)
    state = NORMED.init(tiny.KEY)
    own = transform.init(state)
    state = state._replace(params=jax.tree.map(lambda p: 2 * p, state.params))
    for step, scale in [(0, 2.0), (1, 2.0), (2, 1.0), (5, 1.0)]:
        clock = Clock(jnp.int32(step), jnp.int32(0), jnp.int32(step))
        found, _, _ = transform.update(tiny.KEY, clock, NO_SIGNALS, state, own)
        close(found.params["h1"]["scale"], jnp.full(8, scale))
