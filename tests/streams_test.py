"""The permuted and the stationary stream: what a task is made of, and what it costs."""

import os
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_bench.datasets import _tfds
from cl_bench.registry import UnknownNameError
from cl_bench.streams import _images, permuted, stationary
from tests.permuted_setting import BOTH, TINY, make, same_pixels
from tests.stream_setting import batches_of, task_of


@BOTH
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_task_shows_every_example_once_with_its_label(module, batch_size):
    stream = make(module, batch_size=batch_size)
    data, state = task_of(stream)
    steps = stream.spec.steps_per_task
    assert steps == 24 // batch_size == stream.spec.steps_per_segment
    batches = batches_of(stream, data, state, steps)
    chex.assert_shape(batches.x, (steps, batch_size, 16))
    chex.assert_type([batches.x, batches.weight], jnp.float32)
    seen = same_pixels(batches.x * 255)
    order = np.asarray(state.order)
    expected = same_pixels(data.train_x)[order]
    chex.assert_trees_all_close(seen, expected.astype(np.float32), atol=1e-3)
    chex.assert_trees_all_equal(batches.y.ravel(), data.train_y[order])
    assert sorted(order) == list(range(24))
    chex.assert_trees_all_equal(batches.weight, jnp.ones((steps, batch_size)))
    assert bool(jnp.all(batches.classes)) and batches.classes.shape[-1] == 3


def test_pixels_are_those_of_the_task_permutation():
    stream = make(permuted, batch_size=4)
    data, state = task_of(stream, task=2)
    assert sorted(np.asarray(state.pixels)) == list(range(16))
    batch = stream.batch(data, state, jnp.int32(1))
    rows = np.asarray(state.order)[4:8]
    expected = np.asarray(data.train_x)[rows][:, np.asarray(state.pixels)] / 255
    chex.assert_trees_all_close(batch.x, expected.astype(np.float32), atol=1e-6)
    chex.assert_trees_all_equal(batch.task, jnp.full(4, 2))


def test_stationary_pixels_never_move():
    stream = make(stationary, batch_size=24)
    for task in range(3):
        data, state = task_of(stream, task=task)
        x = np.asarray(stream.batch(data, state, jnp.int32(0)).x)
        expected = np.asarray(data.train_x)[np.asarray(state.order)] / 255
        chex.assert_trees_all_close(x, expected.astype(np.float32), atol=1e-6)


def test_stationary_can_keep_the_image_shape():
    stream = make(stationary, batch_size=2, flatten=False)
    data, state = task_of(stream)
    assert stream.spec.input_shape == (4, 4, 1)
    chex.assert_shape(stream.batch(data, state, jnp.int32(0)).x, (2, 4, 4, 1))
    held_out = stream.held_out(data, state, "test", jnp.int32(0), jnp.int32(0))
    chex.assert_shape(held_out.x, (100, 4, 4, 1))


@BOTH
def test_a_task_longer_than_a_pass_repeats_its_order(module):
    stream = make(module, batch_size=5, steps_per_task=12)
    data, state = task_of(stream)
    y = np.asarray(batches_of(stream, data, state, 12).y).ravel()
    walked = np.asarray(data.train_y)[np.asarray(state.order)]
    chex.assert_trees_all_equal(y, np.tile(walked, 3)[:60])


@BOTH
def test_the_seed_and_the_task_decide_everything(module):
    stream = make(module)
    _, state = task_of(stream, seed=1, task=1)
    chex.assert_trees_all_equal(state, task_of(stream, seed=1, task=1)[1])
    for seed, task in ((1, 2), (2, 1)):
        other = task_of(stream, seed=seed, task=task)[1]
        assert not np.array_equal(state.order, other.order)
        if module is permuted:
            assert not np.array_equal(state.pixels, other.pixels)


def test_permutations_are_uniform():
    """Over 2,000 tasks each pixel lands in each place about equally often."""
    stream = make(permuted, dataset_options=TINY | {"size": 2}, num_tasks=2000)
    data = stream.load()
    start = jax.vmap(lambda t: stream.start(data, jax.random.key(3), t).pixels)
    pixels = np.asarray(jax.jit(start)(jnp.arange(2000)))
    counts = np.stack([np.bincount(pixels[:, d], minlength=4) for d in range(4)])
    chi_squared = np.sum((counts - 500) ** 2 / 500)
    assert chi_squared < 27.9  # 9 degrees of freedom, p = 0.001
    assert len({tuple(p) for p in pixels}) == 24


