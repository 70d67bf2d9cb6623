"""Images sorted by class, with all images of every class: classes may be unequal.

Not a component. `_by_class.py` cuts every class to the size of the smallest one.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from cl_bench.datasets import _source
from cl_bench.streams import _scaling, _splits
from cl_bench.streams._images import Images
from cl_bench.types import Dataset


class ClassRows(NamedTuple):
    """A data set whose rows are sorted by class, and where each class lies."""

    images: Images
    first: dict[str, np.ndarray]  # part -> [C] first row of each class in its arrays
    count: dict[str, np.ndarray]  # part -> [C] rows of each class


def open_rows(
    dataset: str,
    *,
    data_dir: str | None,
    download: bool,
    dataset_options: Mapping[str, Any] | None,
    fit_per_class: int,
    tune_per_class: int,
    scale: str,
) -> ClassRows:
    """Looks a data set up by name; parts 'train', 'fit', 'tune' and 'test'.

    Of each class, in the order of the set, the first `fit_per_class` images are kept
    back as 'fit' and the next `tune_per_class` as 'tune'; all others are trained on.
    Raises ValueError where that leaves a class without training images.
    """
    where: dict[str, Any] = {"data_dir": data_dir, "download": download}
    where |= dataset_options or {}
    facts = _source.describe(dataset, **where)
    source = _source.load(dataset, **where)
    total = np.bincount(np.asarray(source.train_y), minlength=facts.num_classes)
    kept = fit_per_class + tune_per_class
    if min(fit_per_class, tune_per_class) < 0 or kept >= total.min():
        raise ValueError(
            f"{dataset}: its smallest class has {total.min()} training images: "
            f"fit_per_class={fit_per_class} and tune_per_class={tune_per_class} must "
            f"leave some; at most {total.min() - 1} in all work."
        )
    test = np.bincount(np.asarray(source.test_y), minlength=facts.num_classes)
    count = {
        "train": total - kept,
        "fit": np.full_like(total, fit_per_class),
        "tune": np.full_like(total, tune_per_class),
        "test": test,
    }
    first, start = {"test": _starts(test)}, 0
    for part in ("train", "fit", "tune"):
        first[part] = start + _starts(count[part])
        start += int(count[part].sum())

    def load() -> Dataset:
        return _sorted(_source.load(dataset, **where), facts.num_classes, kept,
                       fit_per_class)  # fmt: skip

    held_out = {p: (int(first[p][0]), int(count[p].sum())) for p in _splits.SPLITS}
    num_train, shape = int(count["train"].sum()), facts.image_shape
    images = Images(load, shape, facts.num_classes, num_train, held_out, 1, 0)
    return ClassRows(_scaling.scaled(images, scale), first, count)


def _starts(count: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(count)[:-1]])


def _sorted(data: Dataset, classes: int, kept: int, fit: int) -> Dataset:
    if data.train_x.dtype != np.uint8:
        raise ValueError(f"Image streams take uint8 images, not {data.train_x.dtype}.")
    of_class = [np.flatnonzero(np.asarray(data.train_y) == c) for c in range(classes)]
    parts = [slice(kept, None), slice(0, fit), slice(fit, kept)]
    rows = np.concatenate([rows[part] for part in parts for rows in of_class])
    test_rows = np.argsort(np.asarray(data.test_y), kind="stable")
    size = int(np.prod(data.train_x.shape[1:]))
    return Dataset(
        data.train_x[rows].reshape(-1, size), data.train_y[rows],
        data.test_x[test_rows].reshape(-1, size), data.test_y[test_rows],
    )  # fmt: skip


def check_split(data: ClassRows, split: str) -> None:
    """Raises for a split that does not exist or holds no examples."""
    _splits.check_split(split)
    if not data.count[split].all():
        how = f"make the stream with {split}_per_class=N"
        raise _splits.no_examples(split, how, _splits.EACH_CLASS)


def counts_of(data: ClassRows, part: str, classes: Array, used: Array) -> Array:
    """[n] rows of each of `classes` [n], 0 from the `used`-th class on."""
    count = jnp.asarray(data.count[part], jnp.int32)[classes]
    return jnp.where(jnp.arange(len(classes)) < used, count, 0)


def rows_of(
    data: ClassRows, part: str, classes: Array, counts: Array, number: Array
) -> tuple[Array, Array]:
    """Example `number` [B] of `classes` [n] laid end to end: its row and its class's place.

    A number past the end gives the last row.
    """
    ends = jnp.cumsum(counts)
    number = jnp.minimum(number, ends[-1] - 1)
    place = jnp.searchsorted(ends, number, side="right").astype(jnp.int32)
    first = jnp.asarray(data.first[part], jnp.int32)[classes[place]]
    return first + number - (ends[place] - counts[place]), place
