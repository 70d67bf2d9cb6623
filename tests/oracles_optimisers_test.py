"""The numpy oracles of optimisers against facts worked out by hand."""

from typing import Any

import numpy as np
import pytest
from scipy.special import erfi

from tests.oracle_setting import (
    close,
    leaf,
    like,
    network,
    sgd,
    zeros,
)
from tests.reference import (
    adam_equal_betas,
    optimizers,
    shrink_perturb,
    trac,
    upgd,
)
from tests.reference.mlp import map_params


def upgd_once(params, grads, noise=None, **options: Any):
    noise = zeros(params) if noise is None else noise
    options = {"step_size": 0.1, "noise_std": 0.0, **options}
    return upgd.step(params, grads, upgd.init(params), noise, **options)[0]


@pytest.mark.parametrize("kind", ["global", "local"])
@pytest.mark.parametrize("maximum", ["trace", "corrected"])
def test_upgd_with_utility_zero_halves_the_step(kind, maximum):
    """At weights of 0 all utilities are 0 and so is their maximum: S = 1/2."""
    params = zeros(network())
    grads = like(params, 1)
    moved = upgd_once(params, grads, kind=kind, maximum=maximum)
    close(moved, map_params(lambda g: -0.05 * g, grads))


def test_upgd_guard_when_all_utilities_are_negative():
    params = map_params(np.ones_like, network())
    moved = upgd_once(params, params)  # U = -1 everywhere
    close(moved, map_params(lambda p: p - 0.05, params))


def test_upgd_global_by_hand():
    # U = (2, 1): V = .5 U, V_hat = U. Released: V_hat / max V = (2, 1); paper (1, 1/2).
    params, grads = leaf(1.0, 1.0), leaf(-2.0, -1.0)
    for maximum, ratios in (("trace", (2, 1)), ("corrected", (1, 0.5))):
        gate = [1 / (1 + np.exp(r)) for r in ratios]
        moved = upgd_once(params, grads, beta=0.5, maximum=maximum)
        close(moved, leaf(1 + 0.2 * gate[0], 1 + 0.1 * gate[1]))


def test_upgd_local_normalises_over_the_inputs_of_a_unit():
    params = {
        "head": {"kernel": np.array([[3.0, 0.0], [4.0, 2.0]]), "bias": np.zeros(2)}
    }
    grads = map_params(lambda p: -np.ones_like(p), params)
    moved = upgd_once(params, grads, kind="local")
    ratio = np.array([[0.6, 0.0], [0.8, 1.0]])
    close(moved["head"]["kernel"], params["head"]["kernel"] + 0.1 / (1 + np.exp(ratio)))
    close(moved["head"]["bias"], np.full(2, 0.05))


def test_upgd_protecting_gates_the_gradient_too():
    params, noise = zeros(network()), like(network(), 3)
    grads = like(params, 1)
    both = {"noise": noise, "noise_std": 0.4}
    protecting = upgd_once(params, grads, **both)
    close(protecting, map_params(lambda g, x: -0.05 * (g + 0.4 * x), grads, noise))
    free = upgd_once(params, grads, protecting=False, **both)
    close(free, map_params(lambda g, x: -0.1 * (g + 0.2 * x), grads, noise))


def test_upgd_decay_is_not_gated():
    params = network()
    moved = upgd_once(params, zeros(params), weight_decay=0.5)
    close(moved, map_params(lambda p: 0.95 * p, params))


def test_upgd_trace_over_two_steps():
    params, state = leaf(1.0, 1.0), upgd.init(leaf(0.0))
    for g in (-1.0, -3.0):
        params, state = upgd.step(
            params, leaf(g, 0.0), state, leaf(0.0), step_size=0.0, beta=0.5
        )
    assert state["count"] == 2
    close(state["trace"], leaf(0.5 * 0.5 + 0.5 * 3, 0.0))


def test_ada_upgd_first_step_has_unit_length():
    params = zeros(network())
    grads = like(params, 1)
    moved = upgd_once(params, grads, adaptive=True, eps=0.0)
    close(moved, map_params(lambda g: -0.05 * np.sign(g), grads))


