"""The numpy oracles of the plasticity methods against facts worked out by hand."""

from functools import partial
from typing import Any

import chex
import numpy as np
import pytest
from scipy.special import erfi

from tests.reference import (
    adam_equal_betas,
    dash,
    fire,
    grama,
    hare_tortoise,
    l2_init,
    nap,
    noise_injection,
    optimizers,
    parseval,
    redo,
    resets,
    shrink_perturb,
    snr,
    soft_shrink_perturb,
    spectral,
    trac,
    upgd,
    wasserstein,
    weight_clipping,
)
from tests.reference.mlp import loss_and_grads, map_params, random_params

close = partial(chex.assert_trees_all_close, rtol=1e-10, atol=1e-12)
sgd = partial(optimizers.sgd, step_size=0.1)
adam = partial(optimizers.adam, step_size=0.1)


def still(params, grads, opt_state):
    """An optimiser that does nothing: what a method does by itself."""
    del grads
    return params, opt_state


def network(seed=0, *, norm=False):
    params = random_params(np.random.default_rng(seed), (3, 4, 2, 2))
    if norm:
        rng = np.random.default_rng(seed + 100)
        for name in ("h1", "h2"):
            width = len(params[name]["bias"])
            params[name]["scale"] = 1 + rng.normal(size=width)
            params[name]["shift"] = rng.normal(size=width)
    return params


def like(params, seed):
    rng = np.random.default_rng(seed)
    return map_params(lambda p: rng.normal(size=p.shape), params)


def zeros(params):
    return map_params(np.zeros_like, params)


def leaf(kernel, bias=0.0):
    return {"head": {"kernel": np.array([[kernel]]), "bias": np.array([bias])}}


def central_differences(function, params, width=1e-6):
    """Gradient of function(params) by central differences, one entry at a time."""
    grads = zeros(params)
    for module, leaves in params.items():
        for name, value in leaves.items():
            for i in np.ndindex(value.shape):
                before = value[i]
                value[i] = before + width
                up = function(params)
                value[i] = before - width
                down = function(params)
                value[i] = before
                grads[module][name][i] = (up - down) / (2 * width)
    return grads


agrees = partial(chex.assert_trees_all_close, rtol=1e-6, atol=1e-6)


# ---- penalties


@pytest.mark.parametrize("convention", ["paper", "code"])
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_l2_init_gradient_by_differences(convention, norm):
    params, reference = network(1, norm=True), network(2, norm=True)
    options = {"strength": 0.3, "convention": convention, "norm": norm}
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


# ---- projections and perturbations


def test_weight_clipping_bounds():
    params = map_params(lambda p: 10 * p, network(1, norm=True))
    moved, _ = weight_clipping.step(
        params, zeros(params), {}, optimizer=sgd, zeta=2, clip_last=False
    )
    for name, fan_in in (("h1", 3), ("h2", 4)):
        bound = 2 / np.sqrt(fan_in)
        for key in ("kernel", "bias"):
            expected = np.where(
                np.abs(params[name][key]) <= bound,
                params[name][key],
                np.sign(params[name][key]) * bound,
            )
            close(moved[name][key], expected)
        close(moved[name]["scale"], params[name]["scale"])
    close(moved["head"], params["head"])
    clipped = weight_clipping.clip(params, zeta=2)
    assert np.abs(clipped["head"]["kernel"]).max() == pytest.approx(2 / np.sqrt(2))


def test_weight_clipping_fan_in_of_a_convolution():
    assert weight_clipping.bound(np.zeros((5, 5, 4, 7)), 3) == pytest.approx(0.3)


def test_nap_keeps_initial_norms_and_directions():
    params = network(1, norm=True)
    state = nap.init(params)
    grads = like(params, 7)
    free, _ = sgd(params, grads, {})
    moved, _, state = nap.step(params, grads, {}, state, optimizer=sgd)
    for name in ("h1", "h2"):
        kernel = free[name]["kernel"]
        ratio = np.linalg.norm(params[name]["kernel"]) / np.linalg.norm(kernel)
        close(moved[name]["kernel"], kernel * ratio)
        joint = [
            np.hypot(np.linalg.norm(p[name]["scale"]), np.linalg.norm(p[name]["shift"]))
            for p in (params, free, moved)
        ]
        assert joint[2] == pytest.approx(joint[0])
        close(moved[name]["shift"], free[name]["shift"] * joint[0] / joint[1])
        close(moved[name]["bias"], free[name]["bias"])
    close(moved["head"], free["head"])


