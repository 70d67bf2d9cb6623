"""The contract of a stream's examples: each once a pass, and never those held out."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cl_bench.lane import run_key
from cl_bench.testing._batches import Case, check_batch, check_in_play
from cl_bench.testing._compare import require
from cl_bench.types import Dataset

SPLITS = ("fit", "tune", "test")


def check_one_pass(case: Case) -> None:
    """A pass of distinct examples repeats none of them."""
    spec, data = case.spec, case.data
    steps, rest = divmod(spec.examples_per_task, spec.batch_size)
    enough = len(data.train_x) >= spec.examples_per_task
    if rest or not enough or not _all_distinct(data.train_x):
        return
    rows = _distinct(case.examples(case.batches(case.start(0, 0), steps)))
    require(
        len(rows) == spec.examples_per_task,
        f"{case.name}: a pass of {steps} batches shows {len(rows)} of "
        f"{spec.examples_per_task} examples: each must come once.",
    )


def check_held_out(case: Case) -> None:
    """Each split that there is: shapes, padding past its end, nothing seen in training."""
    splits = [split for split in SPLITS if _has(case, split)]
    missing = "fit" not in splits and "validation" in case.spec.offers
    require(not missing, f"{case.name}: offers 'validation' without a 'fit' split.")
    state, last = case.start(0, 0), jnp.int32(case.spec.num_tasks - 1)
    steps = -(-case.spec.examples_per_task // case.spec.batch_size)
    seen = _distinct(case.examples(case.batches(state, steps)))
    distinct = _source_is_distinct(case.data)
    for split in splits:

        def read(i, split=split):
            return case.stream.held_out(case.data, state, split, last, i)

        batch = jax.tree.map(lambda leaf: leaf[None], jax.jit(read)(jnp.int32(0)))
        what = f"held_out {split!r} of task 0"
        check_batch(case, batch, what, batch.x.shape[1])
        check_in_play(case, batch, f"{what} at the last task")
        past = jax.jit(read)(jnp.int32(10**5))
        require(
            not np.any(past.weight) and np.isfinite(past.x).all(),
            f"{case.name}: {what}: past its last example weights must be 0.",
        )
        shared = len(_distinct(case.examples(batch)) & seen)
        require(
            not (distinct and shared),
            f"{case.name}: {what}: {shared} examples are trained on.",
        )


def _has(case: Case, split: str) -> bool:
    """A stream refuses a split that it holds no examples of with a ValueError."""
    try:
        jax.eval_shape(
            lambda data: case.stream.held_out(
                data, case.stream.start(data, run_key(0), jnp.int32(0)), split,
                jnp.int32(0), jnp.int32(0),
            ),
            case.data,
        )  # fmt: skip
    except ValueError:
        return False
    return True


def _source_is_distinct(data: Dataset) -> bool:
    """Whether the data themselves repeat no example, in training or in test."""
    train, test = np.asarray(data.train_x), np.asarray(data.test_x)
    both = _distinct(train) | _distinct(test)
    return 0 < len(both) == len(train) + len(test)


def _distinct(rows: Any) -> set[bytes]:
    return {np.ascontiguousarray(row).tobytes() for row in np.asarray(rows)}


def _all_distinct(rows: Any) -> bool:
    return len(rows) > 0 and len(_distinct(rows)) == len(rows)
