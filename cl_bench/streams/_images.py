"""What image streams share: the data set, its parts, scaling and order.

Not a component. Training rows come first in `Dataset.train_x`, then the rows kept
back for 'fit' and 'tune', so that a step needs no table of which rows are which.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cl_bench.datasets import _source
from cl_bench.losses import softmax_cross_entropy
from cl_bench.registry import UnknownNameError, nearest
from cl_bench.streams import _scenario
from cl_bench.types import Batch, Dataset, Key, StreamSpec

OFFERS = ("boundaries", "task_id", "validation")
SCALES = ("zero_one", "minus_one_one", "standardise")


class Images(NamedTuple):
    """One data set as a stream sees it: rows of pixels, and where its parts lie."""

    load: Callable[[], Dataset]  # uint8 [N, D], D = H * W * C
    image_shape: tuple[int, ...]  # (H, W, C)
    num_classes: int
    num_train: int  # rows that tasks train on
    held_out: dict[str, tuple[int, int]]  # split -> (first row, rows)
    gain: float  # x = pixel * gain + bias
    bias: float


def open_images(
    dataset: str,
    *,
    data_dir: str | None = None,
    download: bool = False,
    dataset_options: Mapping[str, Any] | None = None,
    examples: int | None = None,
    fit_examples: int = 0,
    tune_examples: int = 0,
    scale: str = "zero_one",
) -> Images:
    """Looks a data set up by name; its arrays are read only by the result's `load`.

    `examples` uses the first so many training rows. `fit_examples` and
    `tune_examples` of those are kept back: the last ones of one fixed shuffle, the
    same for every seed. `scale`: 'zero_one' is pixel / 255, 'minus_one_one' is
    pixel / 127.5 - 1, 'standardise' subtracts the mean of all training pixels and
    divides by their standard deviation (one number each, so that it commutes with
    a permutation of pixels). Raises ValueError where a number does not fit the set.
    """
    if min(fit_examples, tune_examples) < 0:
        raise ValueError(
            f"fit_examples={fit_examples}, tune_examples={tune_examples}: 0 or more "
            "examples each are kept back."
        )
    where: dict[str, Any] = {"data_dir": data_dir, "download": download}
    options = dict(dataset_options or {})
    facts = _source.describe(dataset, **where, **options)
    total = facts.num_train if examples is None else examples
    num_train = total - fit_examples - tune_examples
    if not 1 <= num_train <= total <= facts.num_train:
        raise ValueError(
            f"{dataset} has {facts.num_train} training examples: examples={examples}, "
            f"fit_examples={fit_examples}, tune_examples={tune_examples} leave "
            f"{num_train} to train on."
        )

    def load() -> Dataset:
        data = _source.load(dataset, **where, **options)
        return _rows(data, total, shuffled=num_train < total)

    held_out = {
        "fit": (num_train, fit_examples),
        "tune": (num_train + fit_examples, tune_examples),
        "test": (0, facts.num_test),
    }
    shape, classes = facts.image_shape, facts.num_classes
    gain, bias = _affine(scale, lambda: load().train_x[:num_train])
    return Images(load, shape, classes, num_train, held_out, gain, bias)


def _rows(data: Dataset, total: int, shuffled: bool) -> Dataset:
    """Images as rows [N, D]; shuffled only where rows are kept back at the end."""
    x, y, test_x = data.train_x[:total], data.train_y[:total], data.test_x
    if x.dtype != np.uint8:
        raise ValueError(f"Image streams take uint8 images; these are {x.dtype}.")
    if shuffled:
        order = np.random.RandomState(0).permutation(total)  # frozen by numpy's policy
        x, y = x[order], y[order]
    size = int(np.prod(x.shape[1:]))
    return Dataset(x.reshape(-1, size), y, test_x.reshape(-1, size), data.test_y)


def _affine(scale: str, train_x: Callable[[], Array]) -> tuple[float, float]:
    if scale not in SCALES:
        raise UnknownNameError(f"Unknown scale {scale!r}.{nearest(scale, SCALES)}")
    if scale == "zero_one":
        return 1 / 255, 0.0
    if scale == "minus_one_one":
        return 2 / 255, -1.0
    pixels, counts = np.asarray(train_x()), np.zeros(256, np.int64)
    for part in np.array_split(pixels, len(pixels) // 4096 + 1):
        counts += np.bincount(part.ravel(), minlength=256)  # copies the part to int64
    values = np.arange(256)
    mean = np.average(values, weights=counts)
    std = np.sqrt(np.average((values - mean) ** 2, weights=counts))
    return float(1 / std), float(-mean / std)


def make_spec(
    images: Images,
    *,
    input_shape: tuple[int, ...],
    num_tasks: int,
    steps_per_task: int | None,
    batch_size: int,
    steps_per_segment: int | None,
    offers: str | tuple[str, ...],
    reset_head: bool,
    held_out_batch: int | None,
) -> StreamSpec:
    """The spec of tasks that each train on all rows; None means one pass, one segment.

    The scenario is 'domain' where boundaries are offered, 'online' where not.
    `held_out_batch` is that of the stream; None where it holds no examples out.
    Raises ValueError or UnknownNameError naming the option that cannot be.
    """
    if num_tasks < 1 or not 1 <= batch_size <= images.num_train:
        raise ValueError(
            f"num_tasks={num_tasks} must be at least 1 and batch_size={batch_size} "
            f"between 1 and the {images.num_train} training examples."
        )
    steps = task_steps(images, steps_per_task, batch_size)
    segment = steps if steps_per_segment is None else steps_per_segment
    check_steps(steps, segment, batch_size)
    if held_out_batch is not None:
        check_held_out_batch(held_out_batch)
    offers = (offers,) if isinstance(offers, str) else tuple(offers)
    _check_offers(offers, images)
    return StreamSpec(
        input_shape=input_shape,
        num_outputs=images.num_classes,
        num_tasks=num_tasks,
        steps_per_task=steps,
        steps_per_segment=segment,
        batch_size=batch_size,
        examples_per_task=images.num_train,
        scenario=_scenario.told("domain", offers),
        offers=frozenset(offers),
        loss=softmax_cross_entropy,
        reset_head=reset_head,
        has_test=held_out_batch is not None and images.held_out["test"][1] > 0,
    )


def task_steps(images: Images, steps_per_task: int | None, batch_size: int) -> int:
    """Steps of a task; None is one pass over the rows to train on."""
    one_pass = images.num_train // max(batch_size, 1)
    return one_pass if steps_per_task is None else steps_per_task


def check_steps(steps: int, segment: int, batch_size: int) -> None:
    """Raise ValueError for a task without steps, or segments that do not divide it."""
    if steps < 1 or steps * batch_size >= 2**31:
        raise ValueError(
            f"steps_per_task={steps} with batch_size={batch_size}: a task has at least "
            "1 step and fewer than 2**31 examples."
        )
    if segment < 1 or steps % segment:
        small = [d for d in range(1, math.isqrt(steps) + 1) if steps % d == 0]
        divisors = small + [steps // d for d in small]
        closest = min(divisors, key=lambda d: abs(d - segment))
        raise ValueError(
            f"steps_per_segment={segment} does not divide steps_per_task={steps}; "
            f"the nearest that does is {closest}."
        )


def check_held_out_batch(size: int) -> None:
    """Raise ValueError for held-out minibatches without examples."""
    if size < 1:
        raise ValueError(
            f"held_out_batch={size}: a minibatch has at least 1 held-out example."
        )


def check_offer_names(offers: tuple[str, ...]) -> None:
    """Raise UnknownNameError for what no stream can offer."""
    for name in offers:
        if name not in OFFERS:
            raise UnknownNameError(f"Unknown offer {name!r}.{nearest(name, OFFERS)}")


def _check_offers(offers: tuple[str, ...], images: Images) -> None:
    check_offer_names(offers)
    if "validation" in offers and not images.held_out["fit"][1]:
        raise ValueError("To offer 'validation', keep examples back: fit_examples=N.")


def example_order(key: Key, count: int) -> Array:
    """[count] int32, a uniformly random order; 26 ms for 60,000, so once a task."""
    return jax.random.permutation(key, count).astype(jnp.int32)


def next_examples(order: Array, i: Array, batch_size: int) -> Array:
    """[B] int32 rows of batch i of a walk along `order`, which starts again at its end."""
    position = lax.rem(i * batch_size + jnp.arange(batch_size), jnp.int32(len(order)))
    return order.at[position].get(mode="promise_in_bounds")


def pixel_rows(x: Array, rows: Array, pixels: Array | None = None) -> Array:
    """[B, D] uint8: rows of x [N, D], their pixels rearranged by `pixels` [D].

    0.3 microseconds a row on a CPU, which walks the rows: XLA's gather of a whole
    batch there takes 4 to 5 times as long.
    """

    def row(n: Array) -> Array:
        taken = lax.dynamic_index_in_dim(x, n, keepdims=False)
        if pixels is None:
            return taken
        return taken.at[pixels].get(mode="promise_in_bounds")

    if len(rows) == 1:
        return row(rows[0])[None]
    if pixels is None:
        return x.at[rows].get(mode="promise_in_bounds")
    return lax.platform_dependent(
        rows, cpu=lambda r: lax.map(row, r), default=jax.vmap(row)
    )


def make_batch(images: Images, pixels: Array, y: Array, task: Array) -> Batch:
    """Scaled float32 pixels with full weights, every class in play and the true task."""
    size = len(y)
    return Batch(
        x=pixels.astype(jnp.float32) * images.gain + images.bias,
        y=y,
        weight=jnp.ones(size, jnp.float32),
        classes=jnp.ones((size, images.num_classes), bool),
        task=jnp.full(size, task, jnp.int32),
    )
