"""Split classes: each task has some of the classes of a data set, and no others."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cl_bench.registry import UnknownNameError, nearest
from cl_bench.streams import (
    _by_class,
    _class_rows,
    _images,
    _scenario,
    _shuffle,
    _splits,
)
from cl_bench.types import Batch, Dataset, Key, Stream

REFERENCE = (
    "Zenke et al. (2017), ICML, Split MNIST; its three scenarios: van de Ven and Tolias "
    "(2019), arXiv:1904.07734; Hsu et al. (2018), arXiv:1810.12488, and released code"
)
ORDERS = ("random", "natural")


class Task(NamedTuple):
    """State of one task."""

    order: (
        Array  # [classes of the set] int32, the run's; task t has places tC to tC + C
    )
    classes: Array  # [n] int32 classes it trains on, laid end to end
    counts: Array  # [n] int32 training images of each, 0 where not used
    first: Array  # () int32, place in the order of classes[0]
    table: Array  # [size] int32, its examples in epochs
    task: Array  # () int32


def make(
    *,
    dataset: str = "digits",
    classes_per_task: int = 2,
    num_tasks: int | None = None,
    scenario: str = "class",
    active: str = "all",
    single_head: bool = False,
    training: str = "sequential",
    class_order: str = "random",
    epochs: int = 1,
    steps_per_task: int | None = None,
    batch_size: int = 16,
    steps_per_segment: int | None = None,
    offers: tuple[str, ...] | None = None,
    fit_per_class: int = 0,
    tune_per_class: int = 0,
    held_out_batch: int = 100,
    reset_head: bool = False,
    scale: str = "zero_one",
    flatten: bool = True,
    data_dir: str | None = None,
    download: bool = False,
    dataset_options: Mapping[str, Any] | None = None,
) -> Stream:
    """Split MNIST of Zenke et al. (2017), for any set of images with classes.

    Task t has the classes at places t C to t C + C - 1 of a class order (`class_order`:
    'random' is the run's own, 'natural' that of the set) and all their images; C is
    `classes_per_task`, and `num_tasks=None` is as many as there are classes for. What
    a task's outputs are, which are in play, and whether it trains on its own examples
    or also on those of other tasks, say `scenario`, `active`, `single_head` and
    `training` (`_scenario`); `offers=None` is what the scenario tells.

    `steps_per_task` minibatches a task, or `epochs` times those that a task has on
    average, also in joint and cumulative training, so that every arm takes as many
    steps. An epoch is a new order of the examples without its incomplete last
    minibatch. x is [B, D], or [B, H, W, C] where not `flatten`. `held_out` gives a
    task's own examples, whatever it trains on. `examples_per_task` is that of the
    smallest task there can be. Of each class the first `fit_per_class` images, in the
    order of the set, are kept back as 'fit', the next `tune_per_class` as 'tune'.

    Raises ValueError for more tasks than there are classes for, a class with too few
    images, a batch larger than the smallest task, options that contradict each other.
    """
    data_rows = _class_rows.open_rows(
        dataset,
        data_dir=data_dir,
        download=download,
        dataset_options=dataset_options,
        fit_per_class=fit_per_class,
        tune_per_class=tune_per_class,
        scale=scale,
    )
    images, per_task = data_rows.images, classes_per_task
    tasks = _by_class.number_of_tasks(dataset, images.num_classes, per_task, num_tasks)
    rule = _scenario.make(
        scenario, tasks, per_task,
        active=active, single_head=single_head, training=training,
    )  # fmt: skip
    if class_order not in ORDERS:
        hint = nearest(class_order, ORDERS)
        raise UnknownNameError(f"Unknown class_order {class_order!r}.{hint}")
    known = _scenario.offers(rule, offers)
    sizes = np.sort(data_rows.count["train"])
    smallest = int(sizes[:per_task].sum())
    _shuffle.check_batch(batch_size, smallest)
    average = images.num_train * per_task // images.num_classes
    steps = steps_per_task or epochs * max(1, average // batch_size)
    spec = _images.make_spec(
        images,
        input_shape=_by_class.input_shape(images, flatten),
        num_tasks=tasks,
        steps_per_task=steps,
        batch_size=batch_size,
        steps_per_segment=steps_per_segment,
        offers=_by_class.check_offers(known, fit_per_class),
        reset_head=reset_head,
        held_out_batch=held_out_batch,
    )._replace(
        examples_per_task=smallest,
        num_classes=per_task * tasks,
        **_scenario.facts(rule, known),
    )
    used = per_task if training == "sequential" else per_task * tasks
    room = int(sizes[-used:].sum())
    table_size = -(-steps // (smallest // batch_size)) * room

    def start(data: Dataset, key: Key, task: Array) -> Task:
        order_key, own_key = jax.random.split(key)
        order = jnp.arange(images.num_classes, dtype=jnp.int32)
        if class_order == "random":
            order = jax.random.permutation(order_key, order)
        task = jnp.asarray(task, jnp.int32)
        first = task * per_task if training == "sequential" else jnp.zeros_like(task)
        count = (task + 1) * per_task if training == "cumulative" else used
        classes = jax.lax.dynamic_slice_in_dim(order, first, used)
        counts = _class_rows.counts_of(data_rows, "train", classes, jnp.asarray(count))
        table_key = jax.random.fold_in(own_key, task)
        table = _shuffle.shuffled_epochs(table_key, jnp.sum(counts), table_size)
        return Task(order, classes, counts, first, table, task)

    def examples(x: Array, rows: Array, place: Array, now: Array, test: bool) -> Batch:
        """Images at `rows`, of the classes at `place` [B] of the run's order."""
        task, y = jnp.divmod(place, per_task)
        y = _scenario.labels(rule, y, task)
        made = _images.make_batch(images, _images.pixel_rows(x, rows), y, task)
        in_play = _scenario.in_play(rule, task, now, test=test)
        shape = (len(rows), *spec.input_shape)
        return made._replace(x=made.x.reshape(shape), classes=in_play, task=task)

    def batch(data: Dataset, state: Task, i: Array) -> Batch:
        total = jnp.sum(state.counts)
        number = _shuffle.batch_of(state.table, i, total, batch_size)
        rows, place = _class_rows.rows_of(
            data_rows, "train", state.classes, state.counts, number
        )
        return examples(data.train_x, rows, state.first + place, state.task, test=False)

    def held_out(data: Dataset, state: Task, split: str, now: Array, i: Array) -> Batch:
        _class_rows.check_split(data_rows, split)
        first = state.task * per_task
        classes = jax.lax.dynamic_slice_in_dim(state.order, first, per_task)
        counts = _class_rows.counts_of(data_rows, split, classes, jnp.int32(per_task))
        number = i * held_out_batch + jnp.arange(held_out_batch, dtype=jnp.int32)
        mixed = _splits.spread(number, jnp.sum(counts))
        rows, place = _class_rows.rows_of(data_rows, split, classes, counts, mixed)
        x, _ = _splits.split_arrays(data, split)
        made = examples(x, rows, first + place, now, test=True)
        weight = (number < jnp.sum(counts)).astype(jnp.float32)
        return made._replace(weight=weight)

    return Stream(spec, images.load, start, batch, held_out)
