"""Transformed images: every task is the same data set behind a view of its own."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cl_bench.registry import UnknownNameError, nearest
from cl_bench.streams import (
    _by_class,
    _epochs,
    _frames,
    _images,
    _scenario,
    _splits,
    _views,
)
from cl_bench.types import Batch, Dataset, Key, Stream

REFERENCE = (
    "Permuted MNIST: Goodfellow et al. (2014), arXiv:1312.6211; its scenarios: van de "
    "Ven and Tolias (2019), arXiv:1904.07734; Rotated MNIST: Lopez-Paz and Ranzato "
    "(2017), NeurIPS"
)
VIEWS = ("permute", "rotate", "relabel")


class Task(NamedTuple):
    """State of one task."""

    views: _views.View  # the task's own, or those of all tasks, stacked
    order: Array  # [epochs, N] int32
    view_key: Key  # the run's, of all tasks' views
    key: Key  # of the tasks that examples come from, in joint training
    task: Array  # () int32


def make(
    *,
    dataset: str = "digits",
    num_tasks: int = 10,
    view: str = "permute",
    fraction: float = 1.0,
    degrees: float = 0.0,
    gradual: bool = False,
    identity_first: bool = False,
    scenario: str = "domain",
    active: str = "all",
    single_head: bool = False,
    training: str = "sequential",
    epochs: int = 1,
    steps_per_task: int | None = None,
    batch_size: int = 16,
    steps_per_segment: int | None = None,
    offers: tuple[str, ...] | None = None,
    examples: int | None = None,
    fit_examples: int = 0,
    tune_examples: int = 0,
    held_out_batch: int = 100,
    reset_head: bool = False,
    scale: str = "zero_one",
    flatten: bool = True,
    pad: int = 0,
    data_dir: str | None = None,
    download: bool = False,
    dataset_options: Mapping[str, Any] | None = None,
) -> Stream:
    """Permuted, rotated or label-permuted tasks, with test sets, in any scenario.

    Views: 'permute' gives each task a random permutation of a `fraction` of its pixels;
    'relabel' one of a `fraction` of its labels, which is how similar tasks are made by
    construction; 'rotate' turns task t by t * `degrees`, or, with `degrees=0`, by an
    angle of its own, uniform in [0, 180). `identity_first` leaves the first task as it
    is. With `gradual` ('rotate' only) the angle drifts within a task, linearly, to that
    of the next one; held-out examples are seen as at the task's last step.

    What outputs there are, which are in play, and whose examples a task trains on, say
    `scenario`, `active`, `single_head` and `training` (`_scenario`); `offers=None` is
    what the scenario tells, and nothing with `gradual`. In joint and cumulative training every example is seen
    as by one of the tasks concerned, drawn uniformly. A task takes `steps_per_task`
    minibatches, or `epochs` passes; each pass has a new order, without its incomplete
    last minibatch. x is [B, D] float32, or [B, H, W, C] where not `flatten`; `pad` puts
    so many black pixels on each side, before the view (`_frames.framed`). The other
    options are those of `_images.open_images`.

    Raises ValueError for a fraction outside of [0, 1] and options that contradict each
    other.
    """
    _check(view, fraction, degrees, gradual, training)
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
    images = _frames.framed(images, pad)
    shape, classes = images.image_shape, images.num_classes
    rule = _scenario.make(
        scenario, num_tasks, classes,
        active=active, single_head=single_head, training=training,
    )  # fmt: skip
    # Where the angle drifts there is no boundary to tell.
    known = _scenario.offers(rule, () if gradual and offers is None else offers)
    one_pass = images.num_train // max(1, batch_size)
    steps = steps_per_task or epochs * max(1, one_pass)
    spec = _images.make_spec(
        images,
        input_shape=_by_class.input_shape(images, flatten),
        num_tasks=num_tasks,
        steps_per_task=steps,
        batch_size=batch_size,
        steps_per_segment=steps_per_segment,
        offers=known,
        reset_head=reset_head,
        held_out_batch=held_out_batch,
    )._replace(**_scenario.facts(rule, known))
    passes = -(-steps // one_pass)
    alone = training == "sequential"

    def angle(key: Key, task: Array) -> Array:
        if degrees:
            return task * jnp.float32(degrees)
        drawn = jax.random.uniform(jax.random.fold_in(key, task), maxval=180.0)
        return jnp.where(identity_first & (task == 0), 0.0, drawn)

    def view_of(key: Key, task: Array, part: Array | float = 1.0) -> _views.View:
        """A task's view, of a drifting task where `part` of it is done."""
        plain = _views.identity(shape, classes)
        own = jax.random.fold_in(key, task)
        first = identity_first & (task == 0)
        if view == "permute":
            pixels = _views.permuted(own, len(plain.index), fraction)[:, None]
            return plain._replace(index=jnp.where(first, plain.index, pixels))
        if view == "relabel":
            labels = _views.permuted(own, classes, fraction)
            return plain._replace(labels=jnp.where(first, plain.labels, labels))
        at = angle(key, task)
        if gradual:
            at += part * (angle(key, task + 1) - at)
        index, weight = _views.rotated(shape, at)
        return plain._replace(index=index, weight=weight)

    def start(data: Dataset, key: Key, task: Array) -> Task:
        view_key, own_key = jax.random.split(key)
        task = jnp.asarray(task, jnp.int32)
        order_key, which_key = jax.random.split(jax.random.fold_in(own_key, task))
        views = view_of(view_key, task)
        if not alone:
            every = jnp.arange(num_tasks, dtype=jnp.int32)
            views = jax.vmap(lambda t: view_of(view_key, t))(every)
        order = _epochs.epoch_orders(order_key, passes, images.num_train)
        return Task(views, order, view_key, which_key, task)

    def examples_of(x, y, rows, views, task, now, test: bool) -> Batch:
        """Examples at `rows` as tasks `task` [B] see them; `views` one or stacked."""
        which = None if views.labels.ndim == 1 else task
        made = _images.make_batch(images, _images.pixel_rows(x, rows), y[rows], now)
        labels = _views.relabelled(views, which, made.y)
        pixels = made.x if view == "relabel" else _views.seen(views, which, made.x)
        return made._replace(
            x=pixels.reshape(len(rows), *spec.input_shape),
            y=_scenario.labels(rule, labels, task),
            classes=_scenario.in_play(rule, task, now, test=test),
            task=task,
        )

    def batch(data: Dataset, state: Task, i: Array) -> Batch:
        rows = _epochs.epoch_rows(state.order, i, batch_size)
        task = jnp.full(batch_size, state.task, jnp.int32)
        views = state.views
        if gradual:
            views = view_of(state.view_key, state.task, (i + 1) / steps)
        if not alone:
            last = state.task + 1 if training == "cumulative" else num_tasks
            at = jax.random.fold_in(state.key, i)
            task = jax.random.randint(at, (batch_size,), 0, last, jnp.int32)
        return examples_of(
            data.train_x, data.train_y, rows, views, task, state.task, test=False
        )

    def held_out(data: Dataset, state: Task, split: str, now: Array, i: Array) -> Batch:
        rows, weight = _splits.held_out_rows(images, split, i, held_out_batch)
        task = jnp.full(held_out_batch, state.task, jnp.int32)
        x, y = _splits.split_arrays(data, split)
        own = state.views
        if not alone:
            own = jax.tree.map(lambda leaf: leaf[state.task], own)
        made = examples_of(x, y, rows, own, task, now, test=True)
        return made._replace(weight=weight)

    return Stream(spec, images.load, start, batch, held_out)


