"""Chunks of numbers as record rows: lane by lane, segment by segment."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cl_bench.execute import Chunk
from cl_bench.schedule import Schedule
from cl_bench.study import Group


def score(chunk: Chunk) -> float | None:
    """Mean online accuracy of the newest segment that has one."""
    values = chunk.rows.get("online_accuracy")
    if values is None:
        return None
    measured = values[:, ~np.all(np.isnan(values), axis=0)]
    return float(np.nanmean(measured[:, -1])) if measured.size else None


def record_rows(
    group: Group, plan: Schedule, chunks: Sequence[Chunk]
) -> dict[str, np.ndarray]:
    """The rows of some chunks as record columns: lane by lane, segment by segment."""
    segments = np.concatenate([c.first + np.arange(c.count) for c in chunks])
    task, inside = np.divmod(segments, plan.segments_per_task)
    done = np.minimum((inside + 1) * plan.steps_per_segment, plan.lengths[task])
    lanes, n = len(group.runs), len(segments)

    def names(field: Callable[[Any], str]) -> np.ndarray:
        return np.repeat([field(run) for run in group.runs], n)

    return {
        "run_id": names(lambda r: r.run_id),
        "study": names(lambda r: r.study),
        "benchmark": names(lambda r: r.benchmark),
        "stream": names(lambda r: r.stream["name"]),
        "network": names(lambda r: r.network["name"]),
        "method": names(lambda r: r.method),
        "arm": names(lambda r: r.arm),
        "seed": np.repeat(np.array([r.seed for r in group.runs], np.int64), n),
        "task": np.tile(task.astype(np.int32), lanes),
        "segment": np.tile(inside.astype(np.int32), lanes),
        "step": np.tile((plan.starts[task] + done).astype(np.int64), lanes),
    } | {
        name: np.concatenate([c.rows[name] for c in chunks], axis=1).reshape(-1)
        for name in chunks[0].rows
    }
