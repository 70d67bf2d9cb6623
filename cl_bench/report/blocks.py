"""Points of drawn curves: blocks of tasks, and what the x axis counts (numpy, pure)."""

import math
from typing import NamedTuple

import numpy as np

from cl_bench.report.studies import Study, last_in_task
from cl_bench.stats import Floats

MAX_POINTS = 160
TASK, EXAMPLES = "Task", "Examples"  # titles of the x axis


class Blocks(NamedTuple):
    """How the curves of one arm are averaged for drawing."""

    size: int  # tasks per point
    middles: Floats  # [blocks] place of each point, in tasks (from 1) or in examples


def examples(study: Study) -> Floats:
    """[runs, tasks] examples seen at each task's end: steps times batch size.

    NaN where a run has not come to, or where its batch size is not known.
    """
    sizes = [run.settings.get("stream.batch_size") for run in study.runs]
    known = [float(size) if isinstance(size, int) else np.nan for size in sizes]
    return last_in_task(study, "step") * np.array(known)[:, None]


def axis(ends: list[Floats], planned: list[int]) -> str:
    """What x counts: examples where arms differ in the number and the length of tasks.

    That is a study of rates of change: over tasks, the arm of few long ones would be
    some points at the left edge. Arms that differ in one of the two only have the tasks
    in common. ends are `examples` of each arm, [tasks]; planned is how many it has.
    """
    if len(set(planned)) == 1:
        return TASK
    counts = [int(np.isfinite(seen).sum()) for seen in ends]
    # The newest task of an unfinished run is not at its end yet.
    over = [n - (n < all_) for n, all_ in zip(counts, planned, strict=True)]
    whole = [seen[: max(0, min(over))] for seen in ends]
    alike = all(np.array_equal(seen, whole[0]) for seen in whole)
    return TASK if alike else EXAMPLES


def of_tasks(num_tasks: int) -> Blocks:
    """One size for all arms of a panel; a point stands at its block's middle task."""
    size = _size(num_tasks)
    starts = np.arange(0, num_tasks, size)
    ends = np.minimum(starts + size, num_tasks)
    return Blocks(size, (starts + 1 + ends) / 2)


def of_examples(ends: Floats, planned: int) -> Blocks:
    """Of an arm of `planned` tasks; a point stands at the middle of its examples.

    ends are the examples at each task's end, [tasks]; NaN is a task not come to.
    """
    size = _size(min(planned, len(ends)))
    seen = np.concatenate([[0.0], np.fmax.accumulate(ends)])
    starts = np.arange(0, len(ends), size)
    last = np.minimum(starts + size, len(ends))
    return Blocks(size, (seen[starts] + seen[last]) / 2)


def _size(num_tasks: int) -> int:
    """Tasks per point: a curve has at most `MAX_POINTS` points."""
    return max(1, math.ceil(num_tasks / MAX_POINTS))


def in_blocks(curves: Floats, size: int) -> Floats:
    """[runs, tasks] -> [runs, blocks]: means over the measured tasks of each block."""
    runs, tasks = curves.shape
    padded = np.pad(curves, ((0, 0), (0, -tasks % size)), constant_values=np.nan)
    blocks = padded.reshape(runs, -1, size)
    n = np.isfinite(blocks).sum(axis=-1)
    return np.nansum(blocks, axis=-1) / np.where(n, n, np.nan)
