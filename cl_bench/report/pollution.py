"""Pollution between tasks: the numbers that a study recorded."""

import re

import numpy as np

from cl_bench.report.studies import Study, last_in_task
from cl_bench.stats import Floats

COLUMN = re.compile(r"pollution_(\w+)/(\d+)_by_(\d+)")


def of(study: Study, rows: list[int]) -> dict[str, Floats]:
    """Kind -> [runs, T, T] of some runs at their last task; {} where not recorded."""
    found: dict[str, dict[tuple[int, int], Floats]] = {}
    for name in study.records.column_names:
        if match := COLUMN.fullmatch(name):
            kind, i, j = match[1], int(match[2]), int(match[3])
            values = last_in_task(study, name)[rows]
            found.setdefault(kind, {})[i, j] = _last(values)
    return {kind: _square(cells, len(rows)) for kind, cells in found.items()}


def _last(values: Floats) -> Floats:
    """[runs, tasks] -> [runs]: the last number there is."""
    there = np.isfinite(values)
    at = values.shape[1] - 1 - np.argmax(there[:, ::-1], axis=1)
    return np.where(there.any(axis=1), values[np.arange(len(values)), at], np.nan)


def _square(cells: dict[tuple[int, int], Floats], runs: int) -> Floats:
    size = 1 + max(max(pair) for pair in cells)
    matrix = np.full((runs, size, size), np.nan)
    for (i, j), values in cells.items():
        matrix[:, i, j] = values
    return matrix