def test_non_protecting_upgd_without_noise_is_decayed_sgd():
    params, grads = network(), like(network(), 1)
    moved = upgd_once(params, grads, protecting=False, weight_decay=0.2)
    expected = shrink_perturb.upgd(
        params, grads, zeros(params), step_size=0.1, l2=0.2, noise_std=0
    )
    close(moved, expected)


def test_trac_first_step_is_a_tiny_base_step():
    """Delta = h = v = 0, sigma = beta eps: s = eps erfi(beta) / erfi(1 / sqrt 2)."""
    params, grads = network(), like(network(), 1)
    moved, _, state = trac.step(params, grads, {}, trac.init(params), optimizer=sgd)
    s = 1e-8 * erfi(np.array(trac.BETAS)) / erfi(np.sqrt(0.5))
    close(state["s"], s, atol=0)
    total = s.sum()
    assert 0 < total < 1e-6
    close(
        moved, map_params(lambda p, g: p - total * 0.1 * g, params, grads), atol=1e-15
    )


def test_trac_second_step_by_hand():
    first, grads, ref = leaf(1.5), leaf(-2.0), leaf(1.0)
    state = trac.init(ref, betas=(0.9,)) | {"s": np.array([0.25])}
    moved, _, state = trac.step(
        first, grads, {}, state, optimizer=sgd, betas=(0.9,), eps=1e-8
    )
    delta = 0.5 / (0.25 + 1e-8)
    h = -2 * delta
    sigma = 0.9e-8 - h
    s = 1e-8 / erfi(np.sqrt(0.5)) * erfi(sigma / (np.sqrt(2) * abs(h) + 1e-8))
    close(state["v"], np.array([h**2]))
    close(state["s"], np.array([s]))
    close(moved, leaf(1 + s * (delta + 0.2)))


def test_trac_statistics_are_discounted():
    state = trac.init(leaf(0.0), betas=(0.5,)) | {"v": np.array([4.0])}
    state = trac.tune(state | {"sigma": np.array([6.0])}, -2.0, betas=(0.5,))
    close((state["v"], state["sigma"]), (np.array([5.0]), np.array([5.0])))


def test_trac_goes_back_to_the_reference_when_s_is_negative():
    state = trac.init(leaf(1.0)) | {"s": np.full(6, 0.1)}
    moved, _, state = trac.step(leaf(2.0), leaf(1.0), {}, state, optimizer=sgd)
    assert state["s"].sum() < 0
    close(moved, leaf(1.0))


def test_trac_learns():
    """On (w - 1)^2 / 2 from w = 0 the step size grows until the loss has fallen."""
    params, state, opt = leaf(0.0), trac.init(leaf(0.0)), {}
    for _ in range(300):
        grads = leaf(params["head"]["kernel"][0, 0] - 1)
        params, opt, state = trac.step(params, grads, opt, state, optimizer=sgd)
    assert abs(params["head"]["kernel"][0, 0] - 1) < 0.5


def test_equal_betas_never_step_further_than_alpha():
    rng = np.random.default_rng(0)
    params, unequal = leaf(0.0), leaf(0.0)
    state = adam_equal_betas.init(params)
    other = optimizers.init_adam(unequal)
    lengths, others = [], []
    for t in range(200):
        grads = leaf(rng.normal() if t % 40 else 1000.0, 1e-3 if t < 150 else 1.0)
        new, state = adam_equal_betas.step(params, grads, state, step_size=0.1)
        lengths += [
            np.abs(new["head"][k] - params["head"][k]).max() for k in new["head"]
        ]
        params = new
        new, other = optimizers.adam(unequal, grads, other, step_size=0.1)
        others += [
            np.abs(new["head"][k] - unequal["head"][k]).max() for k in new["head"]
        ]
        unequal = new
    assert max(lengths) <= 0.1 + 1e-12
    assert max(others) > 0.1 + 1e-3
