"""The orders of examples that streams draw for their epochs, and the walk through them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.streams import _epochs, _shuffle
from tests.stream_setting import chi_squared

# ---- an order for each epoch


@pytest.mark.parametrize(("epochs", "count"), [(1, 1), (3, 2), (5, 33), (2, 1200)])
def test_every_epoch_is_an_order_of_its_own(epochs, count):
    orders = _epochs.epoch_orders(jax.random.key(0), epochs, count)
    chex.assert_shape(orders, (epochs, count))
    chex.assert_type(orders, jnp.int32)
    expected = np.tile(np.arange(count), (epochs, 1))
    chex.assert_trees_all_equal(np.sort(orders, axis=1), expected.astype(np.int32))
    if count > 10:
        assert len({row.tobytes() for row in np.asarray(orders)}) == epochs


def test_orders_are_uniform_and_independent():
    orders = np.asarray(_epochs.epoch_orders(jax.random.key(5), 24_000, 4))
    code = orders @ np.array([64, 16, 4, 1])
    counts = np.unique(code, return_counts=True)[1]
    assert len(counts) == 24 and chi_squared(counts) < 49.7  # 23 degrees, p = 0.001
    first = np.zeros((4, 4))
    np.add.at(first, (orders[:-1, 0], orders[1:, 0]), 1)  # an epoch and the next
    assert chi_squared(first) < 37.7  # 15 degrees of freedom, p = 0.001


def test_a_walk_drops_the_rest_of_an_epoch_and_starts_again_after_the_last():
    orders = _epochs.epoch_orders(jax.random.key(1), 2, 7)
    walked = [_epochs.epoch_rows(orders, jnp.int32(i), 3) for i in range(5)]
    expected = [orders[0, :3], orders[0, 3:6], orders[1, :3], orders[1, 3:6]]
    chex.assert_trees_all_equal(walked, [*expected, orders[0, :3]])


def test_epochs_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="epochs=0 of 3 rows"):
        _epochs.epoch_orders(jax.random.key(0), 0, 3)
    with pytest.raises(ValueError, match="batch_size=4 is not between 1 and 3"):
        _epochs.epoch_rows(jnp.zeros((1, 3), jnp.int32), jnp.int32(0), 4)


# ---- a table of shuffled epochs


@pytest.mark.parametrize("count", [5, 12, 20])
def test_each_epoch_of_the_table_is_a_permutation_of_its_own(count):
    table = _shuffle.shuffled_epochs(jax.random.key(0), jnp.int32(count), 60)
    epochs = np.asarray(table).reshape(-1, count)
    chex.assert_trees_all_equal(
        np.sort(epochs), np.tile(np.arange(count), (len(epochs), 1))
    )
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_an_epoch_leaves_out_its_incomplete_batch():
    table = jnp.arange(14)  # two epochs of 7
    rows = [_shuffle.batch_of(table, jnp.int32(i), jnp.int32(7), 3) for i in range(4)]
    assert np.asarray(rows).tolist() == [[0, 1, 2], [3, 4, 5], [7, 8, 9], [10, 11, 12]]
    assert _shuffle.table_size(steps=4, count=7, batch_size=3) == 14
    assert _shuffle.table_size(steps=5, count=7, batch_size=3) == 21


def test_orders_are_uniform():
    draw = jax.vmap(lambda k: _shuffle.shuffled_epochs(k, jnp.int32(3), 6)[3:])
    orders = np.asarray(draw(jax.random.split(jax.random.key(1), 1200)))
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert np.sum((counts - 200) ** 2 / 200) < 20.5  # 5 degrees of freedom, p = 0.001
