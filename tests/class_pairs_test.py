"""Pairs of classes: which classes meet, which images they bring, and what is refused."""

import os
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.datasets import _source, _tfds
from cl_bench.registry import UnknownNameError
from cl_bench.streams import class_pairs
from tests.stream_setting import task_of

# 12 training and 3 test images of each class
IMAGES: dict[str, Any] = {"size": 3, "classes": 5, "train": 60, "test": 15}
TINY: dict[str, Any] = {
    "dataset": "synthetic", "dataset_options": IMAGES, "num_tasks": 6, "epochs": 3,
    "batch_size": 4, "train_per_class": 6, "test_per_class": 2, "scale": "zero_one",
    "held_out_batch": 3,
}  # fmt: skip


def _make(**options):
    return class_pairs.make(**{**TINY, **options})


def _walk(stream, data, state):
    steps = jnp.arange(stream.spec.steps_per_task)
    return jax.jit(jax.vmap(lambda i: stream.batch(data, state, i)))(steps)


def _held(stream, data, state, split, size):
    """All rows of a split of the task, with weight 1."""
    read = jax.jit(lambda i: stream.held_out(data, state, split, jnp.int32(0), i))
    parts = [read(jnp.int32(i)) for i in range(-(-size // TINY["held_out_batch"]) + 1)]
    many = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    return jax.tree.map(lambda leaf: leaf[many.weight > 0], many)


def _bytes(x):
    """Pixels of each image, as the source has them."""
    x = np.asarray(x)
    pixels = x if x.dtype == np.uint8 else np.round(x * 255).astype(np.uint8)
    return [row.tobytes() for row in pixels]


def _members(part="train"):
    """Images of each class in the order of the source: class -> [bytes]."""
    data = _source.load("synthetic", **IMAGES)
    x, y = (
        (data.train_x, data.train_y) if part == "train" else (data.test_x, data.test_y)
    )
    return {c: _bytes(x[y == c]) for c in range(IMAGES["classes"])}


def _pairs(seed, tasks, classes):
    key = jax.random.split(jax.random.key(seed))[0]
    draw = jax.jit(jax.vmap(lambda t: class_pairs.pair_of_task(key, t, classes)))
    return np.asarray(draw(jnp.arange(tasks)))


def test_an_epoch_shows_each_image_of_the_two_classes_once_with_its_label():
    stream = _make()
    data, state = task_of(stream, task=3)
    first, second = (int(c) for c in state.classes)
    batches = _walk(stream, data, state)
    chex.assert_shape(batches.x, (9, 4, 3, 3, 1))
    members = _members()
    expected = {b: 0 for b in members[first][:6]} | {b: 1 for b in members[second][:6]}
    orders = []
    for epoch in np.split(np.asarray(batches.x).reshape(36, 3, 3, 1), 3):
        orders.append(_bytes(epoch))
        assert sorted(orders[-1]) == sorted(expected)
    assert orders[0] != orders[1] != orders[2]
    seen = [b for order in orders for b in order]
    assert [expected[b] for b in seen] == np.asarray(batches.y).ravel().tolist()
    chex.assert_trees_all_equal(batches.task, jnp.full((9, 4), 3))
    assert bool(jnp.all(batches.classes)) and batches.classes.shape[-1] == 2


def test_the_incomplete_last_batch_of_an_epoch_is_dropped():
    stream = _make(batch_size=5)
    assert stream.spec.steps_per_task == 3 * 2 and stream.spec.steps_per_segment == 2
    data, state = task_of(stream)
    for epoch in np.split(np.asarray(_walk(stream, data, state).x).reshape(30, -1), 3):
        assert len(set(_bytes(epoch))) == 10


@pytest.mark.parametrize("classes", [2, 5])
def test_a_sweep_meets_every_class_once_and_the_next_in_another_order(classes):
    half = classes // 2
    pairs = _pairs(seed=1, tasks=40 * half, classes=classes)
    sweeps = pairs.reshape(40, 2 * half)
    for sweep in sweeps:
        assert len(set(sweep.tolist())) == 2 * half
    assert len({tuple(sweep) for sweep in sweeps}) > 1
    chex.assert_trees_all_equal(pairs, _pairs(1, 40 * half, classes))
    assert not np.array_equal(pairs, _pairs(2, 40 * half, classes))


def test_every_class_and_both_labels_come_equally_often():
    pairs = _pairs(seed=0, tasks=2000, classes=5)
    for label in range(2):
        counts = np.bincount(pairs[:, label], minlength=5)
        assert (
            np.sum((counts - 400) ** 2 / 400) < 18.5
        )  # 4 degrees of freedom, p = 0.001


def test_the_seed_alone_decides_the_pairs():
    """Not the epochs, the batches, the images kept back or where tests come from."""
    one = _make()
    other = _make(epochs=2, batch_size=3, test_from="train", fit_per_class=1)
    for task in range(3):
        first, second = (task_of(s, seed=4, task=task)[1] for s in (one, other))
        chex.assert_trees_all_equal(first.classes, second.classes)
        assert first.task == task


def test_parts_are_disjoint_and_lie_where_the_docstring_says():
    stream = _make(
        fit_per_class=2, tune_per_class=1, test_per_class=3, test_from="train"
    )
    data, state = task_of(stream, task=1)
    members = [_members()[int(c)] for c in state.classes]
    wanted = {"fit": (6, 8), "tune": (8, 9), "test": (9, 12)}
    seen = set(_bytes(np.asarray(_walk(stream, data, state).x).reshape(36, -1)))
    assert seen == {b for m in members for b in m[:6]}
    for split, (start, end) in wanted.items():
        held = _held(stream, data, state, split, 2 * (end - start))
        expected = [m[start:end] for m in members]
        assert sorted(_bytes(held.x)) == sorted(expected[0] + expected[1])
        own = [expected[y] for y in held.y]
        assert all(b in m for b, m in zip(_bytes(held.x), own, strict=True))
        assert not seen & set(_bytes(held.x))


@pytest.mark.parametrize(
    ("test_from", "per_class", "part", "rows"),
    [
        ("auto", 2, "test", slice(0, 2)),
        ("test", 3, "test", slice(0, 3)),
        ("train", 2, "train", slice(10, 12)),
        ("auto", 4, "train", slice(8, 12)),  # the test part has only 3
    ],
)
def test_where_test_images_come_from(test_from, per_class, part, rows):
    stream = _make(test_from=test_from, test_per_class=per_class)
    data, state = task_of(stream)
    held = _held(stream, data, state, "test", 2 * per_class)
    expected = [_members(part)[int(c)][rows] for c in state.classes]
    assert sorted(_bytes(held.x)) == sorted(expected[0] + expected[1])


def test_training_pixels_are_standardised():
    stream = _make(scale="standardise")
    data = stream.load()
    pixels = np.asarray(data.train_x, np.float32)
    data, state = task_of(stream)
    batch = stream.batch(data, state, jnp.int32(0))
    raw = _make().batch(data, state, jnp.int32(0)).x * 255
    expected = (raw - pixels.mean()) / pixels.std()
    chex.assert_trees_all_close(batch.x, expected, atol=1e-4)


def test_the_spec_is_that_of_continual_imagenet():
    options = {"size": 2, "classes": 2, "train": 1200, "test": 200}
    spec = class_pairs.make(dataset="synthetic", dataset_options=options).spec
    assert (spec.num_tasks, spec.steps_per_task, spec.steps_per_segment) == (
        2000, 3000, 12,
    )  # fmt: skip
    assert (spec.batch_size, spec.examples_per_task, spec.num_outputs) == (100, 1200, 2)
    assert spec.reset_head and spec.offers == {"boundaries"}
    assert spec.input_shape == (2, 2, 1) and spec.scenario == "domain"
    kumar = _make(reset_head=False, offers=()).spec
    assert not kumar.reset_head and kumar.scenario == "online"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"train_per_class": 13}, ValueError,
         "class 0 has 12 training.*need 13 .*train_per_class=12,test_per_class=2"),
        ({"test_from": "test", "test_per_class": 4}, ValueError,
         "class 0 has 3 test images.*works: train_per_class=6,test_per_class=3"),
        ({"test_from": "train", "train_per_class": 12, "test_per_class": 4}, ValueError,
         "need 16 .*works: train_per_class=9,test_per_class=3"),
        ({"fit_per_class": 7}, ValueError, "works: train_per_class=5,test_per_class=2"),
        ({"fit_per_class": 12}, ValueError, "12 training images: keep fewer back"),
        ({"fit_per_class": -1}, ValueError, "fit_per_class=-1"),
        ({"test_per_class": 0}, ValueError, "at least 1"),
        ({"held_out_batch": 0}, ValueError, "held_out_batch=0"),
        ({"test_from": "tset"}, UnknownNameError, "mean 'test'"),
        ({"epochs": 0}, ValueError, "epochs=0"),
        ({"batch_size": 13}, ValueError, "batch_size=13 between 1 and the 12"),
        ({"steps_per_segment": 4}, ValueError, "nearest that does is 3"),
        ({"offers": ("validation",)}, ValueError, "fit_per_class=N"),
    ],
)  # fmt: skip
def test_bad_options_name_what_works(options, error, message):
    with pytest.raises(error, match=message):
        _make(**options)