def similarity(
    *,
    num_tasks: int = 10,
    view: str = "permute",
    fraction: float = 1.0,
    degrees: float = 0.0,
    identity_first: bool = False,
    **others: Any,
) -> np.ndarray:
    """[T, T] in [0, 1]: how alike the tasks of these settings of `make` are, the truth.

    The share of pixels ('permute') or labels ('relabel') that neither of two tasks
    moves, (1 - fraction)^2, or 1 - fraction where one is the first of `identity_first`;
    what stays in place by chance is not counted. 'rotate': 1 - (the angle between them)
    / 180 degrees, NaN where the angles are drawn. 1 for a task and itself.
    """
    del others
    task = np.arange(num_tasks)
    if view == "rotate":
        apart = degrees * np.abs(task[:, None] - task) % 360.0
        apart = np.minimum(apart, 360.0 - apart)
        found = 1.0 - apart / 180.0 if degrees else np.full(apart.shape, np.nan)
    else:
        stays = np.where((task == 0) & identity_first, 1.0, 1.0 - fraction)
        found = np.outer(stays, stays)
    return np.where(np.eye(num_tasks, dtype=bool), 1.0, found)


def _check(view, fraction, degrees, gradual, training) -> None:
    if view not in VIEWS:
        raise UnknownNameError(f"Unknown view {view!r}.{nearest(view, VIEWS)}")
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"fraction={fraction}: a share of the pixels, from 0 to 1.")
    if not math.isfinite(degrees):
        raise ValueError(f"degrees={degrees}: a finite angle between tasks.")
    if view != "rotate" and (degrees or gradual):
        raise ValueError(
            f"degrees={degrees} and gradual={gradual} are of view='rotate', not {view!r}."
        )
    if gradual and training != "sequential":
        raise ValueError(
            f"gradual=True drifts within a task, which training={training!r} mixes with "
            "others: leave training='sequential'."
        )