def test_nap_projects_every_period_only():
    params = network(1)
    state, grads = nap.init(params), like(params, 7)
    run = partial(nap.step, optimizer=sgd, period=2, remove_bias=True)
    first, _, state = run(params, grads, {}, state)
    close(first["h1"]["kernel"], sgd(params, grads, {})[0]["h1"]["kernel"])
    second, _, _ = run(first, grads, {}, state)
    norm = np.linalg.norm(second["h1"]["kernel"])
    assert norm == pytest.approx(np.linalg.norm(params["h1"]["kernel"]))
    assert not second["h1"]["bias"].any() and second["head"]["bias"].any()


def test_soft_shrink_perturb_by_hand():
    moved, _ = soft_shrink_perturb.step(
        leaf(2.0), leaf(10.0), {}, leaf(5.0, 4.0), optimizer=sgd, shrink=0.25
    )
    close(moved, leaf(0.75 * 1 + 0.25 * 5, 1.0))


def test_noise_injection_is_scaled_by_the_step_size():
    moved, _ = noise_injection.step(
        leaf(1.0), leaf(2.0), {}, leaf(3.0, 1.0), optimizer=sgd, noise_std=0.5
    )
    close(moved, leaf(1 - 0.1 * 3.5, -0.05))


# ---- optimisers


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


# ---- boundaries


def test_hare_tortoise_by_hand():
    run = partial(hare_tortoise.step, optimizer=sgd, decay=0.5, period=2)
    first, _, state = run(leaf(0.0), leaf(-10.0), {}, hare_tortoise.init(leaf(0.0)))
    close((first, state["slow"]), (leaf(1.0), leaf(0.5)))
    second, _, state = run(first, leaf(-10.0), {}, state)
    close((second, state["slow"]), (leaf(1.25), leaf(1.25)))
    second["head"]["kernel"][0, 0] = 9  # the two copies are not one array
    close(state["slow"], leaf(1.25))


def test_dash_by_hand():
    # Columns: along G, at 60 degrees (cos 1/2), at right angles, against it.
    half = np.sqrt(3) / 2
    params = {
        "head": {
            "kernel": np.array([[2.0, 0.5, 0.0, -1.0], [0.0, half, 3.0, 0.0]]),
            "bias": np.array([3.0, 4.0, 0.0, 0.0]),
        }
    }
    grads = {
        "head": {
            "kernel": np.array([[-1.0] * 4, [0.0] * 4]),
            "bias": np.array([0.0, -1.0, 0.0, 0.0]),
        }
    }
    moved = dash.boundary(params, [grads])
    factors = np.array([1, 0.5, 0.3, 0.3])
    close(moved["head"]["kernel"], params["head"]["kernel"] * factors)
    close(moved["head"]["bias"], params["head"]["bias"] * 0.8)


def test_dash_average_weighs_the_new_gradient_by_alpha():
    direction = dash.accumulate(dash.init(leaf(0.0)), leaf(1.0), alpha=0.3)
    direction = dash.accumulate(direction, leaf(2.0), alpha=0.3)
    close(direction, leaf(-(0.7 * 0.3 * 1 + 0.3 * 2)))


def test_dash_filters_of_a_convolution():
    rng = np.random.default_rng(0)
    kernel, g = rng.normal(size=(2, 3, 3, 2, 5))
    one = dash.cosine(kernel, g)
    assert one.shape == (1, 1, 2, 5)
    w, d = kernel[:, :, 1, 4].ravel(), g[:, :, 1, 4].ravel()
    expected = w @ d / np.linalg.norm(w) / np.linalg.norm(d)
    assert one[0, 0, 1, 4] == pytest.approx(expected)


def test_newton_schulz_gives_orthogonal_columns():
    w = np.random.default_rng(0).normal(size=(6, 3))
    x = fire.newton_schulz(w)
    close(x.T @ x, np.eye(3), atol=1e-6)
    u, _, vt = np.linalg.svd(w, full_matrices=False)
    close(x, u @ vt, atol=1e-6)  # and the nearest such matrix


def test_newton_schulz_acts_on_singular_values():
    rng = np.random.default_rng(1)
    u, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    v, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    s = np.array([3.0, 1.0, 1e-3])
    x = fire.newton_schulz(u * s @ v.T)
    expected = s / np.linalg.norm(s)
    for _ in range(10):
        expected = 1.5 * expected - 0.5 * expected**3
    close(np.linalg.svd(x)[1], np.sort(expected)[::-1])
    assert expected[2] < 0.1  # ten steps are too few for a singular value of 3e-4


