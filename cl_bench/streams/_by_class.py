"""Images sorted by class, so that the examples of a class are rows next to each other.

Not a component. Rows of `Dataset.train_x`: the training part of class 0, 1, ..., then
the 'fit' part of class 0, 1, ..., then the 'tune' part. Every class has equally many
rows in a part, so that example n of class c is row `first + c * per_class + n`.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from cl_bench.datasets import _source
from cl_bench.streams import _images, _scaling, _splits
from cl_bench.streams._images import Images
from cl_bench.types import Batch, Dataset


def open_by_class(
    dataset: str,
    *,
    data_dir: str | None,
    download: bool,
    dataset_options: Mapping[str, Any] | None,
    train_per_class: int | None,
    fit_per_class: int,
    tune_per_class: int,
    scale: str,
) -> Images:
    """Looks a data set up by name and counts the images of its classes.

    Of each class, in the order of the set, the first `fit_per_class` are kept back as
    'fit', the next `tune_per_class` as 'tune', and the next `train_per_class` (None: as
    many as the smallest class has left) are trained on. The test part is cut to the
    size of its smallest class. Raises ValueError where a class has too few images.
    """
    where: dict[str, Any] = {"data_dir": data_dir, "download": download}
    where |= dataset_options or {}
    facts = _source.describe(dataset, **where)
    source = _source.load(dataset, **where)
    smallest = _smallest(source.train_y, facts.num_classes)
    kept = fit_per_class + tune_per_class
    count = smallest - kept if train_per_class is None else train_per_class
    if min(fit_per_class, tune_per_class) < 0 or not 1 <= count <= smallest - kept:
        raise ValueError(
            f"{dataset}: its smallest class has {smallest} training images, too few "
            f"for train_per_class={train_per_class} beside fit_per_class="
            f"{fit_per_class} and tune_per_class={tune_per_class}; at most "
            f"{smallest} in all work."
        )
    test = _smallest(source.test_y, facts.num_classes)
    classes = facts.num_classes
    held_out = {
        "fit": (classes * count, classes * fit_per_class),
        "tune": (classes * (count + fit_per_class), classes * tune_per_class),
        "test": (0, classes * test),
    }
    ranges = [(kept, kept + count), (0, fit_per_class), (fit_per_class, kept)]

    def load() -> Dataset:
        return _sorted(_source.load(dataset, **where), classes, ranges, test)

    images = Images(load, facts.image_shape, classes, classes * count, held_out, 1, 0)
    return _scaling.scaled(images, scale)


def _smallest(labels: Any, classes: int) -> int:
    return int(np.bincount(np.asarray(labels), minlength=classes).min())


def _sorted(
    data: Dataset, classes: int, ranges: list[tuple[int, int]], test: int
) -> Dataset:
    if data.train_x.dtype != np.uint8:
        raise ValueError(f"Image streams take uint8 images, not {data.train_x.dtype}.")
    train = [np.flatnonzero(np.asarray(data.train_y) == c) for c in range(classes)]
    held = [np.flatnonzero(np.asarray(data.test_y) == c) for c in range(classes)]
    rows = np.concatenate([m[a:b] for a, b in ranges for m in train])
    test_rows = np.concatenate([m[:test] for m in held])
    size = int(np.prod(data.train_x.shape[1:]))
    return Dataset(
        data.train_x[rows].reshape(-1, size), data.train_y[rows],
        data.test_x[test_rows].reshape(-1, size), data.test_y[test_rows],
    )  # fmt: skip


def number_of_tasks(
    dataset: str, classes: int, per_task: int, num_tasks: int | None
) -> int:
    """`num_tasks`, None being as many as there are classes for; ValueError if more."""
    if per_task < 1 or (num_tasks is not None and num_tasks < 1):
        raise ValueError(
            f"classes_per_task={per_task} and num_tasks={num_tasks}: at least 1 each."
        )
    most = classes // per_task
    tasks = most if num_tasks is None else num_tasks
    if not 1 <= tasks <= most:
        raise ValueError(
            f"{tasks or 1} tasks of {per_task} new classes need {(tasks or 1) * per_task}"
            f" classes; {dataset} has {classes}: num_tasks={max(most, 1)} with "
            f"classes_per_task={min(per_task, classes)} works."
        )
    return tasks


def check_offers(offers: str | tuple[str, ...], fit_per_class: int) -> tuple[str, ...]:
    """The offers as a tuple. Raises ValueError for 'validation' without 'fit'."""
    offers = (offers,) if isinstance(offers, str) else tuple(offers)
    if "validation" in offers and not fit_per_class:
        raise ValueError("To offer 'validation', keep images back: fit_per_class=N.")
    return offers


def train_rows(images: Images, class_order: Array, example: Array) -> Array:
    """Rows of a task's examples, numbered through the classes `class_order` [n]."""
    return _rows(images.num_train // images.num_classes, class_order, example)


def _rows(per_class: int, class_order: Array, example: Array) -> Array:
    which, number = jnp.divmod(example, per_class)
    return class_order[which] * per_class + number


def held_out_rows(
    images: Images, split: str, class_order: Array, count: Array, i: Array, size: int
) -> tuple[Array, Array]:
    """Rows [size] of minibatch i of the first `count` classes of `class_order`.

    In an order in which the classes are mixed; with their weights, 0 past the last row. Raises ValueError, while tracing, for a
    split that holds no examples.
    """
    _splits.check_split(split)
    first, held = images.held_out[split]
    per_class = held // images.num_classes
    if not per_class:
        how = f"make the stream with {split}_per_class=N"
        raise _splits.no_examples(split, how, _splits.EACH_CLASS)
    number = i * size + jnp.arange(size, dtype=jnp.int32)
    total = count * per_class
    example = jnp.minimum(_splits.spread(number, total), total - 1)
    rows = first + _rows(per_class, class_order, example)
    return rows, (number < total).astype(jnp.float32)


def take(images: Images, x: Array, y: Array, rows: Array, task: Array) -> Batch:
    """Images [B, H, W, C] and labels of some rows, scaled; every class in play."""
    pixels = _images.pixel_rows(x, rows)
    made = _images.make_batch(images, pixels, y[rows], task)
    return made._replace(x=made.x.reshape(-1, *images.image_shape))


def flattened(batch: Batch, flatten: bool) -> Batch:
    """The same batch with x as [B, D] where `flatten`."""
    return batch._replace(x=batch.x.reshape(len(batch.x), -1)) if flatten else batch


def input_shape(images: Images, flatten: bool) -> tuple[int, ...]:
    """(D,) where `flatten`, else (H, W, C)."""
    return (int(np.prod(images.image_shape)),) if flatten else images.image_shape
