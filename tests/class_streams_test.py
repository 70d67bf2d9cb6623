"""5+1 and class-incremental: which classes, in which order, and how often."""

import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.datasets import synthetic
from cl_bench.registry import UnknownNameError
from cl_bench.schedule import epoch_steps
from cl_bench.streams import class_incremental, five_plus_one
from tests.class_streams_setting import TINY, grow, held_out, walk
from tests.stream_setting import task_of

FIVE: dict[str, Any] = {
    "num_tasks": 4,
    "hard_classes": 3,
    "steps_per_task": 9,
    "batch_size": 4,
}
PLAIN = {"augment": False, "scale": "zero_one", "flatten": True}


def _five(**options: Any):
    base: dict[str, Any] = {
        "dataset": "synthetic",
        "dataset_options": TINY,
        "train_per_class": None,
    }
    return five_plus_one.make(**base | FIVE | options)


def _bytes(x):
    return [np.round(row * 255).astype(np.uint8).tobytes() for row in x]


# ---- the shared table of epochs


@pytest.mark.parametrize("make", [_five, grow])
def test_held_out_batches_draw_no_epochs(make):
    """`held_out` starts a task for each minibatch: its table must not be sorted."""
    stream = make()
    data = jax.tree.map(jnp.asarray, stream.load())
    size = len(task_of(stream)[1].table)

    def read(key, task):
        state = stream.start(data, key, task)
        return stream.held_out(data, state, "test", task, jnp.int32(0))

    def first(key, task):
        return stream.batch(data, stream.start(data, key, task), jnp.int32(0))

    def program(function):
        compiled = jax.jit(function).lower(jax.random.key(0), jnp.int32(0)).compile()
        return compiled.as_text() or ""

    assert f"[{size}]" not in program(read)
    assert f"[{size}]" in program(first)


# ---- 5+1


def test_hard_and_easy_tasks_take_turns_and_no_class_recurs():
    stream = _five()
    seen = [set(walk(stream, task).y.ravel().tolist()) for task in range(4)]
    assert [len(classes) for classes in seen] == [3, 1, 3, 1]
    assert set.union(*seen) == set(range(8))
    other = [set(walk(stream, t, seed=1).y.ravel().tolist()) for t in range(4)]
    assert other != seen


def test_a_five_plus_one_epoch_shows_the_task_s_images_once():
    stream = _five(scale="zero_one", flatten=True, batch_size=5, steps_per_task=12)
    data, state = task_of(stream, task=2)
    batches = walk(stream, task=2)
    label = dict(zip(_bytes(data.train_x / 255), data.train_y.tolist(), strict=True))
    epoch = _bytes(batches.x[:6].reshape(30, -1))
    assert len(set(epoch)) == 30  # 3 classes of 10 images
    assert [label[image] for image in epoch] == batches.y[:6].ravel().tolist()
    again = _bytes(batches.x[6:].reshape(30, -1))
    assert set(again) == set(epoch) and again != epoch
    assert set(batches.y.ravel().tolist()) == set(state.classes.tolist())
    assert batches.classes.all() and (batches.task == 2).all()


def test_five_plus_one_tests_the_task_s_own_classes():
    stream = _five(held_out_batch=8)
    hard, rest = held_out(stream, "test", task=2), held_out(stream, "test", task=2, i=1)
    assert hard.weight.sum() == 8 and rest.weight.sum() == 1  # 3 classes of 3
    easy = held_out(stream, "test", task=1)
    assert easy.weight.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    for task, batch in ((2, hard), (1, easy)):
        trained = set(walk(stream, task).y.ravel().tolist())
        assert set(batch.y[batch.weight > 0].tolist()) == trained


