"""Transformed and mixed streams: what each task shows, and to which outputs it maps."""

import math
import os
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from cl_bench.datasets import _source, _tfds
from cl_bench.streams import _views, mixed, transformed
from tests.fixtures import coloured
from tests.stream_setting import task_of

close = chex.assert_trees_all_close


def make(**options: Any):
    return transformed.make(**{"num_tasks": 3, "batch_size": 10, **options})


def walk(stream, task=0, seed=0, steps=None):
    data, state = task_of(stream, task, seed)
    read = jax.jit(jax.vmap(lambda i: stream.batch(data, state, i)))
    batches = jax.tree.map(np.asarray, read(jnp.arange(steps or 20)))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), batches)


def held_out(stream, task, now=2, i=0):
    data, state = task_of(stream, task)
    read = jax.jit(stream.held_out, static_argnums=2)
    return jax.tree.map(np.asarray, read(data, state, "test", jnp.int32(now), i))


def test_images_in_a_frame():
    plain, wide = make(identity_first=True), make(identity_first=True, pad=2)
    assert wide.spec.input_shape == (144,) and plain.spec.input_shape == (64,)
    x = walk(wide).x.reshape(-1, 12, 12).copy()
    close(x[:, 2:10, 2:10], walk(plain).x.reshape(-1, 8, 8))
    x[:, 2:10, 2:10] = 0.0
    assert (x == 0.0).all()
    assert sorted(np.asarray(task_of(wide, 1)[1].views.index)[:, 0]) == list(range(144))
    seen, narrow = held_out(wide, 1).x, held_out(plain, 1).x
    close(np.sort(seen)[:, 80:], np.sort(narrow))  # the frame is moved with the rest
    # A frame is black, whatever the scale, which is that of the images alone.
    scaled = walk(make(identity_first=True, pad=1, scale="standardise")).x
    same = walk(make(identity_first=True, scale="standardise")).x
    inner = scaled.reshape(-1, 10, 10)[:, 1:9, 1:9].reshape(-1, 64)
    close(inner, same)
    assert (scaled.reshape(-1, 10, 10)[:, 0] == same.min()).all()  # black
    turned = make(view="rotate", degrees=90.0, pad=1, flatten=False)
    assert turned.spec.input_shape == (10, 10, 1)
    with pytest.raises(ValueError, match="pad=-1: at least 0 pixels"):
        make(pad=-1)


def test_permuted_tasks_move_a_fraction_of_the_pixels():
    stream = make(fraction=0.25)
    moved = []
    for task in range(3):
        index = np.asarray(task_of(stream, task)[1].views.index)[:, 0]
        assert sorted(index) == list(range(64))
        moved.append(frozenset(np.flatnonzero(index != np.arange(64))))
        assert 0 < len(moved[-1]) <= 16
        test_x = stream.load().test_x[:100, index].astype(np.float32) / 255
        close(held_out(stream, task).x, test_x)
    assert len(set(moved)) == 3
    whole = np.asarray(task_of(make(), 0)[1].views.index)[:, 0]
    assert np.mean(whole != np.arange(64)) > 0.8
    first = make(identity_first=True)
    assert (np.asarray(task_of(first, 0)[1].views.index)[:, 0] == np.arange(64)).all()


def test_rotation_as_scipy():
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(9, 9, 2)).astype(np.float32)
    for degrees in (0.0, 30.0, 90.0, 200.0):
        index, weight = _views.rotated(image.shape, jnp.float32(degrees))
        view = _views.View(index, weight, jnp.arange(2))
        found = _views.seen(view, None, jnp.asarray(image.reshape(1, -1)))
        expected = ndimage.rotate(image, degrees, (0, 1), reshape=False, order=1,
                                  mode="grid-constant")  # fmt: skip
        close(found.reshape(image.shape), expected.astype(np.float32), atol=1e-4)


