"""Permuted labels: every task is the same data with its classes renamed."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.streams import _by_class, _epochs, _images, _length, _splits
from cl_bench.types import Batch, Dataset, Key, Stream

REFERENCE = (
    "Elsayed and Mahmood (2024), Addressing loss of plasticity and catastrophic "
    "forgetting in continual learning, ICLR, arXiv:2404.00781: label-permuted EMNIST, "
    "CIFAR-10 (paper and released code)"
)
TOTAL_STEPS = 1_000_000  # where neither a number of tasks nor of steps is given


class Task(NamedTuple):
    """State of one task."""

    labels: Array  # [K] int32, class c has the label labels[c]
    order: Array  # [N] int32, the rows in the order of this task
    task: Array  # () int32


def make(
    *,
    dataset: str = "digits",
    num_tasks: int | None = None,
    total_steps: int | None = None,
    steps_per_task: int = 2500,
    batch_size: int = 1,
    steps_per_segment: int | None = None,
    offers: tuple[str, ...] = (),
    examples: int | None = None,
    fit_examples: int = 0,
    tune_examples: int = 0,
    held_out_batch: int = 100,
    reset_head: bool = False,
    scale: str = "minus_one_one",
    flatten: bool = True,
    data_dir: str | None = None,
    download: bool = False,
    dataset_options: Mapping[str, Any] | None = None,
) -> Stream:
    """Label-permuted streams of UPGD, Elsayed and Mahmood (2024), for any set of images.

    Every `steps_per_task` steps the labels change: each task, the first included,
    draws a uniformly random permutation of the K labels and a random order of the
    examples, which it walks, from its start again where it ends. The stream is
    `num_tasks` long, or as many whole tasks as `total_steps` hold; with neither it has
    the paper's 1,000,000 steps (400 tasks with the defaults), and with both `num_tasks`
    within those steps. `num_tasks=1` alone is a control whose labels never change. x is [B, D] float32, or [B, H, W, C] where
    `flatten` is False; every output is in play.

    `held_out` gives minibatches of `held_out_batch` test (or kept back) examples under
    the task's own permutation of labels. The other options are those of
    `_images.open_images` and `_images.make_spec`.

    Raises ValueError for a period that is more than half of `total_steps`, for more
    tasks than those hold, and for other numbers that do not fit.

    # Departs from the paper: a permutation applies to the original labels, where the
    # released code permutes the previous task's labels again. The same in distribution.
    """
    images = _images.open_images(
        dataset,
        data_dir=data_dir,
        download=download,
        dataset_options=dataset_options,
        examples=examples,
        fit_examples=fit_examples,
        tune_examples=tune_examples,
        scale=scale,
    )
    shape = _by_class.input_shape(images, flatten)
    if num_tasks is None and total_steps is None:
        total_steps = TOTAL_STEPS
    spec = _images.make_spec(
        images,
        input_shape=shape,
        num_tasks=_length.tasks(num_tasks, total_steps, steps_per_task),
        steps_per_task=steps_per_task,
        batch_size=batch_size,
        steps_per_segment=steps_per_segment,
        offers=offers,
        reset_head=reset_head,
        held_out_batch=held_out_batch,
    )

    def start(data: Dataset, key: Key, task: Array) -> Task:
        label_key, order_key = jax.random.split(jax.random.fold_in(key, task))
        return Task(
            labels=_images.example_order(label_key, images.num_classes),
            order=_epochs.epoch_orders(order_key, 1, images.num_train)[0],
            task=jnp.asarray(task, jnp.int32),
        )

    def take(x: Array, y: Array, rows: Array, state: Task) -> Batch:
        pixels = _images.pixel_rows(x, rows).reshape(-1, *shape)
        return _images.make_batch(images, pixels, state.labels[y[rows]], state.task)

    def batch(data: Dataset, state: Task, i: Array) -> Batch:
        rows = _images.next_examples(state.order, i, batch_size)
        return take(data.train_x, data.train_y, rows, state)

    def held_out(data: Dataset, state: Task, split: str, now: Array, i: Array) -> Batch:
        rows, weight = _splits.held_out_rows(images, split, i, held_out_batch)
        made = take(*_splits.split_arrays(data, split), rows, state)
        return made._replace(weight=weight)

    return Stream(spec, images.load, start, batch, held_out)
