"""Class-incremental images: new classes arrive, and the old ones stay."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.registry import UnknownNameError, nearest
from cl_bench.streams import (
    _augment,
    _by_class,
    _images,
    _scenario,
    _shuffle,
    _splits,
)
from cl_bench.types import Batch, Dataset, Key, Stream

REFERENCE = (
    "Dohare et al. (2024), Loss of plasticity in deep continual learning, Nature 632, "
    "class-incremental CIFAR-100, and its released code (lop/incremental_cifar)"
)
ACTIVE = ("seen", "all")
DECAY = ((0.3, 0.2), (0.6, 0.04), (0.8, 0.008))  # epochs 60, 120 and 160 of 200
NO_STEP = 2**31 - 1  # what the test set's keys are folded from; no step is that late


class Task(NamedTuple):
    """State of one task."""

    class_order: Array  # [K] int32, the run's; a task trains on its first ones
    rank: Array  # [K] int32, place of each class in that order
    table: Array  # [size] int32, the task's examples in epochs
    key: Key  # of the augmentation
    task: Array  # () int32


def make(
    *,
    dataset: str = "cifar100",
    classes_per_task: int = 5,
    num_tasks: int | None = None,
    epochs: int = 200,
    batch_size: int = 90,
    steps_per_segment: int | None = None,
    offers: tuple[str, ...] = ("boundaries",),
    train_per_class: int | None = None,
    fit_per_class: int = 50,
    tune_per_class: int = 0,
    best_validation: bool = True,
    step_schedule: tuple[tuple[float, float], ...] = DECAY,
    active: str = "seen",
    augment: bool = True,
    augment_test: bool = False,
    crop_padding: int = _augment.PADDING,
    max_degrees: float = _augment.DEGREES,
    held_out_batch: int = 100,
    reset_head: bool = False,
    scale: str = "channel",
    flatten: bool = False,
    data_dir: str | None = None,
    download: bool = False,
    dataset_options: Mapping[str, Any] | None = None,
) -> Stream:
    """Class-incremental CIFAR-100 of Dohare et al. (2024), for any set with classes.

    Task t trains for `epochs` epochs on the first (t + 1) * `classes_per_task` classes
    of a random order, the run's own; `num_tasks=None` is as many as there are classes
    for. So tasks grow: n examples give `epochs` * (n // batch_size) steps, an epoch
    being a new order without its incomplete last batch. In play are the classes seen
    up to task `now` (`active='seen'`) or all (`'all'`). A segment is one epoch of the
    first task by default; the last one of a task may be shorter.

    Rules of the benchmark, for every method alike: step sizes fall as `step_schedule`
    says, tuples of (fraction of the task, factor), and start anew with the next task;
    with `best_validation` the network that scores best on the task's 'fit' examples at
    a segment end is put back at the end of the task.

    x is [B, H, W, C], or [B, D] where `flatten`; `augment` gives each example of each
    step its own flip, crop and rotation (`_augment.augment`), after scaling, as the
    reference does. `augment_test` also augments 'test', the same way at each
    evaluation. `held_out` gives the kept back or test examples of all classes that the
    task trains on. `examples_per_task` is that of the first task. Of each class, in the
    order of the set, the first `fit_per_class` images are kept back; the other options
    are those of `permuted`, with the further scale 'channel', from training images.

    # Departs from the paper: by default the test set is not augmented (the paper's
    # text says so as well; its code does augment it), and channel means come from the
    # training part instead of being constants.

    Raises ValueError for more tasks than there are classes for, too few images of a
    class, a batch larger than the first task, a crop padded by more than the image, and
    angles and factors below 0.
    """
    images = _by_class.open_by_class(
        dataset,
        data_dir=data_dir,
        download=download,
        dataset_options=dataset_options,
        train_per_class=train_per_class,
        fit_per_class=fit_per_class,
        tune_per_class=tune_per_class,
        scale=scale,
    )
    tasks = _by_class.number_of_tasks(
        dataset, images.num_classes, classes_per_task, num_tasks
    )
    _check_rules(active, best_validation, fit_per_class, epochs)
    if augment or augment_test:
        _augment.check_crop(dataset, images.image_shape, crop_padding)
        _augment.check_degrees(max_degrees)
    new = classes_per_task * (images.num_train // images.num_classes)  # images a task
    _shuffle.check_batch(batch_size, new)
    steps = tuple(epochs * (new * (t + 1) // batch_size) for t in range(tasks))
    spec = _images.make_spec(
        images,
        input_shape=_by_class.input_shape(images, flatten),
        num_tasks=tasks,
        steps_per_task=steps[-1],
        batch_size=batch_size,
        steps_per_segment=None,
        offers=_by_class.check_offers(offers, fit_per_class),
        reset_head=reset_head,
        held_out_batch=held_out_batch,
    )._replace(
        steps_per_task=steps,
        steps_per_segment=steps_per_segment or new // batch_size,
        examples_per_task=new,
        task_examples=tuple(new * (t + 1) for t in range(tasks)),
        scenario=_scenario.told("class", offers),
        own_outputs=True,
        step_schedule=_ascending(step_schedule),
    )
    if best_validation:
        kept = tasks * classes_per_task * fit_per_class
        spec = spec._replace(restore_best=-(-kept // held_out_batch))

    def start(data: Dataset, key: Key, task: Array) -> Task:
        order_key, own_key = jax.random.split(key)
        order = jax.random.permutation(order_key, images.num_classes).astype(jnp.int32)
        table_key, augment_key = jax.random.split(jax.random.fold_in(own_key, task))
        count = (jnp.asarray(task, jnp.int32) + 1) * new
        table = _shuffle.shuffled_epochs(table_key, count, epochs * new * tasks)
        rank = jnp.argsort(order).astype(jnp.int32)
        return Task(order, rank, table, augment_key, jnp.asarray(task, jnp.int32))

    def in_play(state: Task, now: Array, made: Batch) -> Batch:
        if active == "all":
            return made
        seen = state.rank < (now + 1) * classes_per_task
        return made._replace(classes=jnp.broadcast_to(seen, made.classes.shape))

    def augmented(made: Batch, key: Key) -> Batch:
        x = _augment.augment(key, made.x, padding=crop_padding, degrees=max_degrees)
        return made._replace(x=x)

    def batch(data: Dataset, state: Task, i: Array) -> Batch:
        count = (state.task + 1) * new
        example = _shuffle.batch_of(state.table, i, count, batch_size)
        rows = _by_class.train_rows(images, state.class_order, example)
        made = _by_class.take(images, data.train_x, data.train_y, rows, state.task)
        if augment:
            made = augmented(made, jax.random.fold_in(state.key, i))
        return _by_class.flattened(in_play(state, state.task, made), flatten)

    def held_out(data: Dataset, state: Task, split: str, now: Array, i: Array) -> Batch:
        seen = (state.task + 1) * classes_per_task
        rows, weight = _by_class.held_out_rows(
            images, split, state.class_order, seen, i, held_out_batch
        )
        x, y = _splits.split_arrays(data, split)
        made = _by_class.take(images, x, y, rows, state.task)
        if augment_test and split == "test":
            test_key = jax.random.fold_in(state.key, NO_STEP)
            made = augmented(made, jax.random.fold_in(test_key, i))
        made = in_play(state, now, made._replace(weight=weight))
        return _by_class.flattened(made, flatten)

    return Stream(spec, images.load, start, batch, held_out)


def _check_rules(active: str, best_validation: bool, fit: int, epochs: int) -> None:
    if active not in ACTIVE:
        raise UnknownNameError(f"Unknown active {active!r}.{nearest(active, ACTIVE)}")
    if best_validation and not fit:
        raise ValueError(
            "best_validation=True scores 'fit' examples: keep images back with "
            "fit_per_class=N, or choose best_validation=False."
        )
    if epochs < 1:
        raise ValueError(f"epochs={epochs}: at least 1.")


def _ascending(schedule: Any) -> tuple[tuple[float, float], ...]:
    pairs = tuple((float(fraction), float(factor)) for fraction, factor in schedule)
    fractions = [fraction for fraction, _ in pairs]
    if fractions != sorted(fractions) or any(not 0 <= f < 1 for f in fractions):
        raise ValueError(
            f"step_schedule={pairs}: fractions of a task, ascending, from 0 to below 1,"
            f" as in {DECAY}."
        )
    if not all(0 <= factor < math.inf for _, factor in pairs):
        raise ValueError(
            f"step_schedule={pairs}: factors of the step size, finite and 0 or more, as "
            f"in {DECAY}."
        )
    return pairs
