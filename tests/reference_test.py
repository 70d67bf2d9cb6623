"""The numpy oracles against numbers worked out by hand on networks of a few units."""

from functools import partial

import chex
import numpy as np
import pytest

from tests.reference import metrics, mlp, optimizers, shrink_perturb

close = partial(chex.assert_trees_all_close, rtol=1e-10, atol=1e-12)

# One input, two hidden units, two outputs. At x = 1 with ReLU: z = (2, -1), h = (2, 0),
# logits = (2, 2), so that p = (1/2, 1/2).
TINY = {
    "h1": {"kernel": np.array([[1.0, -1.0]]), "bias": np.array([1.0, 0.0])},
    "head": {"kernel": np.array([[1.0, 1.0], [3.0, 5.0]]), "bias": np.zeros(2)},
}


def leaf(value):
    """A network of depth 0 whose only kernel and bias hold `value`."""
    return {"head": {"kernel": np.array([[value]]), "bias": np.array([value])}}


# ---- network


def test_cross_entropy_gradients_by_hand():
    loss, acts, grads = mlp.loss_and_grads(TINY, [[1.0]], [1])
    assert loss == pytest.approx(np.log(2))
    close(acts["h1"], np.array([[2.0, 0.0]]))
    # delta = p - onehot = (1/2, -1/2); back through w_out: (0, -1), unit 2 is off.
    close(grads["head"]["kernel"], np.array([[1.0, -1.0], [0.0, 0.0]]))
    close(grads["head"]["bias"], np.array([0.5, -0.5]))
    close(grads["h1"]["kernel"], np.array([[0.0, 0.0]]))
    close(grads["h1"]["bias"], np.array([0.0, 0.0]))


def test_squared_error_gradients_by_hand():
    loss, _, grads = mlp.loss_and_grads(
        TINY, [[1.0]], [[1.0, 4.0]], loss="squared_error"
    )
    assert loss == pytest.approx(1 + 4)  # errors (1, -2); delta = (2, -4)
    close(grads["head"]["kernel"], np.array([[4.0, -8.0], [0.0, 0.0]]))
    close(grads["h1"]["kernel"], np.array([[-2.0, 0.0]]))


def test_padding_does_not_count():
    args = {"loss": "squared_error"}
    one = mlp.loss_and_grads(TINY, [[1.0]], [[1.0, 4.0]], **args)
    two = mlp.loss_and_grads(
        TINY, [[1.0], [9.0]], [[1.0, 4.0], [0.0, 0.0]], example_weight=[1, 0], **args
    )
    assert one[0] == pytest.approx(two[0])
    close(one[2], two[2])


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
@pytest.mark.parametrize(
    "activation", ["relu", "leaky_relu", "tanh", "sigmoid", "elu", "swish", "linear"]
)
def test_gradient_is_the_finite_difference(activation, loss):
    rng = np.random.default_rng(0)
    params, x = mlp.random_params(rng, (3, 4, 3, 2)), rng.normal(size=(5, 3))
    y = (
        np.array([0, 1, 1, 0, 1])
        if loss == "cross_entropy"
        else rng.normal(size=(5, 2))
    )
    run = partial(mlp.loss_and_grads, activation=activation, loss=loss)
    run = partial(run, x=x, y=y, example_weight=[1.0, 0.5, 2.0, 0.0, 1.0])
    numeric, step = mlp.map_params(np.zeros_like, params), 1e-6
    for module, layer in params.items():
        for name, array in layer.items():
            for index in np.ndindex(array.shape):
                up, down = mlp.cast(params), mlp.cast(params)
                up[module][name][index] += step
                down[module][name][index] -= step
                slope = (run(params=up)[0] - run(params=down)[0]) / (2 * step)
                numeric[module][name][index] = slope
    chex.assert_trees_all_close(run(params=params)[2], numeric, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "at_minus_one", "at_two"),
    [
        ("relu", 0.0, 2.0),
        ("leaky_relu", -0.01, 2.0),
        ("tanh", -0.761594155956, 0.964027580076),
        ("sigmoid", 0.268941421370, 0.880797077978),
        ("elu", -0.632120558829, 2.0),
        ("swish", -0.268941421370, 1.761594155956),
        ("linear", -1.0, 2.0),
    ],
)
def test_activations(name, at_minus_one, at_two):
    got = mlp.activate(name, np.array([-1.0, 2.0]))
    chex.assert_trees_all_close(got, np.array([at_minus_one, at_two]), rtol=1e-10)


def test_init_bounds():
    assert mlp.init_bound("kaiming", "relu", 6, 2) == pytest.approx(1.0)
    assert mlp.init_bound("xavier", "tanh", 4, 2) == pytest.approx(5 / 3)
    assert mlp.init_bound("lecun", "relu", 12, 2) == pytest.approx(0.5)
    assert mlp.init_bound("default", "relu", 4, 2) == pytest.approx(0.5)


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


# ---- metrics


def test_unit_metrics_by_hand():
    h = np.zeros((200, 4))
    h[0, 1] = 1.0  # active on 0.5 % of the examples
    h[:2, 2] = -1.0  # active on exactly 1 %
    h[:, 3] = 1.0
    assert metrics.dead_units(h) == 1
    assert metrics.dormant_units_dohare(h) == 2  # strictly less than 1 %
    # mean |h| = (0, .005, .01, 1), their mean .25375: scores 0, .0197, .0394, 3.94
    assert metrics.dormant_units_sokar(h, 0.0) == 1
    assert metrics.dormant_units_sokar(h, 0.025) == 2
    assert metrics.dormant_units_sokar(h, 0.1) == 3
    assert metrics.dormant_units_sokar(np.zeros((5, 3)), 0.0) == 3
    assert metrics.zero_activation_fraction({"h1": h[:1], "h2": h[2:3]}) == 4 / 8


def test_ranks_by_hand():
    assert metrics.effective_rank(np.eye(3)) == pytest.approx(3.0)
    # p = (3/4, 1/4): exp(3/4 ln 4/3 + 1/4 ln 4) = 4 / 3^(3/4)
    assert metrics.effective_rank(np.diag([3.0, 1.0])) == pytest.approx(4 / 3**0.75)
    h = np.diag([10.0, 1.0])  # squares 100/101 = .9901; absolute 10/11 = .909
    assert metrics.approximate_rank(h) == 1
    assert metrics.abs_approximate_rank(h) == 2
    assert metrics.srank_kumar(h) == 1
    assert metrics.approximate_rank(np.diag([9.0, 1.0])) == 2  # 81/82 = .988
    zero = np.zeros((3, 2))
    assert metrics.effective_rank(zero) == metrics.approximate_rank(zero) == 0


def test_magnitudes_and_plasticity_by_hand():
    assert metrics.weight_magnitude(TINY) == pytest.approx((2 + 10) / 6)
    assert metrics.parameter_magnitude(TINY) == pytest.approx((2 + 1 + 10) / 10)
    assert metrics.sample_plasticity(2.0, 0.5) == 0.75
    assert metrics.sample_plasticity(1.0, 3.0) == 0.0
    assert metrics.sample_plasticity(0.0, 0.0) == 1.0
    assert metrics.sample_plasticity(0.0, 5e-9) == 0.5
