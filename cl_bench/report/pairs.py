"""Numbers of task pairs, pollution and similarity: what a study recorded of them."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from cl_bench import registry
from cl_bench.report.label_table import PAIRS
from cl_bench.report.studies import Study, last_in_task
from cl_bench.stats import Floats

COLUMN = re.compile(rf"({'|'.join(PAIRS)})_(\w+)/(\d+)_(?:by_)?(\d+)(/.+)?")
SCALES = {"causal": 100.0, "probe_transfer": 100.0}  # shown in percent
# Family -> kind -> [runs, T, T], as in `PAIRS`; a part of the network after its kind,
# 'literal/h1', and a quantile over its neurons after that, 'literal/h1/q05'.
Pairs = dict[str, dict[str, Floats]]


def of(study: Study, rows: list[int]) -> Pairs:
    """The pairs of some runs, the last number of each; {} where none were recorded.

    Beside a recorded similarity stands the one that the stream declares.
    """
    cells: dict[str, dict[str, dict[tuple[int, int], Floats]]] = {}
    for name in study.records.column_names:
        if match := COLUMN.fullmatch(name):
            values = _last(last_in_task(study, name)[rows])
            pair = int(match[3]), int(match[4])
            kind = match[2] + (match[5] or "")
            cells.setdefault(match[1], {}).setdefault(kind, {})[pair] = values
    found = {
        family: {kind: _square(pairs, len(rows)) for kind, pairs in kinds.items()}
        for family, kinds in cells.items()
    }
    truth = declared(study.runs[rows[0]].settings) if "similarity" in found else None
    if truth is not None:
        repeated = np.repeat(truth[None], len(rows), axis=0)
        found["similarity"] = {"declared": repeated, **found["similarity"]}
    return found


def parts(arms: list[Pairs]) -> Iterator[tuple[str, str, list[dict[str, Floats]]]]:
    """(family, part, what each arm recorded of it: kind -> [runs, T, T]).

    The parts of the network that any arm recorded; '', the whole network, comes first.
    """
    for family in PAIRS:
        every = [_by_part(pairs.get(family, {})) for pairs in arms]
        for part in dict.fromkeys(name for of in every for name in of):
            yield family, part, [of.get(part, {}) for of in every]


def _by_part(kinds: dict[str, Floats]) -> dict[str, dict[str, Floats]]:
    """Part -> kind -> [runs, T, T] of one family."""
    found: dict[str, dict[str, Floats]] = {"": {}}
    for name, values in kinds.items():
        kind, _, part = name.partition("/")
        found.setdefault(part, {})[kind] = values
    return {part: of for part, of in found.items() if of}


def declared(settings: dict[str, Any]) -> Floats | None:
    """[T, T] similarity of the tasks that a stream was set to; None where unknown.

    Of a stream whose module has a function `similarity`, given the stream's settings.
    Symmetric, so only i < j is given, as in what is measured.
    """
    name = settings.get("stream.name")
    if name not in registry.names("streams"):
        return None
    known = getattr(registry.load("streams", name), "similarity", None)
    if known is None:
        return None
    own = {k: v for k, v in settings.items() if k.startswith("stream.")}
    options = {k.removeprefix("stream."): v for k, v in own.items()}
    del options["name"]
    truth = np.asarray(known(**options), np.float64)
    once = np.where(np.tri(len(truth), dtype=bool), np.nan, truth)
    return once if np.isfinite(once).any() else None


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
