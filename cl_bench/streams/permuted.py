"""Permuted images: every task is the same data behind a new permutation of pixels."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.streams import _images, _length, _splits
from cl_bench.types import Batch, Dataset, Key, Stream

REFERENCE = (
    "Dohare et al. (2024), Loss of plasticity in deep continual learning, Nature 632, "
    "Online Permuted MNIST; Goodfellow et al. (2014), arXiv:1312.6211"
)


class Task(NamedTuple):
    """State of one task."""

    pixels: Array  # [D] int32, pixel d of an example is pixel pixels[d] of the image
    order: Array  # [N] int32, the rows in the order of this task
    task: Array  # () int32


def make(
    *,
    dataset: str = "digits",
    num_tasks: int | None = 400,
    total_steps: int | None = None,
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
    data_dir: str | None = None,
    download: bool = False,
    dataset_options: Mapping[str, Any] | None = None,
) -> Stream:
    """Online Permuted MNIST of Dohare et al. (2024), for any set of images.

    Each task, the first included, draws a uniformly random permutation of the D
    pixels and a uniformly random order of the examples. Steps walk that order, from
    its start again when it ends: `steps_per_task=None` is one pass (leaving out the
    last N % batch_size), less changes the task sooner, more repeats examples in the
    same order. The stream is `num_tasks` long, within `total_steps` where those
    are given, or None: as many whole tasks as they hold. `num_tasks=1` without them is
    a control whose pixels stay as they are. x is [B, D] float32;
    every output is in play.

    `held_out` gives minibatches of `held_out_batch` test (or kept back) examples
    under the task's own permutation, padded with weight 0; a minibatch past the end
    has only zeros. The other options are those of `_images.open_images` and
    `make_spec`.

    Raises ValueError for a period that is more than half of `total_steps`, for more
    tasks than those hold, and for other numbers that do not fit.

    # Departs from the paper: a permutation applies to the original image, where the
    # released code permutes the previous task's pixels again. The same in distribution.
    # Departs from the paper: a task with more steps than examples walks its one order
    # again, as the released code does; the paper's text on rates of change says that
    # examples are drawn with replacement.
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
    size = images.image_shape[0] * images.image_shape[1] * images.image_shape[2]
    period = _images.task_steps(images, steps_per_task, batch_size)
    spec = _images.make_spec(
        images,
        input_shape=(size,),
        num_tasks=_length.tasks(num_tasks, total_steps, period),
        steps_per_task=steps_per_task,
        batch_size=batch_size,
        steps_per_segment=steps_per_segment,
        offers=offers,
        reset_head=reset_head,
        held_out_batch=held_out_batch,
    )

    def start(data: Dataset, key: Key, task: Array) -> Task:
        pixel_key, order_key = jax.random.split(jax.random.fold_in(key, task))
        return Task(
            pixels=_images.example_order(pixel_key, size),
            order=_images.example_order(order_key, images.num_train),
            task=jnp.asarray(task, jnp.int32),
        )

    def batch(data: Dataset, state: Task, i: Array) -> Batch:
        rows = _images.next_examples(state.order, i, batch_size)
        x = _images.pixel_rows(data.train_x, rows, state.pixels)
        return _images.make_batch(images, x, data.train_y[rows], state.task)

    def held_out(data: Dataset, state: Task, split: str, now: Array, i: Array) -> Batch:
        rows, weight = _splits.held_out_rows(images, split, i, held_out_batch)
        all_x, all_y = _splits.split_arrays(data, split)
        x = _images.pixel_rows(all_x, rows, state.pixels)
        made = _images.make_batch(images, x, all_y[rows], state.task)
        return made._replace(weight=weight)

    return Stream(spec, images.load, start, batch, held_out)
