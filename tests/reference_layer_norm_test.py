"""The numpy layer norm: forward by hand, backward by finite differences."""

from functools import partial

import numpy as np
import pytest

from tests.oracle_setting import agrees, central_differences, close, network
from tests.reference import mlp


def test_layer_norm_by_hand():
    # Mean 2, variance 1: y = (1, -1) but for the 1e-5 beside the variance.
    layer = {"scale": np.array([2.0, 3.0]), "shift": np.array([0.5, 0.0])}
    z = np.array([[3.0, 1.0], [0.0, 0.0]])
    y = 1 / np.sqrt(1 + 1e-5)
    expected = np.array([[2 * y + 0.5, -3 * y], [0.5, 0.0]])
    close(mlp.layer_norm(layer, z), expected)


def test_it_comes_before_the_activation_of_hidden_layers_and_not_of_the_head():
    params = network(norm=True)
    x = np.random.default_rng(1).normal(size=(5, 3))
    logits, acts, z = mlp.forward(params, x, norm="layer")
    first = mlp.affine(params["h1"], x)
    close(z["h1"], mlp.layer_norm(params["h1"], first))
    close(acts["h1"], np.maximum(z["h1"], 0))
    close(logits, mlp.affine(params["head"], acts["h2"]))


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_gradient_through_layer_norms_is_the_finite_difference(activation):
    rng = np.random.default_rng(1)
    params = mlp.random_params(rng, (3, 4, 5, 2))  # of 2 units the norm leaves signs
    for name, width in (("h1", 4), ("h2", 5)):
        params[name]["scale"] = 1 + rng.normal(size=width)
        params[name]["shift"] = rng.normal(size=width)
    x = rng.normal(size=(5, 3))
    run = partial(
        mlp.loss_and_grads, x=x, y=np.array([0, 1, 1, 0, 1]),
        example_weight=[1.0, 0.5, 2.0, 0.0, 1.0], activation=activation, norm="layer",
    )  # fmt: skip
    numeric = central_differences(lambda p: run(p)[0], params)
    agrees(run(params)[2], numeric)
    assert min(np.abs(leaf).max() for leaf in numeric["h1"].values()) > 1e-3
