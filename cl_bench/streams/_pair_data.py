"""The images of `class_pairs`: equally many of each class, sorted by class.

Not a component. The layout is that of `_by_class`, whose functions read it; only here
the test images may come out of the training part.
"""

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cl_bench.datasets import _source
from cl_bench.registry import UnknownNameError, nearest
from cl_bench.streams import _scaling
from cl_bench.streams._images import Images
from cl_bench.types import Dataset

TEST_FROM = ("auto", "train", "test")


class PerClass(NamedTuple):
    """How many images of each class go into each part."""

    train: int
    test: int
    fit: int
    tune: int


def open_pair_data(
    dataset: str,
    *,
    data_dir: str | None,
    download: bool,
    dataset_options: Mapping[str, Any] | None,
    per_class: PerClass,
    test_from: str,
    scale: str,
) -> Images:
    """Counts the images of each class, and says where those of each part will lie.

    Of each class, in the order of the set, the first images of the training part are
    trained on, the next are 'fit', the next 'tune'. Test images are the first of the
    set's own test part (`test_from='test'`) or the last of the training part
    ('train'); 'auto' takes the test part where every class has enough there. Raises
    ValueError where a class has too few images, with the numbers that would do.
    """
    if test_from not in TEST_FROM:
        hint = nearest(test_from, TEST_FROM)
        raise UnknownNameError(f"Unknown test_from {test_from!r}.{hint}")
    where: dict[str, Any] = {"data_dir": data_dir, "download": download}
    where |= dataset_options or {}
    classes = _source.describe(dataset, **where).num_classes
    source = _source.load(dataset, **where)
    if source.train_x.dtype != np.uint8:
        raise ValueError(
            f"Image streams take uint8 images, not {source.train_x.dtype}."
        )
    train, test = (_counts(y, classes) for y in (source.train_y, source.test_y))
    own = test_from == "test" or (test_from == "auto" and test.min() >= per_class.test)
    _check(dataset, per_class, test_from, own, train, test)

    def load() -> Dataset:
        return _sorted(_source.load(dataset, **where), classes, per_class, own)

    return _scaling.scaled(_describe(load, source, classes, per_class), scale)


def _counts(labels: Any, classes: int) -> np.ndarray:
    return np.bincount(np.asarray(labels), minlength=classes)


def _describe(load: Any, source: Dataset, classes: int, parts: PerClass) -> Images:
    """Rows of `Dataset.train_x` in the order training, 'fit', 'tune'."""
    held_out = {
        "fit": (classes * parts.train, classes * parts.fit),
        "tune": (classes * (parts.train + parts.fit), classes * parts.tune),
        "test": (0, classes * parts.test),
    }
    shape = tuple(source.train_x.shape[1:])
    return Images(load, shape, classes, classes * parts.train, held_out, 1.0, 0.0)


def _sorted(data: Dataset, classes: int, parts: PerClass, own_test: bool) -> Dataset:
    """uint8 rows [N, D] and labels: of each part, class 0, 1, ... next to each other."""
    size = int(np.prod(data.train_x.shape[1:]))
    train = [np.flatnonzero(np.asarray(data.train_y) == c) for c in range(classes)]
    ends = np.cumsum([0, parts.train, parts.fit, parts.tune])
    ranges = list(itertools.pairwise(ends))
    rows = np.concatenate([members[a:b] for a, b in ranges for members in train])
    if own_test:
        held = [np.flatnonzero(np.asarray(data.test_y) == c) for c in range(classes)]
        test_rows = np.concatenate([members[: parts.test] for members in held])
        test_x, test_y = data.test_x[test_rows], data.test_y[test_rows]
    else:
        test_rows = np.concatenate([members[-parts.test :] for members in train])
        test_x, test_y = data.train_x[test_rows], data.train_y[test_rows]
    train_x = data.train_x[rows].reshape(-1, size)
    return Dataset(train_x, data.train_y[rows], test_x.reshape(-1, size), test_y)


def _check(
    dataset: str,
    parts: PerClass,
    test_from: str,
    own_test: bool,
    train: np.ndarray,
    test: np.ndarray,
) -> None:
    """Refuses numbers that a class cannot give, and says which it can."""
    if min(parts.train, parts.test) < 1 or min(parts.fit, parts.tune) < 0:
        raise ValueError(
            f"train_per_class={parts.train} and test_per_class={parts.test} must be at "
            f"least 1, fit_per_class={parts.fit} and tune_per_class={parts.tune} at "
            "least 0."
        )
    needed = parts.train + parts.fit + parts.tune + (0 if own_test else parts.test)
    short = own_test and test.min() < parts.test
    if train.min() >= needed and not short:
        return
    counts, part = (test, "test") if short else (train, "training")
    wanted = parts.test if short else needed
    smallest = int(counts.argmin())
    raise ValueError(
        f"{dataset}: class {smallest} has {counts[smallest]} {part} images, and "
        f"train_per_class={parts.train}, test_per_class={parts.test}, fit_per_class="
        f"{parts.fit}, tune_per_class={parts.tune} with test_from={test_from!r} need "
        f"{wanted} of each class there. {_what_works(parts, test_from, train, test)}"
    )


def _what_works(
    parts: PerClass, test_from: str, train: np.ndarray, test: np.ndarray
) -> str:
    """The most that the classes can give: from the test part if there is one to use."""
    left = int(train.min()) - parts.fit - parts.tune
    from_test = min(parts.test, int(test.min()))
    if test_from != "train" and from_test:
        count, held = min(parts.train, left), from_test
    else:
        share = parts.test / (parts.train + parts.test)
        held = max(1, min(parts.test, int(left * share)))
        count = min(parts.train, left - held)
    if count < 1:
        return f"The smallest class has {train.min()} training images: keep fewer back."
    return f"This works: train_per_class={count},test_per_class={held}."
