"""The static plan of a run: tasks, segments and steps."""

from typing import NamedTuple

import numpy as np

from cl_bench.types import StreamSpec


class Schedule(NamedTuple):
    """The static plan of a stream in steps and segments."""

    num_tasks: int
    segments_per_task: int
    steps_per_segment: int
    lengths: np.ndarray  # [T] steps of each task
    starts: np.ndarray  # [T] steps before each task
    padded: bool  # tasks of unequal length, or not a multiple of the segment

    @property
    def num_segments(self) -> int:
        """Segments of the whole run."""
        return self.num_tasks * self.segments_per_task


def schedule(spec: StreamSpec) -> Schedule:
    """The plan of a stream. Raises ValueError where its numbers do not fit."""
    per_task = spec.steps_per_task
    if isinstance(per_task, int):
        _check_total(spec.num_tasks * per_task, per_task)
        lengths = np.full(spec.num_tasks, per_task)
    else:
        lengths = np.asarray(per_task)
    if lengths.shape != (spec.num_tasks,) or lengths.min(initial=1) < 1:
        raise ValueError(f"steps_per_task={per_task}: one positive number a task")
    if spec.steps_per_segment < 1:
        raise ValueError(f"steps_per_segment={spec.steps_per_segment}: at least 1")
    segments = -(-int(lengths.max()) // spec.steps_per_segment)
    full = segments * spec.steps_per_segment
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    _check_total(int(lengths.sum()), int(lengths.max()))
    return Schedule(
        spec.num_tasks, segments, spec.steps_per_segment,
        lengths, starts, bool((lengths != full).any()),
    )  # fmt: skip


def _check_total(steps: int, longest: int) -> None:
    most = 2**31 - 1
    if steps > most:
        raise ValueError(
            f"{steps:,} steps: a run counts its steps in int32, up to {most:,}. "
            f"{most // longest} tasks of {longest:,} steps fit"
        )


def epoch_steps(spec: StreamSpec) -> np.ndarray:
    """[T] steps of each task's epoch: its examples once, or the task if it is shorter."""
    examples = np.array(spec.task_examples or spec.examples_per_task)
    return np.clip(examples // spec.batch_size, 1, schedule(spec).lengths)
