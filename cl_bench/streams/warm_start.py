"""Warm starts: the data of one problem arrive in chunks, some with wrong labels."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cl_bench.streams import (
    _augment,
    _by_class,
    _chunks,
    _images,
    _scaling,
    _shuffle,
    _splits,
)
from cl_bench.types import Batch, Dataset, Key, Stream

REFERENCE = (
    "Ash and Adams (2020), On warm-starting neural network training, arXiv:1910.08475 "
    "(from a secondary source); Lee et al. (2024), Slow and steady wins the race, "
    "arXiv:2406.02596 (Hare and Tortoise, released code); Shin et al. (2024), DASH, "
    "arXiv:2410.23495 (from a port of its code)"
)


class Task(NamedTuple):
    """State of one task; N is the number of training examples."""

    order: Array  # [N] int32 rows in the order in which they arrive, the run's
    labels: Array  # [N] int32 in that order, the wrong ones included
    table: Array  # [size] int32, the task's examples in epochs
    key: Key  # of the augmentation
    task: Array  # () int32


def make(
    *,
    dataset: str = "cifar10",
    preset: str | None = "ash_adams",
    chunks: Sequence[float] | None = None,
    cumulative: bool | None = None,
    label_noise: Sequence[float] | float | None = None,
    epochs: Sequence[int] | int | None = None,
    batch_size: int | None = None,
    num_tasks: int | None = None,
    steps_per_segment: int | None = None,
    offers: tuple[str, ...] = ("boundaries",),
    examples: int | None = None,
    fit_examples: int = 0,
    tune_examples: int = 0,
    held_out_batch: int = 100,
    reset_head: bool = False,
    augment: bool = False,
    crop_padding: int = _augment.PADDING,
    max_degrees: float = 0.0,
    scale: str = "channel",
    flatten: bool = False,
    data_dir: str | None = None,
    download: bool = False,
    dataset_options: Mapping[str, Any] | None = None,
) -> Stream:
    """Warm-start and noisy-chunk training, for any set of images.

    The training set, in a random order of the run's own, is cut into `chunks` (shares
    of it). Task t trains on chunk t, or on chunks 0 to t where `cumulative`, for
    `epochs` epochs (one number, or one a task), each in a new order and without its
    incomplete last batch. Of chunk t, exactly int(n * `label_noise[t]`) of n labels are
    wrong: another class, uniformly drawn, the same one for the whole run. Held-out
    examples ('test' is the whole test set in every task) have their true labels.

    A `preset` gives what is left None; `preset=None` needs `chunks`, `epochs` and
    `batch_size`:
      'ash_adams'      50 %, then 100 %; 350 epochs each, batch 128.
      'hare_tortoise'  10 % with half of its labels wrong, then the other 90 %; 1000 and
                       111 epochs, batch 256.
      'noisy_chunks'   ten times 10 %, wrong labels .5, .4, .4, .3, .3, .2, .2, .1, .1
                       and 0; 100 epochs, batch 256.
      'dash'           50 chunks that stay, 260 epochs each (the arm with a schedule),
                       batch 128.
    `num_tasks` takes the first so many chunks. A segment is one epoch of the task with
    the most examples by default; the last one of a task may be shorter.
    `examples_per_task` is that of the smallest task. `augment` gives each training
    example of each step its own flip and crop, and a rotation up to `max_degrees`
    (`_augment.augment`, after scaling). x is [B, H, W, C], or [B, D] where
    `flatten`. The other options are those of `permuted`, with the scale 'channel'.

    # Departs from the paper: Ash and Adams and DASH train until 99 % or 99.9 % of the
    # training examples are right; here epochs are fixed, for every method alike.
    # Departs from the paper: the released code of Hare and Tortoise keeps the earlier
    # chunks by default and draws wrong labels anew over all of them in each task; its
    # paper, and this stream, train on the chunk alone.
    # Departs from the paper: with scale='channel' means and deviations come from the
    # training part; the released code of Hare and Tortoise has constants for CIFAR-10.

    Raises ValueError for chunks that are more than the set, a batch larger than the
    smallest task, lists of other lengths than `chunks`, a crop padded by the side of
    the image or more, and a negative angle.
    """
    plan = _chunks.make_plan(
        preset, chunks, cumulative, label_noise, epochs, batch_size, num_tasks
    )
    images = _images.open_images(
        dataset,
        data_dir=data_dir,
        download=download,
        dataset_options=dataset_options,
        examples=examples,
        fit_examples=fit_examples,
        tune_examples=tune_examples,
    )
    images = _scaling.scaled(images, scale)
    if augment:
        _augment.check_crop(dataset, images.image_shape, crop_padding)
        _augment.check_degrees(max_degrees)
    total, size_of_batch = images.num_train, plan.batch_size
    ends = np.round(np.cumsum(plan.chunks) * total).astype(np.int32)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int32)
    firsts = np.zeros_like(starts) if plan.cumulative else starts
    counts = ends - firsts
    _shuffle.check_batch(size_of_batch, int(counts.min()))
    steps = tuple(
        int(n) // size_of_batch * e for n, e in zip(counts, plan.epochs, strict=True)
    )
    size = max(int(n) * e for n, e in zip(counts, plan.epochs, strict=True))
    wrong = _chunks.wrong_places(starts, ends, plan.label_noise, total)
    spec = _images.make_spec(
        images,
        input_shape=_by_class.input_shape(images, flatten),
        num_tasks=len(steps),
        steps_per_task=max(steps),
        batch_size=size_of_batch,
        steps_per_segment=None,
        offers=offers,
        reset_head=reset_head,
        held_out_batch=held_out_batch,
    )._replace(
        steps_per_task=steps[0] if len(set(steps)) == 1 else steps,
        steps_per_segment=steps_per_segment or int(counts.max()) // size_of_batch,
        examples_per_task=int(counts.min()),
        task_examples=tuple(counts.tolist()),
    )

    def start(data: Dataset, key: Key, task: Array) -> Task:
        order_key, label_key, own_key = jax.random.split(key, 3)
        order = _images.example_order(order_key, total)
        true = data.train_y[order]
        by = jax.random.randint(label_key, (total,), 1, images.num_classes)
        other = jnp.remainder(true + by, images.num_classes)
        count = jnp.asarray(counts)[task]
        table_key = jax.random.fold_in(own_key, task)
        table = _shuffle.shuffled_epochs(table_key, count, size)
        moves = jax.random.fold_in(jax.random.fold_in(own_key, len(steps)), task)
        labels = jnp.where(jnp.asarray(wrong), other, true)
        return Task(order, labels, table, moves, jnp.asarray(task, jnp.int32))

    def batch(data: Dataset, state: Task, i: Array) -> Batch:
        count = jnp.asarray(counts)[state.task]
        example = _shuffle.batch_of(state.table, i, count, size_of_batch)
        place = jnp.asarray(firsts)[state.task] + example
        rows = state.order[place]
        made = _by_class.take(images, data.train_x, data.train_y, rows, state.task)
        if augment:
            key = jax.random.fold_in(state.key, i)
            x = _augment.augment(key, made.x, padding=crop_padding, degrees=max_degrees)
            made = made._replace(x=x)
        return _by_class.flattened(made._replace(y=state.labels[place]), flatten)

    def held_out(data: Dataset, state: Task, split: str, now: Array, i: Array) -> Batch:
        rows, weight = _splits.held_out_rows(images, split, i, held_out_batch)
        x, y = _splits.split_arrays(data, split)
        made = _by_class.take(images, x, y, rows, state.task)
        return _by_class.flattened(made._replace(weight=weight), flatten)

    return Stream(spec, images.load, start, batch, held_out)
