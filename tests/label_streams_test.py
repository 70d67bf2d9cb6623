"""Random and permuted labels: what a task's labels are, and which examples carry them."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import config, study
from cl_bench.fields import ConfigError
from cl_bench.registry import UnknownNameError
from cl_bench.streams import label_permuted, random_label
from tests.stream_setting import batches_of, chi_squared

IMAGES: dict[str, Any] = {"size": 3, "classes": 4, "train": 24, "test": 8}
TINY: dict[str, Any] = {
    "dataset": "synthetic",
    "dataset_options": IMAGES,
    "num_tasks": 3,
}


def _random(**options):
    small: dict[str, Any] = {"examples": 12, "epochs": 2, "batch_size": 4}
    return random_label.make(**{**TINY, **small, **options})


def _permuted(**options):
    small: dict[str, Any] = {"steps_per_task": 6, "batch_size": 4}
    return label_permuted.make(**{**TINY, **small, **options})


def _starts(stream, tasks, seed=0):
    """Task states, leaves [tasks, ...]."""
    data = jax.tree.map(jnp.asarray, stream.load())
    start = lambda task: stream.start(data, jax.random.key(seed), task)
    return data, jax.jit(jax.vmap(start))(jnp.arange(tasks, dtype=jnp.int32))


def _one(states, task):
    return jax.tree.map(lambda leaf: leaf[task], states)


# ---- random labels


def test_colour_channels_can_be_standardised_each_by_itself():
    options = {"dataset_options": IMAGES | {"channels": 3}}
    stream = _random(flatten=False, scale="channel", **options)
    data, states = _starts(stream, 1)
    batches = batches_of(stream, data, _one(states, 0), 3)  # one epoch: all 12 images
    x = np.asarray(batches.x).reshape(-1, 3)
    np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(x.std(axis=0), 1.0, rtol=1e-5)


@pytest.mark.parametrize("flatten", [True, False])
def test_an_epoch_shows_each_image_once_with_its_label_of_the_task(flatten):
    stream = _random(flatten=flatten, scale="zero_one")
    data, states = _starts(stream, 3)
    state = _one(states, 2)
    batches = batches_of(stream, data, state, stream.spec.steps_per_task)
    chex.assert_shape(batches.x, (6, 4, 9) if flatten else (6, 4, 3, 3, 1))
    pixels = np.round(np.asarray(batches.x) * 255).astype(np.uint8).reshape(24, 9)
    row = {bytes(x): n for n, x in enumerate(np.asarray(data.train_x))}
    rows = np.array([row[bytes(x)] for x in pixels])
    for epoch in rows.reshape(2, 12):
        assert sorted(epoch) == list(range(12))
    assert rows[:12].tolist() != rows[12:].tolist()
    assert np.asarray(batches.y).ravel().tolist() == state.labels[rows].tolist()
    chex.assert_trees_all_equal(batches.task, jnp.full((6, 4), 2))


def test_shuffled_labels_keep_the_classes_as_frequent_as_they_are():
    data, states = _starts(_random(), 40)
    true = np.sort(data.train_y)
    for labels in np.asarray(states.labels):
        chex.assert_trees_all_equal(np.sort(labels), true)
    assert len({labels.tobytes() for labels in np.asarray(states.labels)}) == 40


def test_shuffled_labels_say_nothing_about_the_images():
    data, states = _starts(_random(), 1000)
    y, labels = np.asarray(data.train_y), np.asarray(states.labels)
    share = np.mean(labels == y)
    expected = np.sum((np.bincount(y) / len(y)) ** 2)
    assert abs(share - expected) < 0.015  # over 4 standard errors of 12,000 labels


def test_uniform_labels_are_uniform_and_independent():
    states = _starts(_random(labels="uniform"), 1000)[1]
    labels = np.asarray(states.labels)
    assert chi_squared(np.bincount(labels.ravel(), minlength=4)) < 16.3  # 3, p = 0.001
    assert len({np.sort(row).tobytes() for row in labels}) > 20  # not one marginal


def test_the_images_are_the_first_of_the_training_part_for_every_seed():
    stream = _random()
    whole = _permuted().load()
    chex.assert_trees_all_equal(stream.load().train_x, whole.train_x[:12])


def test_random_labels_have_no_held_out_examples():
    stream = _random()
    data, states = _starts(stream, 1)
    for split in ("fit", "tune", "test"):
        with pytest.raises(ValueError, match=f"no '{split}' examples"):
            stream.held_out(data, _one(states, 0), split, jnp.int32(0), jnp.int32(0))


@pytest.mark.parametrize(
    "metric",
    [
        "accuracy_matrix",
        "anytime_accuracy",
        "pollution",
        "task_similarity",
        "test_accuracy",
    ],
)
@pytest.mark.parametrize(
    "stream",
    [
        {"name": "random_label"},
        {
            "name": "stationary",
            "dataset": "synthetic",
            "dataset_options": IMAGES | {"test": 0},
        },
    ],
)
def test_a_metric_of_test_examples_is_refused_before_anything_is_compiled(
    metric, stream
):
    made = config.study(
        name="random",
        stream=stream | {"num_tasks": 2},
        network={"name": "mlp", "widths": (3,)},
        method={"name": "backprop"},
        metrics=("online_accuracy", metric),
        seeds=1,
    )
    text = rf"config.metric \({metric}\): .* holds none: take online_accuracy"
    with pytest.raises(ConfigError, match=text):
        study.expand(made)


def test_the_spec_is_that_of_random_label_mnist():
    spec = random_label.make().spec
    assert (spec.num_tasks, spec.steps_per_task, spec.batch_size) == (50, 30_000, 16)
    assert spec.examples_per_task == 1200 and spec.scenario == "online"


# ---- permuted labels


def test_a_task_renames_the_classes():
    stream = _permuted(scale="zero_one")
    data, states = _starts(stream, 3)
    state = _one(states, 1)
    batches = batches_of(stream, data, state, 6)  # one pass of 24 examples
    order = np.asarray(state.order)
    assert sorted(order) == list(range(24))
    expected = np.asarray(data.train_x)[order].reshape(6, 4, 9) / np.float32(255)
    chex.assert_trees_all_close(batches.x, expected, atol=1e-6)
    true = np.asarray(data.train_y)[order]
    renamed = np.asarray(state.labels)[true]
    assert np.asarray(batches.y).ravel().tolist() == renamed.tolist()
    assert len(set(zip(true.tolist(), renamed.tolist(), strict=True))) == 4  # bijection


def test_label_permutations_are_uniform_and_new_in_every_task():
    states = _starts(_permuted(num_tasks=4800), 4800)[1]
    labels = np.asarray(states.labels)
    assert (np.sort(labels, axis=1) == np.arange(4)).all()
    counts = np.unique(labels @ np.array([64, 16, 4, 1]), return_counts=True)[1]
    assert len(counts) == 24 and chi_squared(counts) < 49.7  # 23 degrees, p = 0.001
    again = np.mean((labels[:-1] == labels[1:]).all(axis=1))
    assert again < 0.06  # by chance 1 / 24


def test_held_out_examples_have_the_labels_of_the_task():
    stream = _permuted(fit_examples=4, held_out_batch=6)
    data, states = _starts(stream, 2)
    state = _one(states, 1)
    for split, y in (("test", data.test_y), ("fit", data.train_y[20:])):
        parts = [
            stream.held_out(data, state, split, jnp.int32(0), jnp.int32(i))
            for i in range(2)
        ]
        seen = np.concatenate([np.asarray(b.y)[b.weight > 0] for b in parts])
        assert seen.tolist() == np.asarray(state.labels)[np.asarray(y)].tolist()
    with pytest.raises(ValueError, match="tune_examples=N"):
        stream.held_out(data, state, "tune", jnp.int32(0), jnp.int32(0))


# ---- both


@pytest.mark.parametrize("make", [_random, _permuted])
def test_the_seed_and_the_task_decide_everything(make):
    stream = make()
    states = _starts(stream, 3, seed=1)[1]
    chex.assert_trees_all_equal(states, _starts(make(), 3, seed=1)[1])
    other = _starts(stream, 3, seed=2)[1]
    walk = "orders" if make is _random else "order"
    assert not np.array_equal(getattr(states, walk), getattr(other, walk))
    assert not np.array_equal(states.labels, other.labels)
    assert not np.array_equal(getattr(states, walk)[0], getattr(states, walk)[1])


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (_random, {"labels": "uniforn"}, UnknownNameError, "mean 'uniform'"),
        (_random, {"epochs": 0}, ValueError, "epochs=0"),
        (_random, {"batch_size": 13}, ValueError, "batch_size=13.*examples=12"),
        (_random, {"examples": 25}, ValueError, "has 24 training examples"),
        (_random, {"offers": ("validation",)}, ValueError, "cannot offer 'validation'"),
        (_random, {"steps_per_segment": 4}, ValueError, "nearest that does is 3"),
        (_permuted, {"num_tasks": None, "total_steps": 5}, ValueError,
         "total_steps=5: it would never change.*steps_per_task=2 or.*num_tasks=1"),
        (_permuted, {"num_tasks": None, "total_steps": 11}, ValueError,
         "total_steps=11.*never change"),
        (_permuted, {"num_tasks": 1, "total_steps": 6}, ValueError, "never change"),
        (_permuted, {"num_tasks": 5, "total_steps": 25}, ValueError,
         "total_steps=25 hold 4 tasks.*not num_tasks=5: num_tasks=4 or fewer"),
        (_permuted, {"held_out_batch": 0}, ValueError, "held_out_batch=0"),
        (_permuted, {"steps_per_task": 0, "num_tasks": None}, ValueError, "=0"),
        (_permuted, {"num_tasks": 0}, ValueError, "num_tasks=0"),
        (_permuted, {"fit_examples": 24}, ValueError, "leave 0"),
        (_permuted, {"offers": ("validation",)}, ValueError, "fit_examples=N"),
    ],
)  # fmt: skip
def test_bad_options_name_what_works(make, options, error, message):
    with pytest.raises(error, match=message):
        make(**options)
