"""5+1: hard tasks of five new classes take turns with easy ones of a single class."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.streams import _by_class, _images, _scenario, _shuffle, _splits
from cl_bench.types import Batch, Dataset, Key, Stream

REFERENCE = (
    "Kumar, Marklund and Van Roy (2023), Maintaining plasticity in continual learning "
    "via regenerative regularization, arXiv:2308.11958, 5+1 CIFAR"
)


class Task(NamedTuple):
    """State of one task."""

    classes: Array  # [hard_classes] int32, of which an easy task has the first ones
    count: Array  # () int32, classes of this task
    table: Array  # [size] int32, the task's examples in epochs
    task: Array  # () int32


def make(
    *,
    dataset: str = "cifar100",
    num_tasks: int = 30,
    hard_classes: int = 5,
    easy_classes: int = 1,
    steps_per_task: int = 780,
    batch_size: int = 32,
    steps_per_segment: int | None = None,
    offers: tuple[str, ...] = (),
    train_per_class: int | None = 500,
    fit_per_class: int = 0,
    tune_per_class: int = 0,
    held_out_batch: int = 100,
    reset_head: bool = False,
    scale: str = "minus_one_one",
    flatten: bool = False,
    data_dir: str | None = None,
    download: bool = False,
    dataset_options: Mapping[str, Any] | None = None,
) -> Stream:
    """5+1 CIFAR of Kumar et al. (2023), for any set of images with classes.

    Tasks 0, 2, 4, ... are hard, with `hard_classes` classes, the others easy, with
    `easy_classes`. The run's key puts the classes of the set in a random order and
    tasks take them from there: no class ever comes again. A class has
    `train_per_class` images (None: as many as the smallest has). Hard and easy tasks
    train for `steps_per_task` steps in epochs, each in a new order and without its
    incomplete last batch; with 500 images a class that is 10 epochs of a hard and 52
    of an easy task. Labels are the set's own, and every output is always in play.

    x is [B, H, W, C], or [B, D] where `flatten`. `held_out` gives the examples of the
    task's classes. `examples_per_task` is that of the smallest task. `fit_per_class`
    and `tune_per_class` images of each class are kept back. The other options are
    those of `permuted`, with the further scale 'channel' (`_scaling.scaled`).

    Raises ValueError for more tasks than there are classes for, too few images of a
    class, a batch larger than an easy task, and steps that segments do not divide.
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
    _check_classes(dataset, images.num_classes, num_tasks, hard_classes, easy_classes)
    per_class = images.num_train // images.num_classes
    used = {hard_classes, easy_classes} if num_tasks > 1 else {hard_classes}
    counts = sorted(per_class * n for n in used)
    _shuffle.check_batch(batch_size, counts[0])
    size = max(_shuffle.table_size(steps_per_task, n, batch_size) for n in counts)
    offers = _by_class.check_offers(offers, fit_per_class)
    spec = _images.make_spec(
        images,
        input_shape=_by_class.input_shape(images, flatten),
        num_tasks=num_tasks,
        steps_per_task=steps_per_task,
        batch_size=batch_size,
        steps_per_segment=steps_per_segment,
        offers=offers,
        reset_head=reset_head,
        held_out_batch=held_out_batch,
    )
    spec = spec._replace(
        examples_per_task=counts[0],
        task_examples=tuple(
            per_class * (easy_classes if t % 2 else hard_classes)
            for t in range(num_tasks)
        ),
        scenario=_scenario.told("class", offers),
        own_outputs=True,
    )
    widest = max(hard_classes, easy_classes)

    def start(data: Dataset, key: Key, task: Array) -> Task:
        order_key, own_key = jax.random.split(key)
        order = jax.random.permutation(order_key, images.num_classes)
        pairs, easy = jnp.divmod(jnp.asarray(task, jnp.int32), 2)
        first = pairs * (hard_classes + easy_classes) + easy * hard_classes
        count = jnp.where(easy == 1, easy_classes, hard_classes)
        chosen = jnp.minimum(first + jnp.arange(widest), images.num_classes - 1)
        table = _shuffle.shuffled_epochs(
            jax.random.fold_in(own_key, task), count * per_class, size
        )
        classes = order[chosen].astype(jnp.int32)
        return Task(classes, count, table, jnp.asarray(task, jnp.int32))

    def batch(data: Dataset, state: Task, i: Array) -> Batch:
        count = state.count * per_class
        example = _shuffle.batch_of(state.table, i, count, batch_size)
        rows = _by_class.train_rows(images, state.classes, example)
        made = _by_class.take(images, data.train_x, data.train_y, rows, state.task)
        return _by_class.flattened(made, flatten)

    def held_out(data: Dataset, state: Task, split: str, now: Array, i: Array) -> Batch:
        rows, weight = _by_class.held_out_rows(
            images, split, state.classes, state.count, i, held_out_batch
        )
        x, y = _splits.split_arrays(data, split)
        made = _by_class.take(images, x, y, rows, state.task)
        return _by_class.flattened(made._replace(weight=weight), flatten)

    return Stream(spec, images.load, start, batch, held_out)


def _check_classes(
    dataset: str, classes: int, num_tasks: int, hard: int, easy: int
) -> None:
    """Classes for every task: ValueError names the number of tasks that there can be."""
    if min(hard, easy, num_tasks) < 1:
        raise ValueError(
            f"hard_classes={hard}, easy_classes={easy} and num_tasks={num_tasks}: each "
            "must be at least 1."
        )
    needed = (num_tasks + 1) // 2 * hard + num_tasks // 2 * easy
    if needed > classes:
        most = classes // (hard + easy) * 2 + (classes % (hard + easy) >= hard)
        raise ValueError(
            f"num_tasks={num_tasks} of {hard} and {easy} classes need {needed} classes; "
            f"{dataset} has {classes}, enough for num_tasks={most}."
        )
