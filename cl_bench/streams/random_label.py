"""Random labels: every task is to memorise new labels of the same few images."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.registry import UnknownNameError, nearest
from cl_bench.streams import _by_class, _epochs, _images, _scaling
from cl_bench.types import Batch, Dataset, Key, Stream

REFERENCE = (
    "Kumar, Marklund and Van Roy (2023), Maintaining plasticity in continual learning "
    "via regenerative regularization, arXiv:2308.11958, random-label MNIST and "
    "CIFAR-10 (paper and released code)"
)
LABELS = ("shuffle", "uniform")


class Task(NamedTuple):
    """State of one task."""

    labels: Array  # [N] int32, the label of each image in this task
    orders: Array  # [epochs, N] int32, the images in the order of each epoch
    task: Array  # () int32


def make(
    *,
    dataset: str = "digits",
    num_tasks: int = 50,
    epochs: int = 400,
    batch_size: int = 16,
    steps_per_segment: int | None = None,
    offers: tuple[str, ...] = (),
    examples: int = 1200,
    labels: str = "shuffle",
    reset_head: bool = False,
    scale: str = "minus_one_one",
    flatten: bool = True,
    data_dir: str | None = None,
    download: bool = False,
    dataset_options: Mapping[str, Any] | None = None,
) -> Stream:
    """Random-label MNIST and CIFAR-10 of Kumar et al. (2023), for any set of images.

    The images are the first `examples` of the training part, the same in every task
    and for every seed. Each task, the first included, gives each of them a new label:
    'shuffle' shuffles their true labels over the images, so that every class stays as
    frequent as it is, and 'uniform' draws each label uniformly. A task trains for
    `epochs` passes over the images, each in a new order and without its incomplete
    last batch. A segment is a task unless `steps_per_segment` says otherwise. x is
    [B, D] float32, or [B, H, W, C] where `flatten` is False; every output is in play.

    There are no held-out examples: no image outside those trained on has a label
    that follows from the task, and `held_out` raises ValueError for every split. The
    score of a task is its online accuracy, or its loss on training batches. The other
    options are those of `_images.open_images` and `_images.make_spec`; `scale` may be
    'channel' too, each colour channel standardised by itself.

    Raises UnknownNameError for another `labels` or `scale`, ValueError for numbers that
    do not fit the set.
    # Departs from the released code: there every seed draws its own images, and an
    # epoch ends a batch early (74 of the 75 that 1,200 images make).
    """
    images = _images.open_images(
        dataset,
        data_dir=data_dir,
        download=download,
        dataset_options=dataset_options,
        examples=examples,
    )
    images = _scaling.scaled(images, scale)
    _check(labels, epochs, batch_size, examples, offers)
    shape = _by_class.input_shape(images, flatten)
    spec = _images.make_spec(
        images,
        input_shape=shape,
        num_tasks=num_tasks,
        steps_per_task=epochs * (examples // batch_size),
        batch_size=batch_size,
        steps_per_segment=steps_per_segment,
        offers=offers,
        reset_head=reset_head,
        held_out_batch=None,
    )

    def start(data: Dataset, key: Key, task: Array) -> Task:
        label_key, order_key = jax.random.split(jax.random.fold_in(key, task))
        if labels == "shuffle":
            drawn = jax.random.permutation(label_key, data.train_y)
        else:
            drawn = jax.random.randint(label_key, (examples,), 0, images.num_classes)
        orders = _epochs.epoch_orders(order_key, epochs, examples)
        return Task(drawn.astype(jnp.int32), orders, jnp.asarray(task, jnp.int32))

    def batch(data: Dataset, state: Task, i: Array) -> Batch:
        rows = _epochs.epoch_rows(state.orders, i, batch_size)
        made = _by_class.take(images, data.train_x, state.labels, rows, state.task)
        return _by_class.flattened(made, flatten)

    return Stream(spec, images.load, start, batch, _no_held_out)


def _no_held_out(data: Dataset, state: Task, split: str, now: Array, i: Array) -> Batch:
    del data, state, now, i
    raise ValueError(
        f"The random_label stream holds no {split!r} examples: random labels say nothing "
        "about other images. Use its online accuracy, or the label_permuted stream."
    )


def _check(
    labels: str, epochs: int, batch_size: int, examples: int, offers: Any
) -> None:
    if labels not in LABELS:
        raise UnknownNameError(f"Unknown labels {labels!r}.{nearest(labels, LABELS)}")
    if epochs < 1 or not 1 <= batch_size <= examples:
        raise ValueError(
            f"epochs={epochs} must be at least 1 and batch_size={batch_size} between 1 "
            f"and examples={examples}."
        )
    if "validation" in offers:
        raise ValueError(
            "The random_label stream cannot offer 'validation': random labels say "
            "nothing about other images. It can offer 'boundaries' and 'task_id'."
        )
