"""The examples that the permuted and the stationary stream hold out or keep back."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.streams import _images, _splits, mixed, permuted
from tests.fixtures import no_test_part
from tests.permuted_setting import BOTH, make, same_pixels
from tests.stream_setting import batches_of, task_of


@BOTH
def test_held_out_is_the_whole_test_set_then_nothing(module):
    stream = make(module, held_out_batch=4)
    data, state = task_of(stream, task=1)
    first, second, third = (
        stream.held_out(data, state, "test", jnp.int32(2), jnp.int32(i))
        for i in range(3)
    )
    x = np.concatenate([first.x, second.x[:3]])
    expected = np.asarray(data.test_x) / 255
    if module is permuted:
        expected = expected[:, np.asarray(state.pixels)]
    chex.assert_trees_all_close(x, expected.astype(np.float32), atol=1e-6)
    chex.assert_trees_all_equal(
        np.concatenate([first.y, second.y[:3]]), np.asarray(data.test_y)
    )
    assert first.weight.sum() == 4 and second.weight.tolist() == [1, 1, 1, 0]
    assert third.weight.sum() == 0 and bool(jnp.all(jnp.isfinite(third.x)))


@BOTH
def test_kept_back_examples_are_never_trained_on(module):
    stream = make(module, fit_examples=5, tune_examples=3, held_out_batch=8)
    data, state = task_of(stream)
    assert stream.spec.examples_per_task == 16 == stream.spec.steps_per_task
    parts = {"train": batches_of(stream, data, state, 16).x.reshape(16, 16)}
    for split, count in (("fit", 5), ("tune", 3)):
        batch = stream.held_out(data, state, split, jnp.int32(0), jnp.int32(0))
        assert batch.weight.sum() == count
        parts[split] = batch.x[:count]
    rows = [set(map(bytes, same_pixels(x))) for x in parts.values()]
    assert [len(r) for r in rows] == [16, 5, 3]
    assert len(set.union(*rows)) == 24
    again = make(module, fit_examples=5, tune_examples=3)
    chex.assert_trees_all_equal(stream.load(), again.load())


def test_kept_back_examples_are_drawn_at_random_with_their_labels():
    whole = make(permuted).load()
    label = {bytes(x): y for x, y in zip(whole.train_x, whole.train_y, strict=True)}
    kept = make(permuted, fit_examples=8).load()
    assert kept.train_y.tolist() == [label[bytes(x)] for x in kept.train_x]
    last = set(map(bytes, np.asarray(whole.train_x[-8:])))
    assert set(map(bytes, np.asarray(kept.train_x[-8:]))) != last


@BOTH
@pytest.mark.parametrize("split", ["fit", "tune"])
def test_a_split_that_is_empty_is_an_error_while_tracing(module, split):
    stream = make(module)
    data, state = task_of(stream)
    with pytest.raises(ValueError, match=f"{split}_examples=N"):
        jax.eval_shape(
            lambda d, s: stream.held_out(d, s, split, jnp.int32(0), jnp.int32(0)),
            data,
            state,
        )


def test_a_set_without_a_test_part_says_so():
    stream = permuted.make(dataset_options={"test_fraction": 0.0})
    assert stream.spec.examples_per_task == 1797
    assert not stream.spec.has_test and permuted.make().spec.has_test
    with pytest.raises(ValueError, match="has a test part"):
        _splits.held_out_rows(
            _images.open_images("digits", dataset_options={"test_fraction": 0.0}),
            "test",
            jnp.int32(0),
            4,
        )
    assert mixed.make().spec.has_test
    sets = ("digits", no_test_part.__name__)
    assert not mixed.make(datasets=sets).spec.has_test


@pytest.mark.parametrize("total", [*range(1, 41), 980, 30_030, 2**20 - 1])
def test_a_spread_order_has_every_number_once_and_is_even(total):
    places = jnp.arange(total + 2)
    found = np.asarray(_splits.spread(places, total))
    assert np.array_equal(np.sort(found), places)
    assert found[total:].tolist() == [total, total + 1]
    for part in (50, 200):
        share = np.mean(found[:part] < total // 2)
        assert part > total // 2 or abs(share - 0.5) < 0.05
