"""Activations with parameters or two features a unit: values, slopes and variances."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.networks import _activations, mlp
from tests import tiny

close = chex.assert_trees_all_close


def sided(z, left, right):
    return np.where(z > 0, right, left)


@pytest.mark.parametrize(
    ("name", "leaf", "value", "by_z", "by_leaf"),
    [
        ("prelu", "prelu", lambda z, a: sided(z, a * z, z),
         lambda z, a: sided(z, a, 1.0), lambda z, a: sided(z, z, 0.0)),
        ("adalin_relu", "adalin", lambda z, a: sided(z, a * z, z),
         lambda z, a: sided(z, a, 1.0), lambda z, a: sided(z, z, 0.0)),
        ("adalin_tanh", "adalin",
         lambda z, a: np.tanh(z) + a * z * np.cos(np.pi / 2 / np.cosh(z) ** 2),
         lambda z, a: np.cosh(z) ** -2.0 + a * np.cos(np.pi / 2 / np.cosh(z) ** 2),
         lambda z, a: z * np.cos(np.pi / 2 / np.cosh(z) ** 2)),
    ],
)  # fmt: skip
def test_activations_with_a_parameter_a_unit(name, leaf, value, by_z, by_leaf):
    z = np.linspace(-3.0, 3.0, 15).reshape(5, 3)
    a = np.array([-0.5, 0.1, 2.0])
    up = np.random.default_rng(0).normal(size=z.shape)
    apply = lambda a, z: _activations.activate(name, {leaf: a}, z)
    found, pull_back = jax.vjp(apply, jnp.float32(a), jnp.float32(z))
    expected = value(z, a), ((up * by_leaf(z, a)).sum(0), up * by_z(z, a))
    expected = jax.tree.map(np.float32, expected)
    close((found, pull_back(jnp.float32(up))), expected, rtol=1e-4, atol=1e-5)
    start = {"prelu": 0.25, "adalin": 0.0}[leaf]
    close(_activations.init_leaves(name, 3), {leaf: jnp.full(3, start)})


@pytest.mark.parametrize(
    ("name", "pair", "slopes"),
    [
        ("crelu", lambda z: (np.maximum(z, 0), np.maximum(-z, 0)),
         lambda z: (z > 0, -1.0 * (z < 0))),
        ("fourier", lambda z: (np.sin(z), np.cos(z)),
         lambda z: (np.cos(z), -np.sin(z))),
    ],
)  # fmt: skip
def test_activations_with_two_features_a_unit(name, pair, slopes):
    z = np.linspace(-3.0, 3.0, 15).reshape(5, 3)
    up = np.random.default_rng(0).normal(size=(5, 2, 3))
    apply = lambda z: _activations.activate(name, {}, z)
    found, pull_back = jax.vjp(apply, jnp.float32(z))
    expected = np.float32(np.stack(pair(z), axis=1))
    close(found, expected, rtol=1e-5, atol=1e-6)
    by_z = sum(up[:, i] * slope for i, slope in enumerate(slopes(z)))
    close(pull_back(jnp.float32(up))[0], np.float32(by_z), rtol=1e-4, atol=1e-5)
    flat = _activations.flatten_features(found)
    close(flat, np.concatenate([expected[:, 0], expected[:, 1]], axis=1))


@pytest.mark.parametrize("init", ["kaiming", "xavier"])
@pytest.mark.parametrize("activation", ["crelu", "fourier"])
def test_pre_activations_keep_their_variance(activation, init):
    """Two features a unit: their squares add up to z^2, or to 1, over twice the inputs."""
    net = mlp.make(tiny.SPEC, widths=(300, 300), activation=activation, init=init)
    state = net.init(tiny.KEY)
    x = jax.random.normal(tiny.KEY, (50, 12))
    z1 = x @ state.params["h1"]["kernel"]
    h = _activations.flatten_features(_activations.activate(activation, {}, z1))
    ratio = jnp.var(h @ state.params["h2"]["kernel"])
    target = jnp.var(z1) if activation == "crelu" else 1.0
    factor = 1.0 if init == "kaiming" else 2.0 * 600 / 900
    assert abs(ratio / (factor * target) - 1.0) < 0.15
