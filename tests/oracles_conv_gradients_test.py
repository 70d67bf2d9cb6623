"""The gradients of the numpy oracle of convolutional networks against facts by hand."""

import numpy as np
import pytest

from tests.conv_oracle_setting import deep_network
from tests.oracle_setting import agrees, central_differences, close
from tests.reference import conv, mlp
from tests.reference.conv_training import loss_and_grads


def test_the_gradients_are_those_of_central_differences():
    params = deep_network()
    x = np.random.default_rng(1).normal(size=(3, 13, 9, 2))
    y = np.array([0, 1, 1])
    loss, activations, grads = loss_and_grads(params, x, y, 2)
    assert all(np.any(grad) for layer in grads.values() for grad in layer.values())
    agrees(grads, central_differences(lambda p: loss_and_grads(p, x, y, 2)[0], params))
    expected = conv.cnn_forward(params, x, 2)
    per_example, _ = mlp.cross_entropy(expected.pop("logits"), y)
    assert loss == pytest.approx(per_example.mean())
    assert list(activations) == ["c1", "c2", "h1"]
    close(activations, expected)
    assert activations["c1"].shape == (3, 5, 3, 3)
    assert activations["c2"].shape == (3, 2, 1, 2)


def test_without_convolutions_the_gradients_are_those_of_the_dense_network():
    params = mlp.random_params(np.random.default_rng(2), (4, 3, 2, 2))
    x, y = np.random.default_rng(3).normal(size=(5, 4)), np.array([0, 1, 1, 0, 1])
    loss, activations, grads = loss_and_grads(params, x, y, 2)
    expected, acts, expected_grads = mlp.loss_and_grads(params, x, y)
    assert loss == pytest.approx(expected)
    close(activations, {name: acts[name] for name in ("h1", "h2")})
    close(grads, expected_grads)


def test_the_first_of_equal_maxima_gets_the_gradient_and_the_rim_none():
    # All four pre-activations of the full window are 1; what each pixel shows differs.
    # The incomplete windows, whose pre-activations are far larger, count for nothing.
    x = np.full((1, 3, 3, 2), 9.0)
    x[0, :2, :2] = [[[0.25, 0.75], [0, 1]], [[0.5, 0.5], [1, 0]]]
    params = {
        "c1": {"kernel": np.ones((1, 1, 2, 1)), "bias": np.zeros(1)},
        "head": {"kernel": np.array([[1.0, -1.0]]), "bias": np.zeros(2)},
    }
    loss, activations, grads = loss_and_grads(params, x, [0], 2)
    p = 1 / (1 + np.exp(2))  # probability of the wrong label, at logits 1 and -1
    assert loss == pytest.approx(np.log1p(np.exp(-2)))
    close(activations["c1"], np.ones((1, 1, 1, 1)))
    close(grads["head"]["kernel"], np.array([[-p, p]]))
    close(grads["c1"]["bias"], np.array([-2 * p]))
    close(grads["c1"]["kernel"].ravel(), -2 * p * np.array([0.25, 0.75]))


def test_the_channel_is_the_fastest_index_of_the_flattened_features():
    x = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])  # two positions of two channels
    params = {
        "c1": {"kernel": np.eye(2)[None, None], "bias": np.zeros(2)},
        "head": {"kernel": np.zeros((4, 2)), "bias": np.zeros(2)},
    }
    _, _, grads = loss_and_grads(params, x, [1], 1)
    close(grads["head"]["kernel"], np.outer([1, 2, 3, 4], [0.5, -0.5]))