def test_rotated_tasks_turn_by_equal_or_by_random_angles():
    even = make(view="rotate", degrees=90.0)
    images = even.load().test_x[:100].reshape(-1, 8, 8).astype(np.float32) / 255
    for task in range(3):
        turned = np.rot90(images, task, axes=(1, 2)).reshape(100, -1)
        close(held_out(even, task).x, turned, atol=1e-5)
    views = [task_of(make(view="rotate"), t)[1].views.weight for t in range(3)]
    assert not np.allclose(views[0], views[1]) and not np.allclose(views[1], views[2])


def test_a_gradual_drift_ends_where_the_next_task_starts():
    stream = make(view="rotate", degrees=40.0, gradual=True)
    steps = stream.spec.steps_per_task
    data, state = task_of(stream, 1)
    rows = np.asarray(state.order)[0]
    for i, part in ((0, 1 / steps), (steps - 1, 1.0)):
        index, weight = _views.rotated((8, 8, 1), jnp.float32(40 + 40 * part))
        view = _views.View(index, weight, jnp.arange(10))
        x = data.train_x[rows[i * 10 : i * 10 + 10]].astype(jnp.float32) / 255
        close(stream.batch(data, state, i).x, _views.seen(view, None, x), atol=1e-5)
    next_start, _ = _views.rotated((8, 8, 1), jnp.float32(80))
    chex.assert_trees_all_equal(state.views.index, next_start)
    assert not stream.spec.offers and stream.spec.scenario == "online"


def test_label_permutations_of_a_fraction():
    stream = make(view="relabel", fraction=0.4)
    data = stream.load()
    for task in range(3):
        labels = np.asarray(task_of(stream, task)[1].views.labels)
        assert sorted(labels) == list(range(10))
        assert (labels != np.arange(10)).sum() <= 4
        found = held_out(stream, task)
        close(found.y, labels[data.test_y[:100]].astype(np.int32))
        close(found.x, data.test_x[:100].astype(np.float32) / 255)


@pytest.mark.parametrize("training", ["cumulative", "joint"])
def test_joint_training_shows_examples_as_all_tasks_concerned_do(training):
    stream = make(training=training, scenario="class", active="seen")
    found = walk(stream, task=1, steps=60)
    tasks = {0, 1} if training == "cumulative" else {0, 1, 2}
    assert set(found.task) == tasks
    data, state = task_of(stream, 1)
    known = {row.tobytes(): int(y) for row, y in zip(data.train_x, data.train_y,
                                                     strict=True)}  # fmt: skip
    index = np.asarray(state.views.index)[:, :, 0]
    for x, y, task in zip(found.x[:50], found.y[:50], found.task[:50], strict=True):
        original = np.empty(64, np.uint8)
        original[index[task]] = np.round(x * 255).astype(np.uint8)
        assert y == known[original.tobytes()] + 10 * task
    in_play = found.classes[0].sum()
    assert in_play == (20 if training == "cumulative" else 30)
    shares = np.bincount(found.task) / len(found.task)
    assert abs(shares[:2] - 1 / len(tasks)).max() < 0.1


