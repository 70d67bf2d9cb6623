"""Scenarios and split classes: whose examples, which labels, which outputs in play."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.methods import _freeze
from cl_bench.registry import UnknownNameError
from cl_bench.streams import _scenario, split_classes

close = chex.assert_trees_all_close


def make(**options: Any):
    return split_classes.make(**{"class_order": "natural", "batch_size": 10, **options})


def walk(stream, task, seed=0):
    """All batches of a task, leaves [examples, ...], and its state."""
    data = jax.tree.map(jnp.asarray, stream.load())
    state = jax.jit(stream.start)(data, jax.random.key(seed), jnp.int32(task))
    read = jax.jit(jax.vmap(lambda i: stream.batch(data, state, i)))
    batches = jax.tree.map(np.asarray, read(jnp.arange(stream.spec.steps_per_task)))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), batches), state


def held_out(stream, task, now, split="test"):
    data = jax.tree.map(jnp.asarray, stream.load())
    state = jax.jit(stream.start)(data, jax.random.key(0), jnp.int32(task))
    read = jax.jit(jax.vmap(lambda i: stream.held_out(data, state, split, now, i)))
    found = jax.tree.map(np.asarray, read(jnp.arange(30)))
    found = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), found)
    return jax.tree.map(lambda a: a[found.weight > 0], found)


def true_class(x, stream):
    """The data set's own label of each image, by its pixels."""
    data = stream.load()
    pixels = np.concatenate([data.train_x, data.test_x])
    labels = np.concatenate([data.train_y, data.test_y])
    known = {row.tobytes(): int(y) for row, y in zip(pixels, labels, strict=True)}
    rows = np.round(x * 255).astype(np.uint8).reshape(len(x), -1)
    return np.array([known[row.tobytes()] for row in rows])


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_every_image_of_a_tasks_classes_once_an_epoch_with_its_label(scenario):
    stream = make(scenario=scenario)
    seen, state = walk(stream, task=3)
    classes = true_class(seen.x, stream)
    assert set(classes) == {6, 7}
    count = int(np.sum(state.counts))
    epoch = seen.x[: count // 10 * 10]
    assert len({row.tobytes() for row in epoch}) == len(epoch)  # none twice
    label = classes - 6 if scenario == "domain" else classes
    close(seen.y, label.astype(np.int32))
    assert (seen.task == 3).all() and (seen.weight == 1).all()


def test_random_orders_differ_by_seed_and_hold_every_class_once():
    stream = make(class_order="random")
    orders = [walk(stream, 0, seed)[1].order for seed in range(3)]
    assert all(sorted(np.asarray(o)) == list(range(10)) for o in orders)
    assert len({tuple(np.asarray(o)) for o in orders}) == 3
    again = walk(stream, 4, 0)[1].order  # another task of the same run
    close(again, orders[0])


@pytest.mark.parametrize(
    ("training", "task", "expected"),
    [("sequential", 1, {2, 3}), ("cumulative", 1, {0, 1, 2, 3}),
     ("joint", 1, set(range(10))), ("cumulative", 4, set(range(10)))],
)  # fmt: skip
def test_whose_examples_a_task_trains_on(training, task, expected):
    stream = make(training=training, scenario="task", steps_per_task=60)
    seen, _ = walk(stream, task)
    classes = true_class(seen.x, stream)
    assert set(classes) == expected
    close(seen.task, (classes // 2).astype(np.int32))
    in_play = np.arange(10) // 2 == (classes // 2)[:, None]
    chex.assert_trees_all_equal(seen.classes, in_play)


def test_every_training_regime_takes_as_many_steps():
    steps = {make(training=t, epochs=3).spec.steps_per_task for t in _scenario.TRAINING}
    # The embedded set has 1,501 training images: 300 a task on average.
    assert steps == {3 * 30}


def test_the_first_held_out_images_are_of_both_classes():
    for task in range(5):
        y = held_out(make(held_out_batch=10), task, now=4).y[:20]
        assert 6 <= (y == y.min()).sum() <= 14


def test_held_out_images_are_all_of_the_tasks_own_whatever_it_trains_on():
    stream = make(training="joint")
    test_y = stream.load().test_y
    for task in (0, 4):
        found = held_out(stream, task, now=4)
        classes = true_class(found.x, stream)
        expected = np.isin(test_y, [2 * task, 2 * task + 1]).sum()
        assert len(classes) == expected and set(classes) == {2 * task, 2 * task + 1}
        close(found.y, classes.astype(np.int32))


def test_images_kept_back_are_never_trained_on():
    stream = make(fit_per_class=5, tune_per_class=3, scenario="domain")
    fit, tune = (held_out(stream, 2, now=2, split=s) for s in ("fit", "tune"))
    assert len(fit.y) == 10 and len(tune.y) == 6 and set(fit.y) == {0, 1}
    kept = {row.tobytes() for row in np.concatenate([fit.x, tune.x])}
    trained = {row.tobytes() for row in walk(stream, 2)[0].x}
    assert len(kept) == 16 and not kept & trained


def outputs(rule, task, now, test=False):
    found = _scenario.in_play(rule, jnp.array([task]), jnp.int32(now), test=test)
    return set(np.flatnonzero(found[0]).tolist())


def test_outputs_in_play_of_each_scenario():
    every = set(range(6))  # three tasks of two labels
    make_rule = _scenario.make
    assert outputs(make_rule("task", 3, 2), 1, 2) == {2, 3}
    assert outputs(make_rule("task", 3, 2, single_head=True), 1, 2) == {0, 1}
    assert outputs(make_rule("domain", 3, 2), 1, 2) == {0, 1}
    assert outputs(make_rule("class", 3, 2), 0, 0) == every
    seen = make_rule("class", 3, 2, active="seen")
    assert outputs(seen, 1, 1) == outputs(seen, 0, 1, test=True) == {0, 1, 2, 3}
    current = make_rule("class", 3, 2, active="current")
    assert outputs(current, 1, 1) == {2, 3}
    assert outputs(current, 0, 1, test=True) == {0, 1, 2, 3}
    joint = make_rule("class", 3, 2, active="seen", training="joint")
    assert outputs(joint, 2, 0) == every


@pytest.mark.parametrize(
    ("options", "offered", "name"),
    [({"scenario": "task"}, {"boundaries", "task_id"}, "task"),
     ({"scenario": "class"}, {"boundaries"}, "class"),
     ({"scenario": "class", "offers": ()}, set(), "online")],
)  # fmt: skip
def test_what_a_scenario_tells(options, offered, name):
    spec = make(**options).spec
    assert spec.offers == offered and spec.scenario == name
    assert spec.num_outputs == 10 and spec.num_tasks == 5


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"num_tasks": 6}, ValueError, "6 tasks of 2 new classes need 12 classes"),
        ({"scenario": "domain", "active": "seen"}, ValueError, "leave active='all'"),
        ({"scenario": "class", "single_head": True}, ValueError, "scenario='task'"),
        ({"scenario": "domain", "offers": ("task_id",)}, ValueError, "scenario='task'"),
        ({"scenario": "clas"}, UnknownNameError, "class"),
        ({"class_order": "naturally"}, UnknownNameError, "natural"),
        ({"fit_per_class": 200}, ValueError, "must leave some"),
        ({"held_out_batch": 0}, ValueError, "held_out_batch=0"),
        ({"batch_size": 5_000}, ValueError, "smallest task"),
    ],
)
def test_settings_that_cannot_be(options, error, text):
    with pytest.raises(error, match=text):
        make(**options)


@pytest.mark.parametrize(
    ("options", "own"),
    [
        ({"scenario": "task"}, True),
        ({"scenario": "class"}, True),
        ({"scenario": "domain"}, False),
        ({"scenario": "task", "single_head": True}, False),
    ],
)
def test_methods_learn_whether_tasks_share_their_outputs(options, own):
    spec = make(**options).spec
    assert spec.own_outputs == own
    assert _freeze.head_is(spec, "auto", "own") == (own and spec.scenario == "task")
    assert _freeze.head_is(spec, "own", "own") and not _freeze.head_is(spec, "x", "own")
