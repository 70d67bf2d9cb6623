"""The numpy network against numbers worked out by hand on networks of a few units."""

from functools import partial

import chex
import numpy as np
import pytest

from tests.oracle_setting import TINY, close
from tests.reference import mlp


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