def test_fire_scale_and_kernel_positions():
    rng = np.random.default_rng(0)
    dense = fire.isometric(rng.normal(size=(2, 8)))  # d_in 2, d_out 8
    close(dense @ dense.T, 4 * np.eye(2), atol=1e-6)
    conv = rng.normal(size=(3, 2, 2, 8))
    new = fire.isometric(conv)
    close(new[2, 1] @ new[2, 1].T, 4 / 36 * np.eye(2), atol=1e-6)
    close(new[1, 0], fire.isometric(conv[1, 0]) / 6)
    params = network()
    moved = fire.boundary(params, skip=("head",))
    close(moved["head"], params["head"])
    close(moved["h1"]["bias"], params["h1"]["bias"])
    assert np.abs(moved["h1"]["kernel"] - params["h1"]["kernel"]).max() > 0.1


# ---- resets


def test_reset_units_touches_what_it_must_and_no_more():
    params, fresh = network(1, norm=True), network(2)
    masks = {"h1": np.array([0, 1, 0, 0], bool), "h2": np.array([1, 0], bool)}
    new = resets.reset_units(params, masks, fresh)
    close(new["h1"]["kernel"][:, 1], fresh["h1"]["kernel"][:, 1])
    close(new["h1"]["kernel"][:, [0, 2, 3]], params["h1"]["kernel"][:, [0, 2, 3]])
    assert new["h1"]["bias"][1] == 0 and new["h1"]["scale"][1] == 1
    assert new["h1"]["shift"][1] == 0 and new["h1"]["shift"][0] != 0
    # h1's unit 1 reaches only the unit of h2 that is itself new.
    close(new["h2"]["kernel"][1], np.array([fresh["h2"]["kernel"][1, 0], 0.0]))
    assert new["h2"]["bias"][1] == params["h2"]["bias"][1]
    close(new["head"]["kernel"][0], np.zeros(2))
    close(new["head"]["kernel"][1], params["head"]["kernel"][1])
    close(new["head"]["bias"], params["head"]["bias"])


def redo_setting():
    params = network(1, norm=True)
    x = np.random.default_rng(5).normal(size=(6, 3))
    plain = {n: {k: m[k] for k in ("kernel", "bias")} for n, m in params.items()}
    _, acts, grads = loss_and_grads(plain, x, np.zeros(6, int))
    for name in ("h1", "h2"):
        grads[name]["scale"] = np.ones_like(params[name]["scale"])
        grads[name]["shift"] = np.ones_like(params[name]["shift"])
    return params, grads, acts


def test_redo_resets_dormant_units_and_their_moments_when_due():
    params, grads, acts = redo_setting()
    acts = acts | {
        "h1": np.array([[0.1, 8.0, 0.3, 2.0], [0.1, 8.0, -0.3, 2.0]]),
        "h2": np.ones((2, 2)),
    }
    close(redo.scores(acts["h1"]), np.array([0.1, 8.0, 0.3, 2.0]) / 2.6)
    run = partial(redo.step, optimizer=adam, period=2, tau=0.1)
    fresh, state = network(2), redo.init()
    opt = optimizers.init_adam(params)
    first, opt, state, masks = run(params, grads, opt, state, acts, fresh)
    assert not any(mask.any() for mask in masks.values())
    close(first, adam(params, grads, optimizers.init_adam(params))[0])
    second, opt, _, masks = run(first, grads, opt, state, acts, fresh)
    assert masks["h1"].tolist() == [True, False, False, False]
    assert not masks["h2"].any()
    close(second["h1"]["kernel"][:, 0], fresh["h1"]["kernel"][:, 0])
    close(second["h2"]["kernel"][0], np.zeros(2))
    for key in ("m", "v"):
        assert not opt[key]["h1"]["kernel"][:, 0].any()
        assert opt[key]["h1"]["scale"].tolist()[0] == 0
        assert opt[key]["h1"]["scale"][1] != 0
        assert not opt[key]["h2"]["kernel"][0].any()
    assert opt["count"] == 2


def test_redo_scores_of_dead_layers_and_convolutions():
    assert not redo.scores(np.zeros((3, 4))).any()
    h = np.zeros((2, 3, 3, 2))
    h[0, 0, 0] = [-18.0, 6.0]
    close(redo.scores(h), np.array([1.5, 0.5]))


