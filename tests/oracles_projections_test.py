"""The numpy oracles of projections and perturbations against facts worked out by hand."""

from functools import partial

import numpy as np
import pytest

from tests.oracle_setting import (
    close,
    leaf,
    like,
    network,
    sgd,
    zeros,
)
from tests.reference import (
    nap,
    noise_injection,
    soft_shrink_perturb,
    weight_clipping,
)
from tests.reference.mlp import map_params


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