def test_an_epoch_shows_every_image_once_and_the_next_in_another_order():
    stream = make(epochs=2)
    n = len(stream.load().train_y)
    found = walk(stream, steps=stream.spec.steps_per_task)
    assert stream.spec.steps_per_task == 2 * (n // 10)
    first, second = np.split(found.x, 2)
    assert len({row.tobytes() for row in first}) > 0.98 * n
    assert not np.array_equal(first, second)


def test_mixed_sets_in_one_frame_with_their_own_labels():
    stream = mixed.make(image_shape=(12, 10), batch_size=10)
    spec, data = stream.spec, stream.load()
    assert spec.num_tasks == 2 and spec.num_outputs == 20
    digits = held_out(stream, 0)
    image = digits.x[0].reshape(12, 10)
    assert image[2:10, 1:9].max() > 0 and image[:2].max() == image[10:].max() == 0
    close(digits.y, data.test_y[:100].astype(np.int32))
    other = held_out(stream, 1)
    valid = other.weight > 0
    assert (other.y[valid] >= 10).all() and (other.task == 1).all()
    assert other.classes[0, 10:].all() and not other.classes[0, :10].any()
    assert set(walk(mixed.make(training="joint", batch_size=10)).task) == {0, 1}


def framed_grey(images, frame):
    """Images [N, H, W, C] in grey in the middle of a frame, [N, H W] in [0, 1]."""
    n, height, width, _ = images.shape
    top, left = (frame[0] - height) // 2, (frame[1] - width) // 2
    found = np.zeros((n, *frame))
    mean = np.round(images.astype(np.float64).mean(axis=3))
    found[:, top : top + height, left : left + width] = mean
    return (found.reshape(n, -1) / 255).astype(np.float32)


def test_colours_are_averaged_beside_a_set_without():
    stream = mixed.make(datasets=("digits", coloured.__name__), batch_size=10)
    spec, colour = stream.spec, coloured.load()
    assert colour.test_x.shape == (20, 6, 6, 3)
    assert spec.num_tasks == 2 and spec.num_outputs == 20 and spec.input_shape == (64,)
    found = held_out(stream, 1)
    assert found.weight.sum() == 20
    expected = framed_grey(colour.test_x, (8, 8))
    close(found.x[:20], expected, atol=1e-6)
    assert np.abs(expected - framed_grey(colour.test_x[..., :1], (8, 8))).max() > 0.1
    close(found.y[:20], colour.test_y + 10)
    pixels = lambda x: {row.tobytes() for row in np.round(x * 255).astype(np.uint8)}
    assert pixels(walk(stream, task=1).x) <= pixels(framed_grey(colour.train_x, (8, 8)))
    digits = _source.load("digits")
    close(held_out(stream, 0).x, framed_grey(digits.test_x[:100], (8, 8)), atol=1e-6)


REAL = os.environ.get("TFDS_DATA_DIR")
NAMES = ("mnist", "fashion_mnist", "cifar10")


def test_mnist_fashion_and_cifar_in_one_frame():
    for name in NAMES:
        if REAL is None or _tfds.prepared_folder(name, Path(REAL)) is None:
            pytest.skip(f"{name} is not prepared in TFDS_DATA_DIR ({REAL})")
    stream = mixed.make(datasets=NAMES, data_dir=REAL, examples=200, batch_size=50)
    assert stream.spec.input_shape == (32 * 32,) and stream.spec.num_outputs == 30
    for task, name in enumerate(NAMES):
        own = _source.load(name, data_dir=REAL)
        found = held_out(stream, task)
        close(found.x, framed_grey(own.test_x[:100], (32, 32)), atol=1e-6)
        close(found.y, own.test_y[:100].astype(np.int32) + 10 * task)
        assert set(walk(stream, task, steps=4).y) == set(
            range(10 * task, 10 * task + 10)
        )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"fraction": 1.5}, "from 0 to 1"),
        ({"view": "rotate", "degrees": math.inf}, "degrees=inf"),
        ({"held_out_batch": 0}, "held_out_batch=0"),
        ({"fit_examples": -100, "tune_examples": 100}, "fit_examples=-100"),
        ({"degrees": 10.0}, "view='rotate'"),
        ({"view": "rotate", "gradual": True, "training": "joint"}, "sequential"),
    ],
)
def test_settings_of_views_that_cannot_be(options, text):
    with pytest.raises(ValueError, match=text):
        make(**options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"datasets": ("digits",)}, "two names or more"),
        ({"image_shape": (4, 4)}, "at least 8 and 8"),
        ({"examples": 0}, "examples=0"),
        ({"held_out_batch": 0}, "held_out_batch=0"),
        ({"batch_size": 10**6}, "smallest task"),
        ({"offers": ("boundries",)}, "'boundries'.*boundaries"),
        ({"offers": ("validation",)}, "no examples back.*boundaries"),
    ],
)
def test_settings_of_mixed_sets_that_cannot_be(options, text):
    with pytest.raises(ValueError, match=text):
        mixed.make(**options)
