"""Both kinds of noise are standard normal and independent of each other."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import noise
from tests import tiny

TREE = {"bias": jnp.zeros(16), "kernel": jnp.zeros((16, 12)), "scale": jnp.zeros(())}
DRAWS = 1_000


@pytest.fixture(scope="module", params=noise.KINDS)
def draws(request):
    """DRAWS trees of noise, of consecutive steps: leaves [DRAWS, ...]."""
    steps = np.arange(DRAWS, dtype=np.int32)
    draw = jax.vmap(lambda i: noise.normal_like(tiny.step_key(i), TREE, request.param))
    return jax.tree.map(np.asarray, tiny.quick_jit(draw)(steps))


def test_shapes(draws):
    chex.assert_trees_all_equal_shapes_and_dtypes(tiny.at(draws, 0), TREE)


def test_moments(draws):
    # Standard errors for n independent numbers: 1, sqrt(2), sqrt(24) over sqrt(n).
    for leaf in (draws["bias"], draws["kernel"]):
        x = leaf.ravel()
        error = 5.0 / np.sqrt(x.size)
        assert abs(x.mean()) < error
        assert abs(x.var() - 1.0) < np.sqrt(2.0) * error
        kurtosis = np.mean((x - x.mean()) ** 4) / x.var() ** 2
        assert abs(kurtosis - 3.0) < np.sqrt(24.0) * error


def correlation(a, b):
    """Mean product over all pairs of entries, and its standard error."""
    product = np.mean(a.reshape(len(a), -1) * b.reshape(len(b), -1), axis=1)
    return product.mean(), product.std() / np.sqrt(len(product))


def test_leaves_steps_and_neighbours_are_uncorrelated(draws):
    bias, kernel = draws["bias"], draws["kernel"]
    pairs = {
        "two leaves": (bias[:, :12], kernel[:, 0]),
        "a leaf and a scalar": (draws["scale"], bias[:, 0]),
        "consecutive steps": (kernel[1:], kernel[:-1]),
        "neighbouring inputs": (kernel[:, 1:], kernel[:, :-1]),
        "neighbouring units": (kernel[..., 1:], kernel[..., :-1]),
    }
    for name, (a, b) in pairs.items():
        mean, error = correlation(a, b)
        assert abs(mean) < 5.0 * error, (name, mean, error)


def test_a_sum_over_steps_is_a_random_walk(draws):
    end = draws["kernel"].sum(axis=0) / np.sqrt(DRAWS)
    assert abs(end.std() - 1.0) < 0.25 and abs(end.mean()) < 0.4


@pytest.mark.parametrize("kind", noise.KINDS)
def test_the_key_decides(kind):
    draw = tiny.quick_jit(lambda key: noise.normal_like(key, TREE, kind))
    first, again, other = draw(tiny.KEY), draw(tiny.KEY), draw(tiny.step_key(1))
    chex.assert_trees_all_equal(first, again)
    assert (first["kernel"] != other["kernel"]).any()


@pytest.mark.parametrize(
    ("leaf", "numbers"),
    [
        (1, noise.TABLE),
        (noise.TABLE // 2, noise.TABLE),
        (noise.TABLE // 2 + 1, 2 * noise.TABLE),
        (noise.LARGEST_TABLE, noise.LARGEST_TABLE),
    ],
)
def test_a_table_holds_twice_the_leaf_within_bounds(leaf, numbers):
    assert noise.table_size(leaf) == numbers


def test_leaves_larger_than_any_table(monkeypatch):
    monkeypatch.setattr(noise, "LARGEST_TABLE", noise.TABLE)
    large = {"kernel": jnp.zeros((3, noise.TABLE // 2 + 5))}
    draw = tiny.quick_jit(lambda key: noise.normal_like(key, large, "pooled"))
    found = np.asarray(draw(tiny.KEY)["kernel"]).ravel()
    chex.assert_shape(found, (large["kernel"].size,))
    assert abs(found.mean()) < 0.02 and abs(found.var() - 1.0) < 0.02
    # Runs begin at different places of the table: they are not copies.
    runs = np.abs(found[: 3 * (noise.TABLE // 2)].reshape(3, -1))
    assert (runs[0] != runs[1]).mean() > 0.99 < (runs[1] != runs[2]).mean()


def test_a_leaf_of_one_run_has_independent_halves():
    large = {"kernel": jnp.zeros((2, noise.TABLE))}
    draw = tiny.quick_jit(lambda key: noise.normal_like(key, large, "pooled"))
    found = np.asarray(draw(tiny.KEY)["kernel"])
    assert abs(np.mean(found[0] * found[1])) < 5.0 / np.sqrt(noise.TABLE)