def test_a_split_without_images_is_an_error_while_tracing():
    stream = _make()
    data, state = task_of(stream)
    with pytest.raises(ValueError, match="fit_per_class=N"):
        stream.held_out(data, state, "fit", jnp.int32(0), jnp.int32(0))


def test_digits_are_paired_too():
    stream = class_pairs.make(dataset="digits", train_per_class=120, test_per_class=25)
    assert stream.spec.input_shape == (8, 8, 1)
    class_pairs.make(dataset="digits", train_per_class=145, test_per_class=29)
    with pytest.raises(
        ValueError, match="class 8 has 145 .*train_per_class=145,test_per_class=29"
    ):
        class_pairs.make(dataset="digits")


REAL = os.environ.get("TFDS_DATA_DIR")


def test_the_real_imagenet_subset():
    name = "imagenet_resized/32x32"
    if REAL is None or _tfds.prepared_folder(name, Path(REAL)) is None:
        pytest.skip(f"{name} is not prepared in TFDS_DATA_DIR ({REAL})")
    with pytest.raises(ValueError, match="train_per_class=500,test_per_class=50"):
        class_pairs.make(dataset=name, data_dir=REAL)
    sizes = {"train_per_class": 500, "test_per_class": 50}
    stream = class_pairs.make(dataset=name, data_dir=REAL, scale="zero_one", **sizes)
    assert stream.spec.steps_per_task == 250 * 10
    data = stream.load()
    assert data.train_y.tolist() == np.repeat(np.arange(100), 500).tolist()
    assert data.test_y.tolist() == np.repeat(np.arange(100), 50).tolist()
    state = jax.jit(stream.start)(data, jax.random.key(0), jnp.int32(7))
    source = _source.load(name, data_dir=REAL)
    second = np.asarray(source.train_x[source.train_y == int(state.classes[1])])
    data = jax.tree.map(jnp.asarray, data)
    batch = jax.jit(stream.batch)(data, state, jnp.int32(0))
    assert {0, 1} == set(batch.y.tolist())
    ones = _bytes(batch.x[batch.y == 1])
    assert set(ones) <= set(_bytes(second)) and len(set(ones)) == len(ones)
