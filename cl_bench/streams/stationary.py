"""Stationary images: the control, where nothing changes from one task to the next."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.streams import _images, _splits
from cl_bench.types import Batch, Dataset, Key, Stream

REFERENCE = "The usual i.i.d. training in epochs; a control for streams that change"


class Task(NamedTuple):
    """State of one task."""

    order: Array  # [N] int32, the rows in the order of this task
    task: Array  # () int32


def make(
    *,
    dataset: str = "digits",
    num_tasks: int = 400,
    steps_per_task: int | None = None,
    batch_size: int = 1,
    steps_per_segment: int | None = None,
    offers: tuple[str, ...] = (),
    examples: int | None = None,
    fit_examples: int = 0,
    tune_examples: int = 0,
    held_out_batch: int = 100,
    reset_head: bool = False,
    scale: str = "zero_one",
    flatten: bool = True,
    data_dir: str | None = None,
    download: bool = False,
    dataset_options: Mapping[str, Any] | None = None,
) -> Stream:
    """Every task is the same data in a new random order: a task is an epoch.

    As `permuted`, without the permutation of pixels, and with the same options.
    x is [B, D] float32, or [B, H, W, C] where `flatten` is False.
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
    height, width, channels = images.image_shape
    shape = (height * width * channels,) if flatten else images.image_shape
    spec = _images.make_spec(
        images,
        input_shape=shape,
        num_tasks=num_tasks,
        steps_per_task=steps_per_task,
        batch_size=batch_size,
        steps_per_segment=steps_per_segment,
        offers=offers,
        reset_head=reset_head,
        held_out_batch=held_out_batch,
    )

    def take(all_x: Array, all_y: Array, rows: Array, task: Array) -> Batch:
        pixels = _images.pixel_rows(all_x, rows).reshape(-1, *shape)
        return _images.make_batch(images, pixels, all_y[rows], task)

    def start(data: Dataset, key: Key, task: Array) -> Task:
        order = _images.example_order(jax.random.fold_in(key, task), images.num_train)
        return Task(order, jnp.asarray(task, jnp.int32))

    def batch(data: Dataset, state: Task, i: Array) -> Batch:
        rows = _images.next_examples(state.order, i, batch_size)
        return take(data.train_x, data.train_y, rows, state.task)

    def held_out(data: Dataset, state: Task, split: str, now: Array, i: Array) -> Batch:
        rows, weight = _splits.held_out_rows(images, split, i, held_out_batch)
        made = take(*_splits.split_arrays(data, split), rows, state.task)
        return made._replace(weight=weight)

    return Stream(spec, images.load, start, batch, held_out)
