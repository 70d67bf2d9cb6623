"""UPGD, noise, soft shrink-and-perturb and equal betas against the numpy oracles."""

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
    l2,
    noise_injection,
    shrink_perturb,
    soft_shrink_perturb,
    upgd,
)
from cl_bench.networks import mlp
from tests import tiny
from tests.exactness_setting import ADAM, HYPER, NET, OPTIMIZERS, STEPS, close, compare
from tests.reference import adam_equal_betas as oracle_adam
from tests.reference import noise_injection as oracle_noise
from tests.reference import soft_shrink_perturb as oracle_soft
from tests.reference import upgd as oracle_upgd


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
    """Two dead units a layer and every third edge of h2 forbidden, Adam, three steps.

    Scales of dead units are kept at 1, and no decay of them counts either.
    """
    net = mlp.make(tiny.SPEC, widths=(8, 6), spare_units=2, norm="layer")
    forbidden = np.arange(80).reshape(10, 8) % 3 == 0
    unused = jax.tree.map(lambda p: np.zeros(p.shape, bool), net.init(tiny.KEY).params)
    for name, alive, reader in (("h1", 8, "h2"), ("h2", 6, "head")):
        for leaf in unused[name].values():
            leaf[..., alive:] = True
        unused[reader]["kernel"][alive:] = True
    unused["h2"]["kernel"] |= forbidden
    settings = {**HYPER, "optimizer": "adam"}
    for module, others in (
        (noise_injection, {"noise_std": 0.1}),
        (shrink_perturb, {"variant": "upgd", "shrink": 0.1, "noise_std": 0.1}),
        (l2, {"strength": 0.1}),
        (backprop, {"coupled_decay": True, "weight_decay": 0.1}),
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
