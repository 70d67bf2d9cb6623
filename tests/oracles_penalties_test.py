"""The numpy oracles of regularisers against facts worked out by hand."""

import numpy as np
import pytest

from tests.oracle_setting import (
    agrees,
    central_differences,
    close,
    leaf,
    network,
    sgd,
    still,
    zeros,
)
from tests.reference import (
    l2_init,
    parseval,
    spectral,
    wasserstein,
)
from tests.reference.mlp import map_params


@pytest.mark.parametrize("convention", ["paper", "code"])
@pytest.mark.parametrize("norm", ["l1", "l2", "huber"])
def test_l2_init_gradient_by_differences(convention, norm):
    params, reference = network(1, norm=True), network(2, norm=True)
    options = {"strength": 0.3, "convention": convention, "norm": norm, "delta": 0.2}
    numeric = central_differences(
        lambda p: l2_init.penalty(p, reference, **options), params
    )
    agrees(l2_init.gradient(params, reference, **options), numeric)
    assert not numeric["h1"]["scale"].any() and numeric["h1"]["bias"].any()


def test_l2_init_step_by_hand():
    # theta - theta_0 = 2, lambda = .5: gradient 2 (paper) or 1 (code); g = 1.
    args = leaf(3.0), leaf(1.0), {}, leaf(1.0)
    for convention, expected in (("paper", 3 - 0.1 * 3), ("code", 3 - 0.1 * 2)):
        params, _, _ = l2_init.step(
            *args, optimizer=sgd, strength=0.5, convention=convention
        )
        assert params["head"]["kernel"][0, 0] == pytest.approx(expected)


def test_l2_init_starts_from_a_copy():
    params = network()
    reference = l2_init.init(params)
    params["h1"]["kernel"][0, 0] += 1
    assert reference["h1"]["kernel"][0, 0] != params["h1"]["kernel"][0, 0]


def test_wasserstein_gradient_by_differences():
    params, reference = network(1), network(2)
    numeric = central_differences(
        lambda p: wasserstein.penalty(p, reference, strength=0.3), params
    )
    agrees(wasserstein.gradient(params, reference, strength=0.3), numeric)


def test_wasserstein_by_hand_joins_kernel_and_bias():
    # sorted now (-1, 2), before (0, 5): (-1 - 0)^2 + (2 - 5)^2 = 10. The kernel -1
    # is pulled to 0 and the bias 2 to 5, although each began as the other.
    now, before = leaf(-1.0, 2.0), leaf(5.0, 0.0)
    assert wasserstein.penalty(now, before, strength=1) == pytest.approx(10)
    grads = wasserstein.gradient(now, before, strength=1)
    close(grads, leaf(-2.0, -6.0))


def test_wasserstein_ignores_a_permutation_of_a_layer():
    params = network()
    shuffled = map_params(np.copy, params)
    shuffled["h1"]["kernel"] = params["h1"]["kernel"][::-1, ::-1]
    assert wasserstein.penalty(shuffled, params, strength=1) == 0
    moved, _, _ = wasserstein.step(
        shuffled, zeros(params), {}, params, optimizer=sgd, strength=1
    )
    close(moved, shuffled)


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("norm_form", ["power", "squared"])
def test_spectral_gradient_by_differences(k, norm_form):
    """u and v are constants of the gradient, so they are frozen in the differences."""
    params = network(1, norm=True)
    vectors = spectral.init(params, np.random.default_rng(3))
    options = {"strength": 0.3, "k": k, "norm_form": norm_form}
    grads, after = spectral.gradient(params, vectors, **options)
    fixed = {
        name: spectral.power_iteration(spectral.matrix(m["kernel"]), vectors[name])[1:]
        for name, m in params.items()
    }

    def frozen(p):
        total = spectral.penalty(p, vectors, **options)
        for name, layer in p.items():
            w = spectral.matrix(layer["kernel"])
            u, v = fixed[name]
            sigma, _, _ = spectral.power_iteration(w, vectors[name])
            total += 0.3 * ((u @ w @ v) ** k - 1) ** 2 - 0.3 * (sigma**k - 1) ** 2
        return total

    agrees(grads, central_differences(frozen, params, 1e-5))
    close(after, {name: v for name, (_, v) in fixed.items()})


def test_spectral_converges_to_the_largest_singular_value():
    params = network()
    vectors = spectral.init(params, np.random.default_rng(3))
    for _ in range(200):
        params, _, vectors = spectral.step(
            params, zeros(params), {}, vectors, optimizer=still, strength=1e-4
        )
    for name, layer in params.items():
        w = spectral.matrix(layer["kernel"])
        _, s, vt = np.linalg.svd(w)
        sigma, _, v = spectral.power_iteration(w, vectors[name])
        assert sigma == pytest.approx(s[0], rel=1e-8)
        assert abs(v @ vt[0]) == pytest.approx(1, rel=1e-8)


def test_spectral_by_hand():
    # sigma = 2: (4 - 1)^2 = 9; bias norm 1 -> 1. d/dw = 2 * 3 * 2 * 2 = 24; d/db = 4.
    params, vectors = leaf(2.0, 1.0), {"head": np.array([1.0])}
    assert spectral.penalty(params, vectors, strength=1) == pytest.approx(10)
    close(spectral.gradient(params, vectors, strength=1)[0], leaf(24.0, 4.0))


@pytest.mark.parametrize("width_scaling", [False, True])
def test_parseval_gradient_by_differences(width_scaling):
    params = network(1)
    options = {"strength": 1e-3, "s": 2.0, "width_scaling": width_scaling}
    numeric = central_differences(lambda p: parseval.penalty(p, **options), params)
    agrees(parseval.gradient(params, **options), numeric)
    assert not numeric["head"]["kernel"].any() and numeric["h2"]["kernel"].any()


def test_parseval_is_zero_at_its_goal_and_scales_with_width():
    rows, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))
    params = {
        "h1": {"kernel": np.sqrt(2) * rows[:3].T, "bias": np.ones(3)},
        "head": {"kernel": np.ones((3, 1)), "bias": np.ones(1)},
    }
    assert parseval.penalty(params, strength=1) == pytest.approx(0, abs=1e-12)
    # W W^T - I = I: squared norm 3, times (64 / 3)^2.
    one = parseval.penalty(params, strength=1, s=1, width_scaling=True)
    assert one == pytest.approx(3 * (64 / 3) ** 2)
