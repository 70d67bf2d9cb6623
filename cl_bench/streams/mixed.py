"""Mixed data sets: each task is another set of images, in sequence."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cl_bench.datasets import _source
from cl_bench.losses import softmax_cross_entropy
from cl_bench.streams import _images, _scenario, _shuffle
from cl_bench.types import Batch, Dataset, Key, Stream, StreamSpec

REFERENCE = (
    "Sequences of data sets: Serra et al. (2018), Overcoming catastrophic forgetting "
    "with hard attention to the task, ICML; Ebrahimi et al. (2020), ECCV"
)


class Task(NamedTuple):
    """State of one task."""

    table: Array  # [size] int32, rows of `Dataset.train_x` in epochs
    key: Key  # of the data sets that examples come from, in joint training
    task: Array  # () int32


def make(
    *,
    datasets: tuple[str, ...] = ("digits", "synthetic"),
    image_shape: tuple[int, int] | None = None,
    scenario: str = "task",
    active: str = "all",
    single_head: bool = False,
    training: str = "sequential",
    epochs: int = 1,
    steps_per_task: int | None = None,
    batch_size: int = 16,
    steps_per_segment: int | None = None,
    offers: tuple[str, ...] | None = None,
    examples: int | None = None,
    held_out_batch: int = 100,
    reset_head: bool = False,
    flatten: bool = True,
    data_dir: str | None = None,
    download: bool = False,
) -> Stream:
    """Task t is data set t, in grey, in the middle of a frame that holds all of them.

    Colours are averaged with equal weights; pixels are in [0, 1]; `image_shape` is the
    frame (None: the largest height and width), black around smaller images. C, the
    labels of a task, is that of the set with most classes. `examples` uses the first so
    many training images of each. What outputs there are, which are in play, and whose
    examples a task trains on, say `scenario`, `active`, `single_head` and `training`
    (`_scenario`). A task takes `steps_per_task` minibatches, or `epochs` passes over
    the smallest set; an epoch of a set is a new order without its incomplete last
    minibatch. In joint and cumulative training each example is of one of the sets
    concerned, drawn uniformly, and one of its images, drawn uniformly. x is [B, D], or
    [B, H, W, 1] where not `flatten`. There are no 'fit' and 'tune' parts; sets of
    which one has no test part are for metrics without test examples.

    Raises ValueError for fewer than two sets, a frame smaller than an image, a batch
    larger than the smallest set, options that contradict each other.
    """
    if isinstance(datasets, str) or len(datasets) < 2:
        raise ValueError(f"datasets={datasets!r}: two names or more, as a tuple.")
    if examples is not None and examples < 1:
        raise ValueError(f"examples={examples}: at least 1 of each set; None: all.")
    where = {"data_dir": data_dir, "download": download}
    facts = [_source.describe(name, **where) for name in datasets]
    frame = _frame(datasets, [f.image_shape for f in facts], image_shape)
    count = [min(f.num_train, examples or f.num_train) for f in facts]
    tests = [f.num_test for f in facts]
    first, first_test = _starts(count), _starts(tests)
    classes, tasks = max(f.num_classes for f in facts), len(datasets)
    rule = _scenario.make(
        scenario, tasks, classes,
        active=active, single_head=single_head, training=training,
    )  # fmt: skip
    known = _scenario.offers(rule, offers)
    _images.check_offer_names(known)
    if "validation" in known:
        raise ValueError(
            "mixed keeps no examples back to offer 'validation'; it can offer "
            "'boundaries' and, with scenario='task', 'task_id'."
        )
    _shuffle.check_batch(batch_size, min(count))
    steps = steps_per_task or epochs * (min(count) // batch_size)
    segment = steps_per_segment or steps
    _images.check_steps(steps, segment, batch_size)
    _images.check_held_out_batch(held_out_batch)
    spec = StreamSpec(
        input_shape=(frame[0] * frame[1],) if flatten else (*frame, 1),
        num_tasks=tasks,
        steps_per_task=steps,
        steps_per_segment=segment,
        batch_size=batch_size,
        examples_per_task=min(count),
        offers=frozenset(known),
        loss=softmax_cross_entropy,
        reset_head=reset_head,
        has_test=min(tests) > 0,
        num_classes=sum(f.num_classes for f in facts),
        **_scenario.facts(rule, known),
    )
    table_size = -(-steps // (min(count) // batch_size)) * max(count)

    def load() -> Dataset:
        parts: list[Any] = [
            _framed(_source.load(name, **where), n, frame)
            for name, n in zip(datasets, count, strict=True)
        ]
        joined: list[Any] = [
            np.concatenate(arrays) for arrays in zip(*parts, strict=True)
        ]
        return Dataset(*joined)

    def start(data: Dataset, key: Key, task: Array) -> Task:
        task = jnp.asarray(task, jnp.int32)
        table_key, which_key = jax.random.split(jax.random.fold_in(key, task))
        size = jnp.asarray(count, jnp.int32)[task]
        table = _shuffle.shuffled_epochs(table_key, size, table_size)
        return Task(table + jnp.asarray(first, jnp.int32)[task], which_key, task)

    def take(x, y, rows, task, now, test: bool) -> Batch:
        return Batch(
            x=x[rows].astype(jnp.float32).reshape(-1, *spec.input_shape) / 255,
            y=_scenario.labels(rule, y[rows], task),
            weight=jnp.ones(len(rows), jnp.float32),
            classes=_scenario.in_play(rule, task, now, test=test),
            task=task,
        )

    def batch(data: Dataset, state: Task, i: Array) -> Batch:
        size = jnp.asarray(count, jnp.int32)
        rows = _shuffle.batch_of(state.table, i, size[state.task], batch_size)
        task = jnp.full(batch_size, state.task, jnp.int32)
        if training != "sequential":
            last = state.task + 1 if training == "cumulative" else tasks
            which_key, row_key = jax.random.split(jax.random.fold_in(state.key, i))
            task = jax.random.randint(which_key, (batch_size,), 0, last, jnp.int32)
            drawn = jax.random.randint(row_key, (batch_size,), 0, size[task], jnp.int32)
            rows = jnp.asarray(first, jnp.int32)[task] + drawn
        return take(data.train_x, data.train_y, rows, task, state.task, test=False)

    def held_out(data: Dataset, state: Task, split: str, now: Array, i: Array) -> Batch:
        if split != "test":
            raise ValueError(f"This stream holds no {split!r} examples; 'test' it has.")
        number = i * held_out_batch + jnp.arange(held_out_batch, dtype=jnp.int32)
        size = jnp.asarray(tests, jnp.int32)[state.task]
        rows = jnp.asarray(first_test, jnp.int32)[state.task]
        rows += jnp.minimum(number, size - 1)
        task = jnp.full(held_out_batch, state.task, jnp.int32)
        made = take(data.test_x, data.test_y, rows, task, now, test=True)
        return made._replace(weight=(number < size).astype(jnp.float32))

    return Stream(spec, load, start, batch, held_out)


def _starts(counts: Sequence[int]) -> list[int]:
    return [sum(counts[:i]) for i in range(len(counts))]


def _frame(names, shapes, wanted) -> tuple[int, int]:
    largest = max(s[0] for s in shapes), max(s[1] for s in shapes)
    frame = largest if wanted is None else tuple(wanted)
    if len(frame) != 2 or frame[0] < largest[0] or frame[1] < largest[1]:
        raise ValueError(
            f"image_shape={wanted}: the frame of {', '.join(names)} is a height and a "
            f"width, of at least {largest[0]} and {largest[1]}."
        )
    return frame


def _framed(data: Dataset, count: int, frame: tuple[int, int]) -> tuple[Any, ...]:
    """The first `count` training images and all test images, grey, [N, H W] uint8."""

    def grey(x: Any) -> np.ndarray:
        x = np.asarray(x)
        if x.dtype != np.uint8:
            raise ValueError(f"Image streams take uint8 images, not {x.dtype}.")
        x = x.reshape(*x.shape[:3], -1)
        x = np.round(x.mean(axis=-1, dtype=np.float32)).astype(np.uint8)
        room = [f - s for f, s in zip(frame, x.shape[1:], strict=True)]
        around = [(0, 0), *((r // 2, r - r // 2) for r in room)]
        return np.pad(x, around).reshape(len(x), -1)

    train_y, test_y = np.asarray(data.train_y[:count]), np.asarray(data.test_y)
    return grey(data.train_x[:count]), train_y, grey(data.test_x), test_y
