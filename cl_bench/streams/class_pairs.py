"""Pairs of classes: every task is to tell two classes of a set apart."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.streams import _by_class, _epochs, _images, _pair_data, _splits
from cl_bench.types import Batch, Dataset, Key, Stream

REFERENCE = (
    "Dohare et al. (2024), Loss of plasticity in deep continual learning, Nature 632, "
    "Continual ImageNet (the released code); Kumar et al. (2023), arXiv:2308.11958"
)


class Task(NamedTuple):
    """State of one task."""

    classes: Array  # [2] int32, the classes with labels 0 and 1
    orders: Array  # [epochs, 2 * train_per_class] int32, the examples of each epoch
    task: Array  # () int32


def make(
    *,
    dataset: str = "imagenet_resized/32x32",
    num_tasks: int = 2000,
    epochs: int = 250,
    batch_size: int = 100,
    steps_per_segment: int | None = None,
    offers: tuple[str, ...] = ("boundaries",),
    train_per_class: int = 600,
    test_per_class: int = 100,
    fit_per_class: int = 0,
    tune_per_class: int = 0,
    test_from: str = "auto",
    held_out_batch: int = 100,
    reset_head: bool = True,
    scale: str = "standardise",
    data_dir: str | None = None,
    download: bool = False,
    dataset_options: Mapping[str, Any] | None = None,
) -> Stream:
    """Continual ImageNet of Dohare et al. (2024), for any set of images with classes.

    A sweep is a random order of the C classes, cut into C // 2 pairs: one task each
    (one class sits out where C is odd). Labels are 0 and 1 in the order drawn. A task
    trains for `epochs` passes over the 2 * train_per_class images of its classes,
    each pass in a new order and without its incomplete last batch; a segment is an
    epoch unless `steps_per_segment` says otherwise. x is [B, H, W, C] float32, both
    outputs are in play. The pairs depend on the run's seed alone.

    Of each class the first `train_per_class` training images are trained on; the next
    `fit_per_class` and `tune_per_class` are kept back. `test_from`: 'test' takes the
    first `test_per_class` images of the set's own test part, 'train' the last of its
    training part (as the paper), 'auto' the test part where it has enough. `held_out`
    gives minibatches of `held_out_batch` of the task's two classes. `scale` is one of
    `_scaling.scaled`. With `reset_head=False`, epochs=10, num_tasks=500 and
    scale='minus_one_one' this is the stream of Kumar et al. (2023).

    Raises ValueError, with numbers that work, where a class has too few images, and
    for batches and segments that do not fit a task.

    # Departs from the paper: each sweep draws a new order of the classes, where the
    # released code repeats one order that it does not include. Pixels are scaled by
    # one mean and deviation: the constants of the paper's data are not published.
    """
    images = _pair_data.open_pair_data(
        dataset,
        data_dir=data_dir,
        download=download,
        dataset_options=dataset_options,
        per_class=_pair_data.PerClass(
            train_per_class, test_per_class, fit_per_class, tune_per_class
        ),
        test_from=test_from,
        scale=scale,
    )
    _check(dataset, images, epochs, batch_size)
    examples = 2 * train_per_class
    steps = examples // batch_size  # of an epoch
    pair = images._replace(num_classes=2, num_train=examples)
    spec = _images.make_spec(
        pair,
        input_shape=images.image_shape,
        num_tasks=num_tasks,
        steps_per_task=epochs * steps,
        batch_size=batch_size,
        steps_per_segment=steps if steps_per_segment is None else steps_per_segment,
        offers=_by_class.check_offers(offers, fit_per_class),
        reset_head=reset_head,
        held_out_batch=held_out_batch,
    )

    def start(data: Dataset, key: Key, task: Array) -> Task:
        class_key, order_key = jax.random.split(key)
        orders = _epochs.epoch_orders(
            jax.random.fold_in(order_key, task), epochs, examples
        )
        classes = pair_of_task(class_key, task, images.num_classes)
        return Task(classes, orders, jnp.asarray(task, jnp.int32))

    def take(x: Array, y: Array, rows: Array, state: Task) -> Batch:
        second = (y[rows] == state.classes[1]).astype(jnp.int32)
        made = _images.make_batch(pair, _images.pixel_rows(x, rows), second, state.task)
        return made._replace(x=made.x.reshape(-1, *images.image_shape))

    def batch(data: Dataset, state: Task, i: Array) -> Batch:
        example = _epochs.epoch_rows(state.orders, i, batch_size)
        rows = _by_class.train_rows(images, state.classes, example)
        return take(data.train_x, data.train_y, rows, state)

    def held_out(data: Dataset, state: Task, split: str, now: Array, i: Array) -> Batch:
        rows, weight = _by_class.held_out_rows(
            images, split, state.classes, jnp.int32(2), i, held_out_batch
        )
        made = take(*_splits.split_arrays(data, split), rows, state)
        return made._replace(weight=weight)

    return Stream(spec, images.load, start, batch, held_out)


def pair_of_task(key: Key, task: Array, classes: int) -> Array:
    """[2] int32: the classes of a task, from the order of the sweep that it lies in."""
    sweep, place = jnp.divmod(jnp.asarray(task, jnp.int32), classes // 2)
    order = jax.random.permutation(jax.random.fold_in(key, sweep), classes)
    return jax.lax.dynamic_slice(order.astype(jnp.int32), (2 * place,), (2,))


def _check(dataset: str, images: _images.Images, epochs: int, batch_size: int) -> None:
    """Two classes, one epoch and one batch at least. Raises ValueError."""
    examples = 2 * images.num_train // images.num_classes
    if images.num_classes < 2:
        raise ValueError(f"{dataset} has one class; a pair needs a set with two.")
    if epochs < 1 or not 1 <= batch_size <= examples:
        raise ValueError(
            f"epochs={epochs} must be at least 1 and batch_size={batch_size} between 1 "
            f"and the {examples} training images of a pair."
        )