def test_five_plus_one_defaults_are_the_paper_s():
    options = {"size": 2, "classes": 100, "train": 50_000, "test": 100}
    stream = five_plus_one.make(dataset="synthetic", dataset_options=options)
    spec = stream.spec
    assert (spec.num_tasks, spec.steps_per_task, spec.batch_size) == (30, 780, 32)
    assert spec.num_outputs == 100 and spec.scenario == "online"
    assert len(task_of(stream)[1].table) == 52 * 500  # more than 10 epochs of 2,500
    assert spec.examples_per_task == 500
    assert epoch_steps(spec).tolist() == [2_500 // 32, 500 // 32] * 15


# ---- class-incremental


def test_classes_arrive_and_stay():
    stream = grow(**PLAIN)
    assert stream.spec.steps_per_task == (6, 15, 24, 33)  # 3 x (14, 28, 42, 56 // 5)
    _, state = task_of(stream)
    order = np.asarray(state.class_order)
    assert sorted(order) == list(range(8))
    for task in range(4):
        batches = walk(stream, task)
        seen = set(order[: 2 * (task + 1)].tolist())
        assert set(batches.y.ravel().tolist()) == seen
        in_play = np.isin(np.arange(8), list(seen))
        chex.assert_trees_all_equal(batches.classes[0, 0], in_play)
        assert (batches.classes == in_play).all()
    assert set(task_of(stream, seed=1)[1].class_order.tolist()) == set(range(8))
    assert task_of(stream, seed=1)[1].class_order.tolist() != order.tolist()
    assert walk(grow(**PLAIN, active="all")).classes.all()


def test_the_kept_back_images_are_the_first_of_their_class():
    stream = grow(**PLAIN, num_tasks=4, held_out_batch=24, batch_size=7)
    source = synthetic.load(**TINY)
    first = {
        image.tobytes()
        for c in range(8)
        for image in source.train_x[source.train_y == c][:3]
    }
    kept = held_out(stream, "fit", task=3, now=3)
    assert kept.weight.sum() == 24 and set(_bytes(kept.x)) == first
    trained = set(_bytes(walk(stream, task=3).x.reshape(-1, 16)))
    assert len(trained) == 56 and not trained & first


def test_held_out_covers_the_classes_seen_and_masks_those_at_now():
    stream = grow(**PLAIN, held_out_batch=10)
    batch = held_out(stream, "test", task=1, now=2)  # 4 classes of 3 examples
    order = np.asarray(task_of(stream)[1].class_order)
    assert set(batch.y.tolist()) <= set(order[:4].tolist())
    assert batch.classes[0].sum() == 6
    rest = held_out(stream, "test", task=1, now=2, i=1)
    assert rest.weight.sum() == 2 and batch.weight.sum() == 10


def test_best_validation_and_step_schedule_are_in_the_spec():
    spec = grow(held_out_batch=10).spec
    assert spec.restore_best == 3  # 8 classes of 3 in minibatches of 10
    assert spec.step_schedule == ((0.3, 0.2), (0.6, 0.04), (0.8, 0.008))
    assert spec.scenario == "class" and spec.steps_per_segment == 2
    assert grow(offers=()).spec.scenario == "online"
    assert grow(best_validation=False).spec.restore_best == 0
    assert hash(grow(step_schedule=[[0.5, 0.1]]).spec)


def test_class_incremental_defaults_are_the_paper_s():
    options = {"size": 6, "classes": 100, "train": 50_000, "test": 100}
    stream = class_incremental.make(dataset="synthetic", dataset_options=options)
    spec = stream.spec
    assert spec.steps_per_task == tuple(5000 * (t + 1) for t in range(20))
    assert not np.any(np.asarray(spec.steps_per_task) % spec.steps_per_segment)
    assert spec.steps_per_segment == 25 and spec.restore_best == 50
    assert spec.examples_per_task == 2250
    assert epoch_steps(spec).tolist() == [25 * (t + 1) for t in range(20)]


def test_channels_are_standardised_over_the_training_part():
    options = TINY | {"channels": 3}
    stream = grow(dataset_options=options, augment=False, num_tasks=4, batch_size=7)
    x = walk(stream, task=3, steps=8).x.reshape(-1, 3)  # one epoch, all 56 images
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("make", [_five, grow])
def test_the_same_key_gives_the_same_task(make):
    stream = make()
    first = walk(stream, task=1, seed=3)
    chex.assert_trees_all_equal(first, walk(stream, task=1, seed=3))
    assert not np.array_equal(first.x, walk(stream, task=1, seed=4).x)


# ---- refused before anything compiles


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (_five, {"num_tasks": 5}, ValueError, "enough for num_tasks=4"),
        (_five, {"hard_classes": 0}, ValueError, "at least 1"),
        (_five, {"batch_size": 11}, ValueError, "1 to 10 work"),
        (_five, {"train_per_class": 11}, ValueError, "10 training images"),
        (_five, {"fit_per_class": 10}, ValueError, "at most 10 in all"),
        (_five, {"steps_per_segment": 2}, ValueError, "nearest that does is (1|3)"),
        (_five, {"scale": "chanel"}, UnknownNameError, "mean 'channel'"),
        (_five, {"offers": "validation"}, ValueError, "fit_per_class=N"),
        (_five, {"offers": ("task",)}, UnknownNameError, "mean 'task_id'"),
        (_five, {"held_out_batch": 0}, ValueError, "held_out_batch=0"),
        (grow, {"held_out_batch": 0}, ValueError, "held_out_batch=0"),
        (grow, {"held_out_batch": -5}, ValueError, "held_out_batch=-5"),
        (grow, {"num_tasks": 5}, ValueError, "num_tasks=4"),
        (grow, {"classes_per_task": 9}, ValueError, "classes_per_task=8 works"),
        (grow, {"classes_per_task": 0}, ValueError, "at least 1"),
        (grow, {"batch_size": 15}, ValueError, "1 to 14 work"),
        (grow, {"fit_per_class": 10}, ValueError, "10 training images"),
        (grow, {"fit_per_class": 0}, ValueError, "best_validation=False"),
        (grow, {"epochs": 0}, ValueError, "epochs=0"),
        (grow, {"crop_padding": 4}, ValueError, "crop_padding=3 or augment=False"),
        (grow, {"active": "old"}, UnknownNameError, "Known: all, seen"),
        (grow, {"step_schedule": ((30, 0.2),)}, ValueError, "fractions of a task"),
        (grow, {"step_schedule": ((0.5, -1.0),)}, ValueError, "factors.* 0 or more"),
        (grow, {"step_schedule": ((0.5, math.inf),)}, ValueError, "factors of"),
        (grow, {"max_degrees": -20.0}, ValueError, "max_degrees=-20.0.*0 or more"),
        (grow, {"max_degrees": math.nan}, ValueError, "max_degrees=nan"),
        (grow, {"dataset": "sythetic"}, FileNotFoundError, "mean 'synthetic'"),
    ],
)
def test_bad_options_say_what_works(make, options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


@pytest.mark.parametrize("make", [_five, grow])
def test_an_empty_split_is_an_error_while_tracing(make):
    with pytest.raises(ValueError, match="tune_per_class=N"):
        held_out(make(), "tune")
