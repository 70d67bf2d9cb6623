"""The warm-start stream: which chunk when, which labels are wrong, for how many steps."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.registry import UnknownNameError
from cl_bench.schedule import epoch_steps, schedule
from cl_bench.streams import _chunks, warm_start
from tests.stream_setting import task_of

TINY = {"size": 4, "classes": 5, "train": 60, "test": 10}


def _make(**options: Any):
    base: dict[str, Any] = {
        "dataset": "synthetic", "dataset_options": TINY, "preset": None,
        "chunks": (0.5, 0.3, 0.2), "epochs": 1, "batch_size": 3,
        "scale": "zero_one", "flatten": True,
    }  # fmt: skip
    return warm_start.make(**base | options)


def _walk(stream, task=0, seed=0):
    data, state = task_of(stream, task, seed)
    read = jax.jit(jax.vmap(lambda i: stream.batch(data, state, i)))
    return read(jnp.arange(schedule(stream.spec).lengths[task]))


def _labelled(stream, task=0, seed=0):
    """Image -> label, as trained on in a task."""
    batches = _walk(stream, task, seed)
    x = np.round(np.asarray(batches.x).reshape(-1, 16) * 255).astype(np.uint8)
    labels = batches.y.ravel().tolist()
    made = {}
    for image, label in zip(x, labels, strict=True):
        assert made.setdefault(image.tobytes(), label) == label  # fixed
    return made


def _true(stream):
    data = stream.load()
    return {bytes(x): int(y) for x, y in zip(data.train_x, data.train_y, strict=True)}


def test_chunks_are_disjoint_and_together_the_whole_set():
    stream = _make()
    assert stream.spec.steps_per_task == (10, 6, 4)
    parts = [_labelled(stream, task) for task in range(3)]
    assert [len(part) for part in parts] == [30, 18, 12]
    assert {**parts[0], **parts[1], **parts[2]} == _true(stream)
    assert set(_labelled(stream, seed=1)) != set(parts[0])
    assert stream.spec.examples_per_task == 12
    assert epoch_steps(stream.spec).tolist() == [10, 6, 4]
    assert stream.spec.offers == {"boundaries"} and stream.spec.scenario == "domain"


def test_cumulative_chunks_stay():
    stream = _make(cumulative=True)
    assert stream.spec.steps_per_task == (10, 16, 20)
    parts = [_labelled(stream, task) for task in range(3)]
    assert [len(part) for part in parts] == [30, 48, 60]
    assert parts[0].items() < parts[1].items() < parts[2].items()
    alone = [set(_labelled(_make(), task)) for task in range(2)]
    assert set(parts[1]) == alone[0] | alone[1]


def test_augmentation_moves_pixels_and_keeps_labels():
    plain = _walk(_make(flatten=False))
    moved = _walk(_make(flatten=False, augment=True, crop_padding=0))
    chex.assert_trees_all_equal(moved._replace(x=plain.x), plain)
    a, b = (np.asarray(m.x).reshape(-1, 4, 4) for m in (plain, moved))
    same, flipped = (a == b).all((1, 2)), (a[:, :, ::-1] == b).all((1, 2))
    assert (same | flipped).all() and 3 < flipped.sum() < len(a) - 3
    cropped = np.asarray(_walk(_make(augment=True, crop_padding=3)).x)
    sums = cropped.reshape(-1, 16).sum(1), a.reshape(-1, 16).sum(1)
    assert not np.isclose(*sums).all()


def test_augmentation_is_of_training_alone_and_anew_in_each_epoch():
    stream = _make(epochs=(2, 1, 1), augment=True, crop_padding=1)
    x = np.asarray(_walk(stream).x).reshape(2, 30, 16).sum(-1)
    assert not np.allclose(np.sort(x[0]), np.sort(x[1]))
    tests = []
    for made in (_make(), stream):
        data, state = task_of(made)
        tests.append(made.held_out(data, state, "test", jnp.int32(0), jnp.int32(0)))
    chex.assert_trees_all_equal(*tests)


def test_a_crop_padded_by_more_than_the_image_is_refused():
    with pytest.raises(ValueError, match="crop_padding=3 or augment=False"):
        _make(augment=True)


def test_epochs_have_orders_of_their_own():
    stream = _make(epochs=(2, 1, 3))
    assert stream.spec.steps_per_task == (20, 6, 12)
    y = np.asarray(_walk(stream).y).reshape(2, 30)
    x = np.asarray(_walk(stream).x).reshape(2, 30, 16)
    assert not np.array_equal(x[0], x[1])
    chex.assert_trees_all_equal(np.sort(y[0]), np.sort(y[1]))
    assert len(np.unique(x[1], axis=0)) == 30


@pytest.mark.parametrize("cumulative", [False, True])
def test_wrong_labels_are_exactly_so_many_and_stay(cumulative):
    noise = (0.5, 0.25, 0.0)
    stream = _make(label_noise=noise, cumulative=cumulative, epochs=2)
    true = _true(stream)
    wrong = []
    for task in range(3):
        seen = _labelled(stream, task)  # asserts that both epochs agree
        wrong.append({image for image in seen if seen[image] != true[image]})
    counts = [15, 4, 0]  # int(30 * .5), int(18 * .25)
    assert [len(w) for w in wrong] == (
        np.cumsum(counts).tolist() if cumulative else counts
    )
    if cumulative:
        assert wrong[0] < wrong[1] == wrong[2]
        first, last = _labelled(stream, 0), _labelled(stream, 2)
        assert all(last[image] == label for image, label in first.items())


def test_wrong_labels_are_uniform_over_the_other_classes():
    options = TINY | {"size": 1, "train": 4000}
    stream = _make(dataset_options=options, chunks=(1.0,), label_noise=0.5)
    data, state = task_of(stream)
    true = np.asarray(data.train_y)[np.asarray(state.order)]
    offset = (np.asarray(state.labels) - true) % 5
    counts = np.bincount(offset, minlength=5)
    assert counts[0] == 2000
    assert np.sum((counts[1:] - 500) ** 2 / 500) < 16.3  # 3 degrees, p = 0.001
    other = task_of(stream, seed=1)[1]
    assert not np.array_equal(other.labels, state.labels)


def test_noise_is_the_run_s_and_not_the_task_s():
    stream = _make(label_noise=0.5)
    first, second = (task_of(stream, task)[1] for task in (0, 1))
    chex.assert_trees_all_equal(first.labels, second.labels)
    chex.assert_trees_all_equal(first.order, second.order)
    assert not np.array_equal(first.table, second.table)
    chex.assert_trees_all_equal(_walk(stream, 1), _walk(stream, 1))


def test_held_out_labels_are_true_and_kept_back_images_unseen():
    stream = _make(label_noise=1.0, fit_examples=9, held_out_batch=10)
    data, state = task_of(stream, task=1)
    test = stream.held_out(data, state, "test", jnp.int32(1), jnp.int32(0))
    chex.assert_trees_all_equal(test.y, data.test_y)
    fit = stream.held_out(data, state, "fit", jnp.int32(1), jnp.int32(0))
    assert fit.weight.sum() == 9
    chex.assert_trees_all_equal(fit.y[:9], data.train_y[51:])
    seen = set().union(*(_labelled(stream, task) for task in range(3)))
    assert not seen & {bytes(x) for x in np.asarray(data.train_x[51:])}


@pytest.mark.parametrize(
    ("preset", "steps", "batch_size"),
    [
        ("ash_adams", (350 * 195, 350 * 390), 128),
        ("hare_tortoise", (1000 * 19, 111 * 175), 256),
        ("noisy_chunks", 100 * 19, 256),
        ("dash", tuple(260 * (1000 * (t + 1) // 128) for t in range(50)), 128),
    ],
)
def test_presets_on_a_set_of_cifar_s_size(preset, steps, batch_size):
    options = {"size": 1, "train": 50_000, "test": 10}
    spec = warm_start.make(
        dataset="synthetic", dataset_options=options, preset=preset
    ).spec
    assert spec.steps_per_task == steps and spec.batch_size == batch_size
    assert spec.num_tasks == len(_chunks.PRESETS[preset].chunks)


def test_a_preset_can_be_changed_in_part():
    stream = _make(preset="noisy_chunks", chunks=None, num_tasks=3)
    assert stream.spec.num_tasks == 3 and stream.spec.steps_per_task == 2
    true, seen = _true(stream), _labelled(stream, 1)
    assert sum(seen[image] != true[image] for image in seen) == 2  # int(6 * .4)


def test_a_segment_is_an_epoch_of_the_largest_task():
    assert _make(cumulative=True, epochs=4).spec.steps_per_segment == 20
    assert _make(steps_per_segment=7).spec.steps_per_segment == 7
    assert _make(flatten=False).spec.input_shape == (4, 4, 1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"preset": "ash_adam"}, UnknownNameError, "mean 'ash_adams'"),
        ({"epochs": None}, ValueError, "leaves epochs open"),
        ({"chunks": (0.8, 0.3)}, ValueError, "these are 1.1"),
        ({"chunks": (0.5, 0.0)}, ValueError, "positive shares"),
        ({"chunks": ()}, ValueError, "positive shares"),
        ({"chunks": (0.5, float("nan"))}, ValueError, "positive shares"),
        ({"held_out_batch": 0}, ValueError, "held_out_batch=0"),
        (
            {"augment": True, "crop_padding": 1, "max_degrees": -20.0},
            ValueError,
            "max_degrees=-20.0",
        ),
        ({"batch_size": 13}, ValueError, "1 to 12 work"),
        ({"batch_size": 0}, ValueError, "1 to 12 work"),
        ({"label_noise": (0.5, 0.1)}, ValueError, "2 numbers for 3 chunks"),
        ({"label_noise": 1.5}, ValueError, "shares from 0 to 1"),
        ({"epochs": 0}, ValueError, "at least 1"),
        ({"num_tasks": 4}, ValueError, "1 to 3"),
        ({"scale": "chanel"}, UnknownNameError, "mean 'channel'"),
        ({"offers": ("validation",)}, ValueError, "fit_examples=N"),
        ({"examples": 61}, ValueError, "60 training examples"),
    ],
)
def test_bad_options_say_what_works(options, error, message):
    with pytest.raises(error, match=message):
        _make(**options)
