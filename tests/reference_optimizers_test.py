"""The numpy optimisers and shrink-and-perturbs against numbers worked out by hand."""

from functools import partial

import chex
import numpy as np
import pytest

from tests.oracle_setting import TINY, close
from tests.reference import mlp, optimizers, shrink_perturb


def leaf(value):
    """A network of depth 0 whose only kernel and bias hold `value`."""
    return {"head": {"kernel": np.array([[value]]), "bias": np.array([value])}}


# ---- optimisers, on theta = 1 and gradients 2, then 1


def two_steps(update, state):
    params = leaf(1.0)
    for gradient in (2.0, 1.0):
        params, state = update(params, leaf(gradient), state)
    return params["head"]["kernel"].item()


def test_sgd_momentum_and_l2_by_hand():
    sgd = partial(optimizers.sgd, step_size=0.1)
    assert two_steps(sgd, optimizers.init_sgd(leaf(1.0))) == pytest.approx(0.7)
    heavy_ball = partial(optimizers.momentum, step_size=0.1, mu=0.5)
    # m = 2, then 0.5 * 2 + 1 = 2: 1 - 0.2 - 0.2
    assert two_steps(heavy_ball, optimizers.init_momentum(leaf(1.0))) == pytest.approx(
        0.6
    )
    close(optimizers.coupled_l2(leaf(3.0), leaf(2.0), 0.5), leaf(3.5))  # biases too


def test_adam_family_by_hand():
    hyper = {"step_size": 0.1, "b1": 0.5, "b2": 0.75, "eps": 0.0}
    # m = 1, 1; v = 1, 1. m_hat = 2, 4/3; v_hat = 4, 16/7: moves 1, (4/3) / (4/sqrt 7).
    expected = 1 - 0.1 * (1 + np.sqrt(7) / 3)
    for init in (optimizers.init_adam, optimizers.init_adam_per_element):
        got = two_steps(partial(optimizers.adam, **hyper), init(leaf(1.0)))
        assert got == pytest.approx(expected)
    start = optimizers.init_adam_per_element(leaf(1.0))
    # released: 1 - b2^t = 1/4, 7/16 times m / sqrt v = 1
    got = two_steps(partial(optimizers.adam_gnt, **hyper), start)
    assert got == pytest.approx(1 - 0.1 * (1 / 4 + 7 / 16))
    intended = partial(optimizers.adam_gnt, variant="intended", **hyper)
    assert two_steps(intended, start) == pytest.approx(expected)  # as eps = 0
    # AdamW: times 0.95 before each of the two moves
    adamw = partial(optimizers.adamw, weight_decay=0.5, **hyper)
    first = 0.95 - 0.1
    expected = 0.95 * first - 0.1 * np.sqrt(7) / 3
    assert two_steps(adamw, optimizers.init_adam(leaf(1.0))) == pytest.approx(expected)


def test_adam_epsilon_is_outside_the_root_and_after_the_correction():
    update = partial(optimizers.adam, step_size=1.0, b1=0.5, b2=0.75, eps=2.0)
    params, _ = update(leaf(1.0), leaf(2.0), optimizers.init_adam(leaf(1.0)))
    close(params, leaf(1.0 - 2 / (2 + 2.0)))


def test_per_element_counts_are_the_younger_units_age():
    rng = np.random.default_rng(1)
    params = mlp.random_params(rng, (2, 3, 2, 2))
    state = optimizers.init_adam_per_element(params)
    ages = {"h1": np.zeros(3), "h2": np.zeros(2)}
    resets = {1: {"h1": [0], "h2": []}, 3: {"h1": [2], "h2": [1]}}
    for t in range(5):
        _, state = optimizers.adam(params, params, state, step_size=0.1)
        ages = {name: age + 1 for name, age in ages.items()}
        masks = {n: np.isin(np.arange(len(a)), resets.get(t, {}).get(n, []))
                 for n, a in ages.items()}  # fmt: skip
        state = optimizers.reset_moments(state, masks, "moments+count")
        ages = {name: np.where(masks[name], 0, age) for name, age in ages.items()}
    expected = optimizers.counts_from_unit_ages(params, ages, 5)
    chex.assert_trees_all_equal(state["count"], expected)
    assert expected["h2"]["kernel"].tolist() == [[3, 1], [5, 1], [1, 1]]


def test_moment_resets():
    params, mask = TINY, {"h1": np.array([True, False])}
    _, state = optimizers.adam(
        params,
        mlp.map_params(np.ones_like, params),
        optimizers.init_adam_per_element(params),
        step_size=0.1,
    )
    reset = optimizers.reset_moments(state, mask, "moments")
    for key in ("m", "v"):
        chex.assert_trees_all_equal(
            mlp.map_params(lambda a: a != 0, reset[key]),
            {
                "h1": {"kernel": np.array([[False, True]]), "bias": ~mask["h1"]},
                "head": {
                    "kernel": np.array([[False, False], [True, True]]),
                    "bias": np.array([True, True]),
                },
            },
        )
    close(reset["count"], mlp.map_params(np.ones_like, params))
    assert optimizers.reset_moments(state, mask, "none") is state
    with pytest.raises(ValueError, match="each parameter"):
        optimizers.reset_moments(optimizers.init_adam(params), mask, "moments+count")


# ---- shrink and perturb, theta = 2, g = 1, noise (or the fresh weight) 3


def test_four_shrink_and_perturbs_by_hand():
    theta, g, noise = leaf(2.0), leaf(1.0), leaf(3.0)
    sgd = partial(optimizers.sgd, step_size=0.1)
    got, _ = shrink_perturb.dohare(
        theta, g, {}, noise, optimizer=sgd, l2=0.5, noise_std=0.01
    )
    close(got, leaf(2 - 0.1 * (1 + 0.5 * 2) + 0.03))
    got = shrink_perturb.ash_adams(theta, noise, shrink=0.6, noise_std=0.01)
    close(got, leaf(1.23))
    close(shrink_perturb.kumar(theta, noise, shrink=0.25, noise_std=0.1), leaf(1.8))
    got = shrink_perturb.upgd(theta, g, noise, step_size=0.1, l2=0.5, noise_std=0.01)
    close(got, leaf(0.95 * 2 - 0.1 * 1.03))
