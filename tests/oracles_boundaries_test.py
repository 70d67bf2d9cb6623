"""The numpy oracles of boundary methods against facts worked out by hand."""

from functools import partial

import numpy as np
import pytest

from tests.oracle_setting import (
    close,
    leaf,
    network,
    sgd,
)
from tests.reference import (
    dash,
    fire,
    hare_tortoise,
)


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
