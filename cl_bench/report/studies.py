"""A study's workdir as arrays: one [runs, tasks] matrix per metric, made on demand."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from cl_bench.atomic import StoreError
from cl_bench.report import batches
from cl_bench.report.label_table import AVERAGE, BEST, PER_TASK
from cl_bench.report.labels import parent

KEYS = {
    "run_id", "study", "benchmark", "stream", "network", "method", "arm",
    "seed", "task", "segment", "step",
}  # fmt: skip
PLACES = ("data_dir", "download")  # settings that say only where the data lies


class Run(NamedTuple):
    """One row of the matrices."""

    run_id: str
    study: str
    benchmark: str
    arm: str
    method: str
    seed: int
    settings: dict[str, Any]  # hyper-parameters, 'network.widths', 'stream.name', ...
    oracle: bool
    group: str
    num_tasks: int | None = None  # of its stream; None: of an earlier version
    score: str | None = None  # the metric to rank by, as the run's benchmark has it


class Study(NamedTuple):
    """What one workdir holds."""

    name: str
    workdir: Path
    config: dict[str, Any]
    provenance: dict[str, Any]
    groups: dict[str, dict[str, Any]]  # group key -> group.json
    runs: list[Run]
    metrics: list[str]  # names of the metric columns
    num_tasks: int
    records: pa.Table
    index: np.ndarray  # [rows] position of each record in a [runs, tasks] matrix


def load(workdir: str | Path) -> Study:
    """Reads a workdir, finished or not.

    Raises StoreError where it holds no records, with the command that makes them.
    """
    from cl_bench.records import read_records  # needs no compiled program

    folder = Path(workdir)
    if not folder.is_dir():
        raise StoreError(f"{folder} is not a folder: give the --workdir of a study.")
    records = _with_average(read_records(folder))
    described = {str(r.get("run_id")): r for r in _json(folder / "runs.json", [])}
    config = _json(folder / "config.json", {})
    runs, row_run = _runs(records, described)
    task = records["task"].to_numpy().astype(np.int64)
    num_tasks = int(task.max()) + 1 if len(task) else 0
    index = row_run * num_tasks + task
    records = _with_best(records, index)
    metrics = [
        f.name
        for f in records.schema
        if f.name not in KEYS
        and parent(f.name) not in PER_TASK
        and (pa.types.is_floating(f.type) or _counted(f.type))
    ]
    facts = {p.parent.name: _json(p, {}) for p in folder.glob("groups/*/group.json")}
    name = runs[0].study if runs else folder.name
    provenance = _with_resumes(_json(folder / "provenance.json", {}))
    return Study(
        name, folder, config, provenance, batches.joined(facts), runs, metrics, num_tasks, records,
        index,
    )  # fmt: skip


def matrix(study: Study, metric: str) -> np.ndarray:
    """[runs, tasks] float64: the last value measured in each task, NaN where none was.

    A task may have several rows (segments): metrics of its start stand on the first,
    metrics of the whole task on the last.
    """
    if metric in study.metrics:
        return last_in_task(study, metric)
    return np.full((len(study.runs), study.num_tasks), np.nan)


def _with_resumes(provenance: dict[str, Any]) -> dict[str, Any]:
    """The first process's facts, with the end and the seconds of all that followed."""
    each = [provenance, *provenance.get("resumed", [])]
    known = [p["wall_seconds"] for p in each if p.get("wall_seconds") is not None]
    if len(each) == 1 or not known:
        return provenance
    end = each[-1].get("end_time")
    return provenance | {"end_time": end, "wall_seconds": sum(known)}


def last_in_task(study: Study, column: str) -> np.ndarray:
    """`matrix` of any column of the records, those of `label_table.PER_TASK` too."""
    flat = np.full(len(study.runs) * study.num_tasks, np.nan)
    values = numbers(study.records, column)
    order = np.argsort(study.records["step"].to_numpy(), kind="stable")
    order = order[np.isfinite(values[order])]
    flat[study.index[order]] = values[order]  # the last assignment stays
    return flat.reshape(len(study.runs), study.num_tasks)


def numbers(records: pa.Table, column: str) -> np.ndarray:
    """[rows] float64, NaN where nothing was measured."""
    return records[column].cast(pa.float64()).to_numpy(zero_copy_only=False)