@settings(max_examples=8, deadline=None)
@given(
    count=st.sampled_from([1, 7, 12]),
    batch_size=st.integers(1, 12),
    seed=st.integers(0, 2**31 - 1),
)
def test_a_walk_visits_all_before_any_twice(count, batch_size, seed):
    order = _images.example_order(jax.random.key(seed), count)
    steps = -(-2 * count // batch_size)
    rows = [
        _images.next_examples(order, jnp.int32(i), batch_size) for i in range(steps)
    ]
    walked = np.concatenate(rows)[: 2 * count].reshape(2, count)
    for one_pass in walked:
        assert sorted(one_pass) == list(range(count))


@settings(max_examples=15, deadline=None)
@given(
    rows=st.lists(st.integers(0, 6), min_size=1, max_size=5),
    seed=st.integers(0, 2**31 - 1),
)
def test_a_gather_is_numpy_indexing(rows, seed):
    random = np.random.RandomState(seed)
    x = random.randint(0, 256, (7, 9)).astype(np.uint8)
    pixels = random.permutation(9).astype(np.int32)
    taken = _images.pixel_rows(jnp.asarray(x), jnp.asarray(rows), jnp.asarray(pixels))
    chex.assert_trees_all_equal(np.asarray(taken), x[rows][:, pixels])
    plain = _images.pixel_rows(jnp.asarray(x), jnp.asarray(rows))
    chex.assert_trees_all_equal(np.asarray(plain), x[rows])


def test_the_first_examples_only():
    stream = make(permuted, examples=10)
    whole, few = make(permuted).load(), stream.load()
    chex.assert_trees_all_equal(few.train_x, whole.train_x[:10])
    assert stream.spec.examples_per_task == 10


@pytest.mark.parametrize(
    ("scale", "low", "high"), [("zero_one", 0.0, 1.0), ("minus_one_one", -1.0, 1.0)]
)
def test_scales_map_black_and_white_exactly(scale, low, high):
    images = _make_images(scale)
    batch = _images.make_batch(
        images, jnp.array([[0, 255]], jnp.uint8), jnp.zeros(1, int), jnp.int32(0)
    )
    chex.assert_trees_all_close(batch.x, jnp.array([[low, high]]), atol=1e-7)


def _make_images(scale):
    return _images.open_images("synthetic", dataset_options=TINY, scale=scale)


def test_standardised_pixels_have_mean_zero_and_deviation_one():
    stream = make(permuted, batch_size=24, scale="standardise")
    x = stream.batch(*task_of(stream), jnp.int32(0)).x
    np.testing.assert_allclose([x.mean(), x.std()], [0, 1], atol=1e-4)


@BOTH
def test_lanes_agree_with_one_lane(module):
    """Per-lane permutations over shared data, as the executor batches them."""
    stream = make(module, batch_size=3)
    data = jax.tree.map(jnp.asarray, stream.load())
    keys = jax.random.split(jax.random.key(0), 4)

    def first(key):
        state = stream.start(data, key, jnp.int32(1))
        return stream.batch(data, state, jnp.int32(2))

    lanes = jax.jit(jax.vmap(first))(keys)
    one_by_one = jax.tree.map(lambda *b: jnp.stack(b), *map(jax.jit(first), keys))
    chex.assert_trees_all_equal(lanes, one_by_one)


@BOTH
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_batch_lowers_for_accelerators_without_a_loop(module, platform):
    stream = make(module, batch_size=4)
    data, state = task_of(stream)
    lowered = jax.export.export(jax.jit(stream.batch), platforms=[platform])(
        data, state, jnp.int32(0)
    )
    assert "stablehlo.while" not in lowered.mlir_module()


def test_the_spec_says_what_the_stream_is():
    spec = make(permuted, offers=("boundaries",), steps_per_segment=8).spec
    assert hash(spec) == hash(spec._replace())
    assert spec.scenario == "domain" and spec.steps_per_segment == 8
    assert make(permuted).spec.scenario == "online"
    assert permuted.make().spec.input_shape == (64,)  # the embedded digits


@BOTH
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps_per_segment": 7}, ValueError, "nearest that does is (6|8)"),
        ({"steps_per_task": 0}, ValueError, "steps_per_task=0"),
        ({"steps_per_task": 2**31}, ValueError, "fewer than 2"),
        ({"batch_size": 25}, ValueError, "batch_size=25"),
        ({"num_tasks": 0}, ValueError, "num_tasks=0"),
        ({"examples": 25}, ValueError, "examples=25"),
        ({"fit_examples": 24}, ValueError, "leave 0"),
        ({"fit_examples": -5, "tune_examples": 5}, ValueError, "fit_examples=-5"),
        ({"fit_examples": 5, "tune_examples": -5}, ValueError, "tune_examples=-5"),
        ({"held_out_batch": 0}, ValueError, "held_out_batch=0"),
        ({"held_out_batch": -1}, ValueError, "held_out_batch=-1"),
        ({"scale": "zero_on"}, UnknownNameError, "mean 'zero_one'"),
        ({"offers": ("boundary",)}, UnknownNameError, "mean 'boundaries'"),
        ({"offers": "boundary"}, UnknownNameError, "mean 'boundaries'"),
        ({"offers": ("validation",)}, ValueError, "fit_examples=N"),
        ({"dataset": "synthetik"}, FileNotFoundError, "mean 'synthetic'"),
        ({"dataset_options": {"sise": 3}}, UnknownNameError, "mean 'size'"),
    ],
)
def test_bad_options_name_the_nearest_that_works(module, options, error, message):
    with pytest.raises(error, match=message):
        make(module, **options)


REAL = os.environ.get("TFDS_DATA_DIR")


def test_real_mnist():
    if REAL is None or _tfds.prepared_folder("mnist", Path(REAL)) is None:
        pytest.skip(f"mnist is not prepared in TFDS_DATA_DIR ({REAL})")
    stream = permuted.make(dataset="mnist", num_tasks=800, data_dir=REAL)
    assert stream.spec.input_shape == (784,)
    assert stream.spec.steps_per_task == 60_000
    data, state = task_of(stream, task=799)
    batch = jax.jit(stream.batch)(data, state, jnp.int32(59_999))
    row = int(state.order[-1])
    expected = np.asarray(data.train_x[row])[np.asarray(state.pixels)] / 255
    chex.assert_trees_all_close(batch.x[0], expected.astype(np.float32), atol=1e-6)
    assert batch.y[0] == data.train_y[row]
