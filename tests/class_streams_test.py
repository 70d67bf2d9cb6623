"""5+1 and class-incremental: which classes, in which order, how often, and how moved."""

import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.datasets import synthetic
from cl_bench.registry import UnknownNameError
from cl_bench.schedule import epoch_steps, schedule
from cl_bench.streams import _augment, _shuffle, class_incremental, five_plus_one

TINY = {"size": 4, "classes": 8, "train": 80, "test": 24}  # 10 and 3 a class
FIVE: dict[str, Any] = {
    "num_tasks": 4,
    "hard_classes": 3,
    "steps_per_task": 9,
    "batch_size": 4,
}
GROW: dict[str, Any] = {
    "classes_per_task": 2, "epochs": 3, "batch_size": 5, "fit_per_class": 3,
    "crop_padding": 1,
}  # fmt: skip
PLAIN = {"augment": False, "scale": "zero_one", "flatten": True}


def _five(**options: Any):
    base: dict[str, Any] = {
        "dataset": "synthetic",
        "dataset_options": TINY,
        "train_per_class": None,
    }
    return five_plus_one.make(**base | FIVE | options)


def _grow(**options: Any):
    base: dict[str, Any] = {"dataset": "synthetic", "dataset_options": TINY}
    return class_incremental.make(**base | GROW | options)


def _task(stream, task=0, seed=0):
    data = jax.tree.map(jnp.asarray, stream.load())
    return data, jax.jit(stream.start)(data, jax.random.key(seed), jnp.int32(task))


def _walk(stream, task=0, seed=0, steps=None):
    """The batches of a task, leaves [steps, B, ...] on the host."""
    data, state = _task(stream, task, seed)
    steps = schedule(stream.spec).lengths[task] if steps is None else steps
    read = jax.jit(jax.vmap(lambda i: stream.batch(data, state, i)))
    return jax.tree.map(np.asarray, read(jnp.arange(steps)))


def _read(stream, split, task=0, now=0, i=0):
    data, state = _task(stream, task)
    read = jax.jit(stream.held_out, static_argnums=2)
    batch = read(data, state, split, jnp.int32(now), jnp.int32(i))
    return jax.tree.map(np.asarray, batch)


def _bytes(x):
    return [np.round(row * 255).astype(np.uint8).tobytes() for row in x]


# ---- the shared table of epochs


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


@pytest.mark.parametrize("make", [_five, _grow])
def test_held_out_batches_draw_no_epochs(make):
    """`held_out` starts a task for each minibatch: its table must not be sorted."""
    stream = make()
    data = jax.tree.map(jnp.asarray, stream.load())
    size = len(_task(stream)[1].table)

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
    seen = [set(_walk(stream, task).y.ravel().tolist()) for task in range(4)]
    assert [len(classes) for classes in seen] == [3, 1, 3, 1]
    assert set.union(*seen) == set(range(8))
    other = [set(_walk(stream, t, seed=1).y.ravel().tolist()) for t in range(4)]
    assert other != seen


def test_a_five_plus_one_epoch_shows_the_task_s_images_once():
    stream = _five(scale="zero_one", flatten=True, batch_size=5, steps_per_task=12)
    data, state = _task(stream, task=2)
    batches = _walk(stream, task=2)
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
    hard, rest = _read(stream, "test", task=2), _read(stream, "test", task=2, i=1)
    assert hard.weight.sum() == 8 and rest.weight.sum() == 1  # 3 classes of 3
    easy = _read(stream, "test", task=1)
    assert easy.weight.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    for task, batch in ((2, hard), (1, easy)):
        trained = set(_walk(stream, task).y.ravel().tolist())
        assert set(batch.y[batch.weight > 0].tolist()) == trained


