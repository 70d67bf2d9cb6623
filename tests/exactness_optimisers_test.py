"""UPGD, TRAC, noise, soft shrink-and-perturb, equal betas against the numpy oracles."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from cl_bench import noise, units
from cl_bench.methods import (
    adam_equal_betas,
    backprop,
    noise_injection,
    shrink_perturb,
    soft_shrink_perturb,
    trac,
    upgd,
)
from cl_bench.networks import mlp
from tests import tiny
from tests.reference import adam_equal_betas as oracle_adam
from tests.reference import mlp as oracle_mlp
from tests.reference import noise_injection as oracle_noise
from tests.reference import optimizers as oracle
from tests.reference import soft_shrink_perturb as oracle_soft
from tests.reference import trac as oracle_trac
from tests.reference import upgd as oracle_upgd

STEPS = 50
NET = mlp.make(tiny.SPEC, widths=(8, 6), init="pytorch")
HYPER = {"beta1": 0.8, "beta2": 0.99, "epsilon": 1e-6, "step_size": 0.01}
ADAM = {"b1": 0.8, "b2": 0.99, "eps": 1e-6}
OPTIMIZERS = {
    "sgd": (oracle.init_sgd, partial(oracle.sgd, step_size=0.01)),
    "adam": (oracle.init_adam, partial(oracle.adam, step_size=0.01, **ADAM)),
}
close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=2e-6)


def compare(method, start, step, steps=STEPS, close=close):
    """`step(i, params, grads, own) -> params, own`, from `start(params)`."""
    data = tiny.batches(steps)
    first, learners, _ = tiny.run(method, data)
    params = oracle_mlp.cast(first.net.params)
    own, rows = start(params), []
    for i in range(steps):
        _, _, grads = oracle_mlp.loss_and_grads(params, data.x[i], data.y[i])
        params, own = step(i, params, grads, own)
        rows.append(params)
    expected = jax.tree.map(lambda *p: np.stack(p).astype(np.float32), *rows)
    close(learners.net.params, expected)
    return learners, own


def drawn(make, at, steps=STEPS):
    """What a method draws from stream `at` of its key, stacked over the steps."""
    draw = jax.vmap(lambda i: make(jax.random.fold_in(tiny.step_key(i), at)))
    values = tiny.quick_jit(draw)(np.arange(steps, dtype=np.int32))
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), values)


def drawn_noise(kind):
    shapes = NET.init(tiny.KEY).params
    return drawn(lambda key: noise.normal_like(key, shapes, kind), 1)


@pytest.mark.parametrize(("kind", "beta"), [("exact", 0.9999), ("pooled", 0.9)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"protect": False},
        {"scope": "local"},
        {"scope": "local", "protect": False, "ada": True},
        {"ada": True},
    ],
    ids=["upgd", "unprotected", "local", "local unprotected ada", "ada"],
)
def test_upgd(options, beta, kind):
    settings = {"noise_std": 0.1, "beta_utility": beta, "shrink": 0.01}
    hyper = upgd.Hyper(**HYPER, **settings, **options, noise=kind)
    xi = drawn_noise(kind)

    def move(i, params, grads, own):
        return oracle_upgd.step(
            params, grads, own, tiny.at(xi, i), step_size=0.01, noise_std=0.1,
            beta=beta, weight_decay=0.01, kind=options.get("scope", "global"),
            protecting=options.get("protect", True),
            adaptive=options.get("ada", False), **ADAM,
        )  # fmt: skip

    compare(upgd.make(NET, tiny.SPEC, hyper), oracle_upgd.init, move)


def gated(grads, params, step=0, **settings):
    """What UPGD makes of one gradient with noise and decay off."""
    hyper = upgd.Hyper(noise_std=0.0, shrink=0.0, beta_utility=0.9, **settings)
    transform = upgd.gate(hyper)
    state = NET.init(tiny.KEY)._replace(params=params)
    return transform.update(
        tiny.KEY, tiny.clock(step), grads, state, transform.init(state)
    )[0]


@pytest.mark.parametrize("sign", [1.0, 0.0])
def test_upgd_without_a_useful_weight_gates_all_alike(sign):
    params = jax.tree.map(jnp.abs, NET.init(tiny.KEY).params)
    grads = jax.tree.map(lambda p: sign * p, params)  # every utility is -g w <= 0
    close(gated(grads, params), jax.tree.map(lambda g: 0.5 * g, grads))


def test_upgd_local_has_one_norm_a_unit():
    kernel = jnp.asarray(
        np.random.default_rng(0).normal(size=(3, 2, 4, 5)), jnp.float32
    )
    tree = {"c": {"kernel": kernel}}
    found = upgd._one_minus_utility(tree, jnp.float32(0.1), "local")["c"]["kernel"]
    norm = np.sqrt(np.square(kernel).sum((0, 1, 2)))
    np.testing.assert_allclose(found, special.expit(-kernel / norm), rtol=1e-5)


@pytest.mark.parametrize("kind", noise.KINDS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_noise_injection(optimizer, kind):
    hyper = noise_injection.Hyper(
        **HYPER, optimizer=optimizer, noise_std=0.1, noise=kind
    )
    xi, (start, update) = drawn_noise(kind), OPTIMIZERS[optimizer]

    def move(i, params, grads, own):
        return oracle_noise.step(
            params, grads, own, tiny.at(xi, i), optimizer=update, noise_std=0.1
        )

    compare(noise_injection.make(NET, tiny.SPEC, hyper), start, move)


def test_no_noise_reaches_the_moments_of_what_is_not_in_use():
    """Two dead units a layer and every third edge of h2 forbidden, Adam, three steps."""
    net = mlp.make(tiny.SPEC, widths=(8, 6), spare_units=2)
    forbidden = np.arange(80).reshape(10, 8) % 3 == 0
    unused = jax.tree.map(lambda p: np.zeros(p.shape, bool), net.init(tiny.KEY).params)
    for name, alive, reader in (("h1", 8, "h2"), ("h2", 6, "head")):
        unused[name]["kernel"][:, alive:] = unused[name]["bias"][alive:] = True
        unused[reader]["kernel"][alive:] = True
    unused["h2"]["kernel"] |= forbidden
    settings = {**HYPER, "optimizer": "adam", "noise_std": 0.1}
    for module, others in (
        (noise_injection, {}),
        (shrink_perturb, {"variant": "upgd", "shrink": 0.1}),
    ):
        method = module.make(net, tiny.SPEC, module.Hyper(**settings, **others))

        def init(key, method=method):
            learner = method.init(key)
            edges = {"h2": jnp.asarray(~forbidden)}
            return units.constrain(
                learner._replace(net=learner.net._replace(edges=edges)), net.units
            )

        _, learners, _ = tiny.run(method._replace(init=init), tiny.batches(3))
        found = tiny.moments(tiny.at(learners.opt, -1))
        for moments in (found["m"], found["v"]):
            chex.assert_trees_all_equal(jax.tree.map(lambda m: m == 0, moments), unused)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_soft_shrink_perturb(optimizer):
    hyper = soft_shrink_perturb.Hyper(**HYPER, optimizer=optimizer, shrink=0.02)
    fresh = drawn(lambda key: NET.init(key).params, 2)
    start, update = OPTIMIZERS[optimizer]

    def move(i, params, grads, own):
        new = tiny.at(fresh, i)
        return oracle_soft.step(params, grads, own, new, optimizer=update, shrink=0.02)

    compare(soft_shrink_perturb.make(NET, tiny.SPEC, hyper), start, move)


def test_adam_with_equal_betas():
    hyper = adam_equal_betas.Hyper(step_size=0.01, beta=0.9, epsilon=1e-6)

    def move(i, params, grads, own):
        return oracle_adam.step(params, grads, own, step_size=0.01, beta=0.9, eps=1e-6)

    method = adam_equal_betas.make(NET, tiny.SPEC, hyper)
    compare(method, oracle_adam.init, move)


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
    """At 1e-8 weights move by less than the tolerance, at the others by 3 % and more."""
    settings = {**HYPER, "step_size": step_size}
    hyper = trac.Hyper(**settings, optimizer=optimizer, small=small)
    start, update = OPTIMIZERS[optimizer]
    update = partial(update, step_size=step_size)

    def begin(params):
        return start(params), oracle_trac.init(params, eps=small)

    def move(i, params, grads, own):
        opt, state = own
        params, opt, state = oracle_trac.step(
            params, grads, opt, state, optimizer=update, eps=small
        )
        return params, (opt, state)

    method = trac.make(NET, tiny.SPEC, hyper)
    learners, (_, last) = compare(method, begin, move)
    found = tiny.at(learners.opt, -1)
    for name, value in {"variance": "v", "sigma": "sigma", "scale": "s"}.items():
        np.testing.assert_allclose(
            getattr(found, name), last[value], rtol=1e-3, err_msg=name
        )
    scales = learners.opt.scale.sum(axis=1)
    assert scales.max() > 2 * scales[0] or scales.min() < scales[0] / 1.5  # it tunes
    if small > 1e-8:
        assert share_moved(method.init(tiny.KEY).net.params, learners.net.params) > 0.03


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


def test_what_is_refused_names_what_would_work():
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (upgd, {"scope": "layer"}, "none of global, local"),
        (upgd, {"noise": "none"}, "none of exact, pooled"),
        (upgd, {"optimizer": "adam"}, "ada=True"),
        (noise_injection, {"noise": "none"}, "none of exact, pooled"),
        (adam_equal_betas, {"optimizer": "sgd"}, "one of adam, adamw"),
    ]
    for module, settings, message in cases:
        with pytest.raises(ValueError, match=message):
            module.make(NET, tiny.SPEC, module.Hyper(**settings))
