"""Losses and scores against the numpy oracle and hand-worked numbers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import losses
from tests.reference import mlp as oracle

LOGITS = np.array([[2.0, 0.0, -1.0], [500.0, -500.0, 0.0]], np.float32)
close = chex.assert_trees_all_close


def test_cross_entropy_by_hand_and_without_overflow():
    y = jnp.array([1, 1])
    found = losses.softmax_cross_entropy.per_example(jnp.asarray(LOGITS), y)
    close(found, jnp.array([np.log(np.exp(2.0) + 1.0 + np.exp(-1.0)), 1000.0]))


@pytest.mark.parametrize(
    ("loss", "function", "y"),
    [
        (losses.softmax_cross_entropy, oracle.cross_entropy, np.array([2, 0])),
        (losses.squared_error, oracle.squared_error, LOGITS[::-1] + 1.0),
    ],
)
def test_values_and_gradients_as_the_oracle(loss, function, y):
    value, gradient = function(LOGITS.astype(np.float64), y)
    total = jax.grad(lambda z: jnp.sum(loss.per_example(z, jnp.asarray(y))))
    found = loss.per_example(jnp.asarray(LOGITS), jnp.asarray(y))
    close(found, value.astype(np.float32), rtol=1e-6)
    close(total(jnp.asarray(LOGITS)), gradient.astype(np.float32), rtol=1e-5, atol=1e-7)


def test_scores_lie_between_0_and_1():
    z = jnp.asarray(LOGITS)
    right = losses.softmax_cross_entropy.score(z, jnp.array([0, 2]))
    close(right, jnp.array([1.0, 0.0]))
    close(losses.squared_error.score(z, z), jnp.ones(2))
    close(losses.squared_error.score(z[:1], z[:1] + 1.0), jnp.array([0.25]))


def test_predictive_distributions():
    p = losses.softmax_cross_entropy.predictive(jnp.asarray(LOGITS))
    close(p.sum(axis=1), jnp.ones(2))
    close(p[0, 0] / p[0, 1], jnp.exp(2.0), rtol=1e-5)
    close(losses.squared_error.predictive(jnp.asarray(LOGITS)), jnp.asarray(LOGITS))


def test_outputs_not_in_play_get_neither_probability_nor_gradient():
    classes = jnp.array([[True, True, False], [False, True, True]])
    y = jnp.array([0, 2])

    def loss(z):
        masked = losses.mask_logits(z, classes)
        return jnp.sum(losses.softmax_cross_entropy.per_example(masked, y))

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(LOGITS))
    close(value, np.log(1.0 + np.exp(-2.0)), rtol=1e-6)  # and 0 for the second
    assert (gradient[~classes] == 0).all() and (gradient[0, :2] != 0).all()
    p = jax.nn.softmax(losses.mask_logits(jnp.asarray(LOGITS), classes))
    assert (p[~classes] == 0).all()


def test_weighted_mean_leaves_padding_out():
    values, weight = jnp.array([1.0, 5.0, 900.0]), jnp.array([3.0, 1.0, 0.0])
    close(losses.weighted_mean(values, weight), jnp.array(2.0))
    close(losses.weighted_mean(values, jnp.zeros(3)), jnp.array(0.0))