def test_grama_finds_an_active_unit_without_gradient():
    params, grads, _ = redo_setting()
    grads["h1"]["kernel"] = np.ones((3, 4)) * [1.0, -2.0, 0.0, 1.0]
    grads["h2"]["kernel"] = np.ones((4, 2))
    close(grama.scores(grads["h1"]["kernel"]), np.array([1.0, 2.0, 0.0, 1.0]))
    fresh = network(2)
    new, _, _, masks = grama.step(
        params, grads, {}, grama.init(), fresh, optimizer=sgd, period=1
    )
    assert masks["h1"].tolist() == [False, False, True, False]
    assert not masks["h2"].any()
    close(new["h1"]["kernel"][:, 2], fresh["h1"]["kernel"][:, 2])
    assert new["h1"]["bias"][2] == 0 and not new["h2"]["kernel"][2].any()


def snr_step(state, fires, params=None, **options: Any):
    """One step in which the units of `fires` ([U] of 0 and 1) of h1 fire; B = 2."""
    params = network(1) if params is None else params
    z = {"h1": np.array([np.asarray(fires) - 0.5, [-1.0] * 4]), "h2": np.ones((2, 2))}
    options = {"period": 1000, "tau_min": 2, **options}
    return snr.step(
        params, zeros(params), {}, state, z, network(2), optimizer=still, **options
    )


def test_snr_ages_histograms_and_resets():
    params = network(1)
    state = snr.init(params, tau_max=10, threshold=4)
    _, _, state, masks = snr_step(state, [1, 0, 1, 0])
    close(state["age"]["h1"], np.array([0.0, 2.0, 0.0, 2.0]))
    assert not masks["h1"].any()
    new, _, state, masks = snr_step(state, [1, 1, 0, 0])
    # Unit 3 has not fired for 4 examples: reset, and its age is on record.
    assert masks["h1"].tolist() == [False, False, False, True]
    close(state["age"]["h1"], np.array([0.0, 0.0, 2.0, 0.0]))
    close(new["h1"]["kernel"][:, 3], network(2)["h1"]["kernel"][:, 3])
    assert not new["h2"]["kernel"][3].any() and new["h1"]["bias"][3] == 0
    expected = np.zeros((4, 11))
    expected[0, 0], expected[1, 2], expected[2, 0], expected[3, 4] = 2, 1, 1, 1
    close(state["histogram"]["h1"], expected)


def test_snr_percentile_by_hand():
    histogram = np.zeros((3, 6))
    histogram[0, [0, 1, 4]] = [1000, 98, 2]  # ages 0 do not count
    histogram[1, [2, 3]] = [99, 1]
    histogram[2, 0] = 5
    assert snr.percentile(histogram, 0.99)[:2].tolist() == [4, 2]
    assert np.isnan(snr.percentile(histogram, 0.99)[2])


def test_snr_threshold_rule():
    histogram = np.zeros((4, 21))
    histogram[[0, 1, 2], [5, 12, 1]] = 1
    threshold = np.array([8.0, 12.0, 8.0, 8.0])
    new = partial(snr.new_threshold, threshold, histogram, tau_min=3)
    # 5 < 8 -> 5; 12 is not < 12 -> 24, clipped to 20; 1 -> clipped to 3; NaN -> 3.
    close(new(), np.array([5.0, 20.0, 3.0, 3.0]))
    close(new(empty="keep"), np.array([5.0, 20.0, 3.0, 8.0]))


def test_snr_updates_thresholds_and_clears_histograms_every_period():
    state = snr.init(network(1), tau_max=10)
    close(state["threshold"]["h2"], np.array([10.0, 10.0]))
    _, _, state, _ = snr_step(state, [1, 0, 1, 0], period=2)
    assert state["histogram"]["h1"].any()
    _, _, state, _ = snr_step(state, [1, 1, 0, 0], period=2)
    # h1: ages above 0 on record: none, {2}, none, none. h2 always fires.
    close(state["threshold"]["h1"], np.array([2.0, 2.0, 2.0, 2.0]))
    close(state["threshold"]["h2"], np.array([2.0, 2.0]))
    assert not state["histogram"]["h1"].any()


def test_snr_late_ages_count_in_the_last_bin():
    counted = snr.record(
        np.zeros((2, 6)), np.array([99.0, 3.0]), np.array([True, False])
    )
    assert counted[0, 5] == 1 and counted.sum() == 1