def test_five_plus_one_defaults_are_the_paper_s():
    options = {"size": 2, "classes": 100, "train": 50_000, "test": 100}
    stream = five_plus_one.make(dataset="synthetic", dataset_options=options)
    spec = stream.spec
    assert (spec.num_tasks, spec.steps_per_task, spec.batch_size) == (30, 780, 32)
    assert spec.num_outputs == 100 and spec.scenario == "online"
    assert len(_task(stream)[1].table) == 52 * 500  # more than 10 epochs of 2,500
    assert spec.examples_per_task == 500
    assert epoch_steps(spec).tolist() == [2_500 // 32, 500 // 32] * 15


# ---- class-incremental


def test_classes_arrive_and_stay():
    stream = _grow(**PLAIN)
    assert stream.spec.steps_per_task == (6, 15, 24, 33)  # 3 x (14, 28, 42, 56 // 5)
    _, state = _task(stream)
    order = np.asarray(state.class_order)
    assert sorted(order) == list(range(8))
    for task in range(4):
        batches = _walk(stream, task)
        seen = set(order[: 2 * (task + 1)].tolist())
        assert set(batches.y.ravel().tolist()) == seen
        in_play = np.isin(np.arange(8), list(seen))
        chex.assert_trees_all_equal(batches.classes[0, 0], in_play)
        assert (batches.classes == in_play).all()
    assert set(_task(stream, seed=1)[1].class_order.tolist()) == set(range(8))
    assert _task(stream, seed=1)[1].class_order.tolist() != order.tolist()
    assert _walk(_grow(**PLAIN, active="all")).classes.all()


def test_the_kept_back_images_are_the_first_of_their_class():
    stream = _grow(**PLAIN, num_tasks=4, held_out_batch=24, batch_size=7)
    source = synthetic.load(**TINY)
    first = {
        image.tobytes()
        for c in range(8)
        for image in source.train_x[source.train_y == c][:3]
    }
    kept = _read(stream, "fit", task=3, now=3)
    assert kept.weight.sum() == 24 and set(_bytes(kept.x)) == first
    trained = set(_bytes(_walk(stream, task=3).x.reshape(-1, 16)))
    assert len(trained) == 56 and not trained & first


def test_held_out_covers_the_classes_seen_and_masks_those_at_now():
    stream = _grow(**PLAIN, held_out_batch=10)
    batch = _read(stream, "test", task=1, now=2)  # 4 classes of 3 examples
    order = np.asarray(_task(stream)[1].class_order)
    assert set(batch.y.tolist()) <= set(order[:4].tolist())
    assert batch.classes[0].sum() == 6
    rest = _read(stream, "test", task=1, now=2, i=1)
    assert rest.weight.sum() == 2 and batch.weight.sum() == 10


def test_best_validation_and_step_schedule_are_in_the_spec():
    spec = _grow(held_out_batch=10).spec
    assert spec.restore_best == 3  # 8 classes of 3 in minibatches of 10
    assert spec.step_schedule == ((0.3, 0.2), (0.6, 0.04), (0.8, 0.008))
    assert spec.scenario == "class" and spec.steps_per_segment == 2
    assert _grow(offers=()).spec.scenario == "online"
    assert _grow(best_validation=False).spec.restore_best == 0
    assert hash(_grow(step_schedule=[[0.5, 0.1]]).spec)


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
    stream = _grow(dataset_options=options, augment=False, num_tasks=4, batch_size=7)
    x = _walk(stream, task=3, steps=8).x.reshape(-1, 3)  # one epoch, all 56 images
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("make", [_five, _grow])
def test_the_same_key_gives_the_same_task(make):
    stream = make()
    first = _walk(stream, task=1, seed=3)
    chex.assert_trees_all_equal(first, _walk(stream, task=1, seed=3))
    assert not np.array_equal(first.x, _walk(stream, task=1, seed=4).x)


# ---- augmentation

IMAGE = jnp.arange(1.0, 17.0).reshape(4, 4, 1)


def _move(flip=False, shift=(0, 0), degrees=0.0, image=IMAGE):
    angle = jnp.deg2rad(jnp.float32(degrees))
    return _augment.move(image, jnp.bool_(flip), jnp.array(shift), angle)[..., 0]


def test_no_move_is_the_identity():
    chex.assert_trees_all_equal(_move(), IMAGE[..., 0])


def test_a_flip_mirrors_the_columns():
    chex.assert_trees_all_equal(_move(flip=True), IMAGE[:, ::-1, 0])


@pytest.mark.parametrize("shift", [(1, 0), (-2, 1), (3, -3)])
@pytest.mark.parametrize("flip", [False, True])
def test_a_shift_is_a_crop_of_the_reflected_image(shift, flip):
    image = np.asarray(IMAGE[..., 0])
    image = image[:, ::-1] if flip else image
    padded = np.pad(image, 3, mode="reflect")
    top, left = 3 + shift[0], 3 + shift[1]
    expected = padded[top : top + 4, left : left + 4]
    chex.assert_trees_all_equal(np.asarray(_move(flip, shift)), expected)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_are_counter_clockwise(quarters):
    expected = np.rot90(np.asarray(IMAGE[..., 0]), quarters)
    chex.assert_trees_all_equal(np.asarray(_move(degrees=90.0 * quarters)), expected)


def test_a_rotation_reads_the_nearest_pixel():
    """By hand, 45 degrees on 3 x 3: the top left corner reads (0, -1.41) from the
    centre, the pixel above it; the middle of the top reads (0.71, -0.71), a corner.
    """
    image = jnp.arange(1.0, 10.0).reshape(3, 3, 1)
    expected = jnp.array([[2.0, 3, 6], [1, 5, 9], [4, 7, 8]])
    chex.assert_trees_all_equal(_move(degrees=45.0, image=image), expected)


def test_a_rotation_reads_zero_outside():
    """45 degrees on 5 x 5: only the corners read 2.83 pixels from the centre."""
    turned = np.asarray(_move(degrees=45.0, image=jnp.ones((5, 5, 1))))
    expected = np.ones((5, 5), np.float32)
    expected[::4, ::4] = 0
    chex.assert_trees_all_equal(turned, expected)


def test_the_crop_comes_before_the_rotation():
    shifted = _move(shift=(1, 0))
    expected = np.rot90(np.asarray(shifted), 1)
    chex.assert_trees_all_equal(np.asarray(_move(shift=(1, 0), degrees=90.0)), expected)


def test_each_example_and_step_has_its_own_draw():
    x = jnp.broadcast_to(IMAGE, (64, 4, 4, 1))
    moved = np.asarray(_augment.augment(jax.random.key(0), x, padding=2))
    assert len({image.tobytes() for image in moved}) > 20
    chex.assert_trees_all_equal(
        np.asarray(
            _augment.augment(jax.random.key(0), x, padding=0, degrees=0.0)
        ).max(),
        np.float32(16),
    )
    stream = _grow()
    data, state = _task(stream)
    same = state._replace(table=jnp.zeros_like(state.table))
    one, two = (stream.batch(data, same, jnp.int32(i)).x for i in (0, 1))
    assert not np.array_equal(one, two)
    chex.assert_trees_all_equal(one, stream.batch(data, same, jnp.int32(0)).x)


def test_half_of_the_images_are_flipped():
    x = jnp.broadcast_to(IMAGE, (1000, 4, 4, 1))
    moved = _augment.augment(jax.random.key(2), x, padding=0, degrees=0.0)[..., 0]
    flipped = np.asarray(jnp.all(moved == IMAGE[:, ::-1, 0], axis=(1, 2)))
    same = np.asarray(jnp.all(moved == IMAGE[..., 0], axis=(1, 2)))
    assert (flipped | same).all() and 440 < flipped.sum() < 560  # 3.8 deviations


def test_only_the_test_set_is_augmented_and_only_on_request():
    plain, quirk = _grow(held_out_batch=6), _grow(held_out_batch=6, augment_test=True)
    bare = _grow(held_out_batch=6, augment=False)
    chex.assert_trees_all_equal(_read(plain, "test"), _read(bare, "test"))
    assert not np.array_equal(_read(quirk, "test").x, _read(bare, "test").x)
    chex.assert_trees_all_equal(_read(quirk, "fit"), _read(bare, "fit"))
    assert not np.array_equal(_walk(plain).x, _walk(bare).x)


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
        (_grow, {"held_out_batch": 0}, ValueError, "held_out_batch=0"),
        (_grow, {"held_out_batch": -5}, ValueError, "held_out_batch=-5"),
        (_grow, {"num_tasks": 5}, ValueError, "num_tasks=4"),
        (_grow, {"classes_per_task": 9}, ValueError, "classes_per_task=8 works"),
        (_grow, {"classes_per_task": 0}, ValueError, "at least 1"),
        (_grow, {"batch_size": 15}, ValueError, "1 to 14 work"),
        (_grow, {"fit_per_class": 10}, ValueError, "10 training images"),
        (_grow, {"fit_per_class": 0}, ValueError, "best_validation=False"),
        (_grow, {"epochs": 0}, ValueError, "epochs=0"),
        (_grow, {"crop_padding": 4}, ValueError, "crop_padding=3 or augment=False"),
        (_grow, {"active": "old"}, UnknownNameError, "Known: all, seen"),
        (_grow, {"step_schedule": ((30, 0.2),)}, ValueError, "fractions of a task"),
        (_grow, {"step_schedule": ((0.5, -1.0),)}, ValueError, "factors.* 0 or more"),
        (_grow, {"step_schedule": ((0.5, math.inf),)}, ValueError, "factors of"),
        (_grow, {"max_degrees": -20.0}, ValueError, "max_degrees=-20.0.*0 or more"),
        (_grow, {"max_degrees": math.nan}, ValueError, "max_degrees=nan"),
        (_grow, {"dataset": "sythetic"}, FileNotFoundError, "mean 'synthetic'"),
    ],
)
def test_bad_options_say_what_works(make, options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


@pytest.mark.parametrize("make", [_five, _grow])
def test_an_empty_split_is_an_error_while_tracing(make):
    with pytest.raises(ValueError, match="tune_per_class=N"):
        _read(make(), "tune")
