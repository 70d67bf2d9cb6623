"""Convolution and max-pool, with their gradients, against numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.networks import _conv
from tests.conv_setting import SPEC, close, images
from tests.reference import conv as oracle


@pytest.mark.parametrize("kind", _conv.CONVS)
@pytest.mark.parametrize(
    ("side", "stride", "padding"), [(5, 1, 0), (3, 1, 1), (3, 2, 1), (1, 2, 0)]
)
@pytest.mark.parametrize("channels", [3, _conv.NARROW])
def test_convolution_as_numpy(kind, side, stride, padding, channels):
    rng = np.random.default_rng(side)
    x: Any = rng.normal(size=(2, 7, 8, channels)).astype(np.float32)
    kernel: Any = rng.normal(size=(side, side, channels, 4)).astype(np.float32)
    found = _conv.conv(kind, x, kernel, stride=stride, padding=padding)
    expected = np.float32(oracle.conv(x, kernel, stride, padding))
    close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("narrow", [0, 32])
@pytest.mark.parametrize("kind", _conv.CONVS)
def test_gradient_of_the_convolution_by_differences(kind, narrow, monkeypatch):
    """A convolution is linear in both arguments: the difference is exact."""
    monkeypatch.setattr(_conv, "NARROW", narrow)
    rng = np.random.default_rng(0)
    x, dx = (rng.normal(size=(2, 6, 7, 3)).astype(np.float32) for _ in range(2))
    k, dk = (rng.normal(size=(3, 3, 3, 2)).astype(np.float32) for _ in range(2))
    seen = rng.normal(size=oracle.conv(x, k, 2, 1).shape)

    def loss(x, k):
        return jnp.sum(_conv.conv(kind, x, k, stride=2, padding=1) * np.float32(seen))

    by_x, by_k = jax.grad(loss, (0, 1))(x, k)
    expected_x = np.sum(oracle.conv(dx, k, 2, 1) * seen)
    expected_k = np.sum(oracle.conv(x, dk, 2, 1) * seen)
    np.testing.assert_allclose(np.sum(np.asarray(by_x) * dx), expected_x, rtol=1e-4)
    np.testing.assert_allclose(np.sum(np.asarray(by_k) * dk), expected_k, rtol=1e-4)


def test_lanes_with_their_own_kernels_as_one_after_another():
    x = images(SPEC, 6).reshape(2, 3, *SPEC.input_shape)
    kernels = np.random.default_rng(1).normal(size=(2, 3, 3, 2, 4)).astype(np.float32)
    run = lambda x, k: jax.grad(
        lambda k: jnp.sum(_conv.conv("patches", x, k) ** 2)
    )(k)  # fmt: skip
    together = jax.vmap(run)(x, kernels)
    alone = jnp.stack([run(x[i], kernels[i]) for i in range(2)])
    close(together, alone, rtol=1e-4, atol=1e-4)
    # No grouped convolution, and no other either: products of matrices.
    assert "conv_general_dilated" not in str(jax.make_jaxpr(jax.vmap(run))(x, kernels))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_max_pool_and_its_gradient_as_numpy(size):
    x: Any = np.random.default_rng(0).integers(0, 3, (2, 7, 6, 2)).astype(np.float32)
    expected, gradient = oracle.max_pool(x, size)  # integers: many ties
    close(_conv.max_pool(x, size), np.float32(expected))
    found = jax.grad(lambda x: _conv.max_pool(x, size).sum())(x)
    close(found, np.float32(gradient))


@pytest.mark.parametrize("at", range(4))
def test_max_pool_keeps_nan(at):
    x = jnp.arange(4.0).at[at].set(jnp.nan).reshape(1, 2, 2, 1)
    assert jnp.isnan(_conv.max_pool(x, 2)).all()