def per_task(records: pa.Table, metric: str) -> dict[int, str]:
    """Task j -> column 'metric/j', by j; a part that is no number is left out."""
    names = [n for n in records.column_names if parent(n) == metric]
    found = {n.partition("/")[2]: n for n in names}
    return {int(j): found[j] for j in sorted(filter(str.isdecimal, found), key=int)}


def _with_average(records: pa.Table) -> pa.Table:
    """The records with ACC_i of every row that has accuracies: a metric as any other."""
    columns = per_task(records, "accuracy_on")
    if not columns or AVERAGE in records.column_names:
        return records
    values = np.stack([numbers(records, name) for name in columns.values()], axis=-1)
    # A task that was not evaluated has no column, or a null where others have one; a
    # NaN is an accuracy that is undefined, and so is then the average.
    there = [records[name].is_valid().to_numpy() for name in columns.values()]
    so_far = np.array(list(columns)) <= records["task"].to_numpy()[:, None]
    counted = np.stack(there, axis=-1) & so_far
    n = counted.sum(axis=-1)
    total = np.where(counted, values, 0.0).sum(axis=-1)
    average = np.where(n > 0, total / np.maximum(n, 1), np.nan)
    return records.append_column(AVERAGE, pa.array(average))


def _with_best(records: pa.Table, index: np.ndarray) -> pa.Table:
    """The records with the best segment of a run's task, on all rows of that task."""
    if "segment_test_accuracy" not in records.column_names:
        return records
    values = numbers(records, "segment_test_accuracy")
    found = np.full(int(index.max(initial=-1)) + 1, np.nan)
    np.fmax.at(found, index, values)
    return records.append_column(BEST, pa.array(found[index]))


def ranked_by(study: Study, run: Run) -> str:
    """The metric that the run's benchmark is ranked by; '' = none in particular."""
    if run.score is not None:
        return run.score
    return str(study.config.get("settings", {}).get("score") or "")


def recorded(study: Study) -> np.ndarray:
    """[runs, tasks] bool: tasks that a run has any record of."""
    flat = np.zeros(len(study.runs) * study.num_tasks, dtype=bool)
    flat[study.index] = True
    return flat.reshape(len(study.runs), study.num_tasks)


def _counted(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def _runs(
    records: pa.Table, described: dict[str, dict[str, Any]]
) -> tuple[list[Run], np.ndarray]:
    """Runs in the order of runs.json, and the run's position of every record."""
    encoded = records["run_id"].combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    codes = encoded.indices.to_numpy()
    ids = encoded.dictionary.to_pylist()
    rank = {run_id: i for i, run_id in enumerate(described)}
    order = sorted(range(len(ids)), key=lambda i: (rank.get(ids[i], len(rank)), i))
    _, first = np.unique(codes, return_index=True)
    wanted = [c for c in records.column_names if c in KEYS]
    rows = records.select(wanted).take(pa.array(first[order])).to_pylist()
    runs = [_run(row, described.get(row["run_id"], {})) for row in rows]
    position = np.empty(len(ids), dtype=np.int64)
    position[order] = np.arange(len(ids))
    return runs, position[codes]


def _run(row: dict[str, Any], described: dict[str, Any]) -> Run:
    def of(key: str, default: str = "") -> str:
        return str(row.get(key) or described.get(key) or default)

    return Run(
        run_id=of("run_id"),
        study=of("study"),
        benchmark=of("benchmark"),
        arm=of("arm", of("method", "run")),
        method=of("method"),
        seed=int(row.get("seed", 0)),
        settings=_settings(described),
        oracle=bool(described.get("oracle", False)),
        group=str(described.get("group", "")),
        num_tasks=described.get("num_tasks"),
        score=described.get("score"),
    )


def _settings(described: dict[str, Any]) -> dict[str, Any]:
    """Hyper-parameters, and the settings of network and stream under a prefix."""
    found = dict(described.get("hyper") or {})
    for part in ("network", "stream"):
        section = described.get(f"{part}_config") or {"name": described.get(part)}
        found |= {f"{part}.{k}": v for k, v in section.items() if k not in PLACES}
    return found


def _json(path: Path, default: Any) -> Any:
    """The file's content; the default where it is absent. StoreError if damaged."""
    if not path.exists():
        return default
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise StoreError(f"{path} is damaged ({error}).") from error
    return content if isinstance(content, type(default)) else default
